"""Reading what the shim wrote down (shim.c): every event of a host's processes in one order."""

import os
import struct
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

HEAD: Final = struct.Struct("<8sQQ")
EVENT: Final = struct.Struct("<QQqQQqQII")
MAGIC: Final = b"KFTRACE1"
FIRST_PLACE: Final = 64
ROOM_BYTES: Final = 1 << 30
UNKNOWN: Final = -(1 << 63)


class Kind(IntEnum):
    """What happened; the numbers are those of trace.h."""

    BEGIN = 1
    SYNC = 2
    WRITE = 3
    TRUNCATE = 4
    ALLOCATE = 5
    CREATE = 6
    MKDIR = 7
    RENAME = 8
    UNLINK = 9
    SEND = 10
    RECEIVE = 11


class BrokenTrace(Exception):
    """A process was killed between two instructions of the shim, so that what follows cannot be read."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``place``: its position in the order of all. ``done``: the place that was next when its call had
    returned. ``begin``: when a sync began. ``data``: what was written, sent or received, or paths that end in zeros.
    """

    place: int
    done: int
    begin: int
    kind: Kind
    file: int
    offset: int
    size: int
    data: bytes

    @property
    def paths(self) -> list[str]:
        """The paths of an event that changes names."""
        return self.data.decode().split("\0")[:-1]


def make_trace(path: Path) -> None:
    """An empty trace for the shim to write to. It has holes until then, so its size costs nothing."""
    with path.open("wb") as file:
        file.write(HEAD.pack(MAGIC, FIRST_PLACE, ROOM_BYTES))
        file.truncate(ROOM_BYTES)


def read_end(path: Path) -> int:
    """Where the next event will be."""
    with path.open("rb") as file:
        end: int = HEAD.unpack(file.read(HEAD.size))[1]
    return end


def read_trace(path: Path) -> list[Event]:
    """Every event whose call succeeded, in order. A call that had not returned when its process was killed counts as
    done: `kms_fast` cannot know either. Raises BrokenTrace.
    """
    events = []
    with path.open("rb") as file:
        magic, end, room = HEAD.unpack(file.read(HEAD.size))
        if magic != MAGIC or end > room:
            raise BrokenTrace("the trace is full" if magic == MAGIC else "not a trace")
        file.seek(0)
        data = file.read(end)
    place = FIRST_PLACE
    while place < end:
        size = EVENT.unpack_from(data, place)[0]
        if size < EVENT.size:
            raise BrokenTrace(f"no event at {place}")
        event = _read_event(data, place)
        if event is not None:
            events.append(event)
        place += size
    return events


def _read_event(data: bytes, place: int) -> Event | None:
    size, done, result, begin, file, offset, data_size, kind_number, ready = EVENT.unpack_from(data, place)
    kind = Kind(kind_number)
    if kind == Kind.BEGIN or not ready:
        return None
    payload_at, payload_size = place + EVENT.size, 0 if kind == Kind.ALLOCATE else data_size
    if result == UNKNOWN:
        if kind == Kind.SEND:
            return None
        done = place + size
    elif result < 0 or (kind == Kind.ALLOCATE and result != 0):
        return None
    elif kind in (Kind.WRITE, Kind.SEND):
        payload_size = result
    return Event(place, done, begin, kind, file, offset, data_size, data[payload_at : payload_at + payload_size])


def build_shim(folder: Path) -> Path:
    """The compiled shim in ``folder``. Raises OSError and CalledProcessError when there is no compiler or it fails."""
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = [os.environ.get("CC", "cc"), "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-o", library, source]
    subprocess.run(command, check=True, timeout=100)
    return library


def shim_environment(library: Path, trace: Path, folder: Path, *, pretend: str | None = None) -> dict[str, str]:
    """What a process needs in its environment to be traced below ``folder``."""
    environment = {
        "LD_PRELOAD": str(library),
        "DURABILITY_TRACE": str(trace),
        "DURABILITY_FOLDER": str(folder.resolve()),
    }
    return environment | ({"DURABILITY_PRETEND": pretend} if pretend else {})
