"""Exceptions that users can meet; each carries a row of `kms_fast.results`.

KmsFastError                  anything a user can meet; carries a Result and details
├── ConfigurationError        a setting or file of ours is wrong
├── ActivationError           a client did not get a lease
│   ├── Refused               a host decided so and signed it
│   ├── Unsigned              a host answered without a signature; licence state untouched
│   ├── AnswerRejected        an answer failed a check of docs/protocol.md
│   └── NoHost                nothing could be reached, or hosts disagreed
├── KeyInvalid                a 25-character key is mistyped or of the wrong kind
└── LedgerError               a ledger does not verify or cannot be written
"""

import errno
import json
from typing import Any, Final

from kms_fast.results import BY_NAME, find_result

# Errors of the file system that carry no file name (a write to an open file, or to stdout).
_STORAGE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EFBIG}
)
# What another machine says is untrusted: a code that a result can have, and a text of this length.
_CODES: Final = range(1, 1 << 32)
_SHOWN_CHARACTERS: Final = 4096


class KmsFastError(Exception):
    """Base of all errors that a user can meet.

    ``message`` says what happened here, in this case; the result adds what it means and what to do. ``details`` are the
    facts behind it, fit for JSON.
    """

    default = "CONFIGURATION_INVALID"

    def __init__(self, message: str, *, name: str | None = None, code: int | None = None, **details: Any) -> None:
        super().__init__(message)
        self.result = find_result(code) if code is not None else BY_NAME[name or self.default]
        self.message = message
        self.details = details

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "KmsFastError":
        """The error of another process, from its `to_json`."""
        return KmsFastError(told["message"], code=int(told["code"], 16), **told["details"])

    @property
    def signed(self) -> bool:
        """Whether a host signed this outcome."""
        return False

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints for a failure."""
        return {
            "ok": False,
            "code": self.result.hex,
            "name": self.result.name,
            "message": self.message,
            "meaning": self.result.meaning,
            "cure": self.result.cure,
            "signed": self.signed,
            "details": self.details,
        }


class ConfigurationError(KmsFastError):
    """A setting, file or address of this installation is wrong."""


class LedgerError(KmsFastError):
    """A ledger does not verify or cannot be written."""

    default = "LEDGER_DAMAGED"


class KeyInvalid(KmsFastError):
    """A 25-character key is mistyped, of another publisher, or of the wrong kind."""

    default = "KEY_INVALID"


class ActivationError(KmsFastError):
    """A client did not get a lease."""

    default = "NO_HOST_REACHED"


class Refused(ActivationError):
    """A host decided against the request and signed its decision."""

    @property
    def signed(self) -> bool:
        """True: the leaf and its proof were verified."""
        return True


class Unsigned(ActivationError):
    """A host answered without a signature; the licence state stays as it was."""


class AnswerRejected(ActivationError):
    """An answer failed one of the checks that docs/protocol.md lists."""

    default = "ANSWER_MALFORMED"


class NoHost(ActivationError):
    """No host could be reached, or those that were did not agree on an unsigned code."""


def read_refusal(data: bytes) -> KmsFastError:
    """What an activation service says when it refuses (docs/publisher.md). Raises ValueError for anything else."""
    try:
        told = json.loads(data)
        code, message, details = int(told["code"], 16), str(told["message"]), dict(told.get("details") or {})
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"this is no refusal: {error}") from None
    if code not in _CODES:
        raise ValueError(f"{code} is no code of a result")
    return KmsFastError(f"The publisher says: {message[:_SHOWN_CHARACTERS]}", code=code, publisher_details=details)


def translate_os_error(error: OSError) -> KmsFastError | None:
    """The user's error behind an OSError of a file; None when it is not about a file."""
    if error.filename is None and error.errno not in _STORAGE_ERRNOS:
        return None
    where = f"{error.filename}: " if error.filename is not None else ""
    name = "NOT_ALLOWED" if isinstance(error, PermissionError) else "STORAGE_FAILED"
    return KmsFastError(f"{where}{error.strerror}", name=name, file=error.filename, errno=error.errno)


def explain_error(error: KmsFastError | OSError) -> KmsFastError:
    """The user's error behind one, whatever it is about: for what goes on after it was told."""
    if isinstance(error, KmsFastError):
        return error
    return translate_os_error(error) or KmsFastError(str(error), name="STORAGE_FAILED")
