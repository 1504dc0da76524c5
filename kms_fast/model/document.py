"""Our JSON files: canonical bytes to sign, and a strict reader of their fields (docs/files.md).

A file is ``{"format": "kms_fast NAME 1", "body": {...}, ...proofs}``. What is signed is the canonical form of ``body``
(RFC 8785 for objects, lists, strings and integers below 2^53: sorted names, no white space, UTF-8).
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any, NoReturn

from kms_fast.errors import ConfigurationError

MAX_INTEGER = 2**53 - 1


def canonical_json(value: Any) -> bytes:
    """The bytes of ``value`` that are signed: names (ASCII) sorted, no white space, UTF-8, no fractions."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def write_document(format_name: str, body: Mapping[str, Any], **proofs: Any) -> bytes:
    """A readable JSON file of ``body`` and its proofs."""
    document = {"format": format_name, "body": body, **proofs}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def hash_document(data: bytes) -> bytes:
    """SHA-256 of a readable file's canonical form, proofs included: the same however the file is laid out."""
    return hashlib.sha256(canonical_json(json.loads(data))).digest()


def read_document(data: bytes, format_name: str, what: str) -> "Fields":
    """The fields of a file of ours.

    Raises `ConfigurationError` (OFFLINE_DATA_MALFORMED) when it is not JSON, or a file of another format: the message
    names both.
    """
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
        # Refuses what JSON cannot carry between programs: lone surrogates, NaN.
        canonical_json(document)
    except (ValueError, RecursionError) as error:
        raise malformed(f"{what} is not readable as JSON: {error}.") from None
    return open_document(document, format_name, what)


def open_document(document: Any, format_name: str, what: str) -> "Fields":
    """The same for a document that is an object inside another one."""
    if not isinstance(document, dict) or not isinstance(document.get("format"), str):
        raise malformed(f"{what} is not a file of kms_fast: it does not begin with a format.")
    if document["format"] != format_name:
        found = document["format"][:60]
        raise malformed(f"{what} must be a file of format {format_name!r}, but this one has format {found!r}.")
    return Fields({name: value for name, value in document.items() if name != "format"}, what)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return document


def malformed(message: str) -> ConfigurationError:
    """The error of a file that is damaged or of another kind."""
    return ConfigurationError(message, name="OFFLINE_DATA_MALFORMED")


class Fields:
    """Takes the fields out of one JSON or TOML object, checking type and range; `finish` refuses what is left.

    Every error names the file and the path of the field. ``error`` is the name of the result it carries.
    """

    def __init__(self, values: Any, where: str, error: str = "OFFLINE_DATA_MALFORMED") -> None:
        self.where = where
        self._error = error
        if not isinstance(values, dict):
            self.refuse("", "must be an object with named fields")
        self.values: dict[str, Any] = values
        self._left = dict(values)

    def refuse(self, name: str, problem: str) -> NoReturn:
        """Raise the error of field ``name``."""
        field = f"field {name!r} " if name else ""
        raise ConfigurationError(f"{self.where}: {field}{problem}.", name=self._error, field=name)

    def take(self, name: str, default: Any = ...) -> Any:
        """The field as it is; without a default it must be there."""
        value = self._left.pop(name, default)
        if value is ...:
            self.refuse(name, "is missing")
        return value

    def text(self, name: str, default: Any = ..., *, longest: int = 200) -> str:
        """A string without control characters, at most ``longest`` characters."""
        value = self.take(name, default)
        if not isinstance(value, str) or len(value) > longest or not all(c.isprintable() for c in value):
            self.refuse(name, f"must be text of at most {longest} printable characters")
        return value

    def integer(self, name: str, default: Any = ..., *, low: int = 0, high: int = MAX_INTEGER) -> int:
        """An integer in ``low`` … ``high``."""
        value = self.take(name, default)
        if type(value) is not int or not low <= value <= high:
            self.refuse(name, f"must be an integer from {low} to {high}")
        return int(value)

    def octets(self, name: str, size: int | None = None) -> bytes:
        """Bytes in lower-case hex, of ``size`` if given."""
        return self._hex(name, self.take(name), size)

    def octets_list(self, name: str, size: int | None = None) -> tuple[bytes, ...]:
        """A list of bytes in lower-case hex."""
        return tuple(self._hex(name, value, size) for value in self._list(name))

    def uuid(self, name: str) -> uuid.UUID:
        """A UUID in its usual text, lower case."""
        value = self.take(name)
        try:
            result = uuid.UUID(value)
        except (ValueError, AttributeError, TypeError):
            self.refuse(name, "must be a UUID")
        if str(result) != value:
            self.refuse(name, "must be a UUID in lower case with dashes")
        return result

    def object(self, name: str) -> "Fields":
        """An object inside this one."""
        return Fields(self.take(name), f"{self.where}, {name}", self._error)

    def objects(self, name: str) -> list["Fields"]:
        """A list of objects inside this one; empty when absent."""
        return [
            Fields(value, f"{self.where}, {name} {position}", self._error)
            for position, value in enumerate(self._list(name, []), 1)
        ]

    def finish(self) -> None:
        """Refuse fields that nobody took."""
        for name in self._left:
            self.refuse(name, "is not known")

    def _list(self, name: str, default: Any = ...) -> list[Any]:
        value = self.take(name, default)
        if not isinstance(value, list):
            self.refuse(name, "must be a list")
        return value

    def _hex(self, name: str, value: Any, size: int | None) -> bytes:
        expected = "bytes in lower-case hex" if size is None else f"{size} bytes in lower-case hex"
        try:
            result = bytes.fromhex(value)
        except (ValueError, TypeError):
            self.refuse(name, f"must be {expected}")
        if result.hex() != value or (size is not None and len(result) != size):
            self.refuse(name, f"must be {expected}")
        return result
