"""Events of host and client, under the numbers administrators know.

A class is an event, its fields in the order of the line: the number, a space, the fields with commas between them. In a
line results and flags are hexadecimal, times minutes in UTC, yes and no 1 and 0; a comma or control character in a text
becomes ``_``, so that no machine's name makes fields or lines of its own. JSON has times in milliseconds, texts as they
are.
"""

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, ClassVar, Final
from uuid import UUID

from kms_fast.results import find_result

SENT_AGAIN: Final = 1  # flag of 12288: the same bytes went out before and were not answered
SIGNED: Final = 1  # flag of 12289: a host signed this result, and the signature was verified


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events have in common. ``result`` is a code of `kms_fast.results`; names end in units, as elsewhere."""

    number: ClassVar[int]

    @property
    def line(self) -> str:
        """The number and the comma-separated fields."""
        return f"{self.number} {','.join(_write(name, value) for name, value in self._items())}"

    def __str__(self) -> str:
        return self.line

    def to_json(self) -> dict[str, Any]:
        """The number as ``id``, and the fields by name."""
        return {"id": self.number} | {
            name: _write(name, value) if name == "result" or isinstance(value, UUID) else value
            for name, value in self._items()
        }

    def _items(self) -> list[tuple[str, Any]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRequest(Event):
    """A client asked a host. ``result``: 0 when it got the request, else why it did not. ``flags``: SENT_AGAIN."""

    number: ClassVar[int] = 12288

    result: int
    flags: int
    host: str
    cmid: UUID
    client_time_ms: int
    virtual: bool
    licence_state: int
    minutes_to_expiry: int
    sku: UUID
    threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAnswer(Event):
    """What the host answered. ``flags``: SIGNED; without it count and intervals are 0."""

    number: ClassVar[int] = 12289

    result: int
    flags: int
    activated: bool
    unused: int = 0
    count: int = 0
    activation_interval_min: int = 0
    renewal_interval_min: int = 0
    client_time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRequest(Event):
    """A host decided the request of the machine ``name``."""

    number: ClassVar[int] = 12290

    result: int
    threshold: int
    name: str
    cmid: UUID
    client_time_ms: int
    virtual: bool
    licence_state: int
    minutes_to_expiry: int
    sku: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFailed(Event):
    """A host could not start."""

    number: ClassVar[int] = 12291

    result: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsFailed(Event):
    """A host's record could not be published in ``domain``."""

    number: ClassVar[int] = 12293

    result: int
    domain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsPublished(Event):
    """A host's record was published in ``domain``."""

    number: ClassVar[int] = 12294

    domain: str


def _write(name: str, value: Any) -> str:
    if name == "result":
        return find_result(value).hex
    if name == "flags":
        return f"0x{value:08X}"
    if name.endswith("_ms"):
        return _write_time(value)
    text = str(int(value) if isinstance(value, bool) else value)
    return "".join("_" if character == "," or not character.isprintable() else character for character in text)


def _write_time(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y/%m/%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return str(time_ms)
