"""A disk that lost its power: what a trace leaves below the traced folder when it is cut at some place.

A change of a file is certain once a sync of that file that began after the change was done has returned; a change of a
name once the folder was synced. Until then a power cut may keep it, drop it or tear it: each sector of a write stays or
goes by itself, later changes may stay where earlier ones went, and a file may have grown without its data. That is less
than any file system promises.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.durability.trace import Event, Kind

SECTOR_BYTES: Final = 512
NEVER: Final = 1 << 63
# SQLite's index of the write-ahead log lies in shared memory and is made anew by whoever opens the database first.
NOT_ON_DISK: Final = "-shm"


@dataclass(slots=True)
class Change:
    """A change of a file's content or size, or of a name. ``durable``: the place from which on it is certain."""

    place: int
    done: int
    durable: int = NEVER


@dataclass(slots=True)
class DataChange(Change):
    """``size``: where the file ends at least when it is made, and at most after a TRUNCATE."""

    kind: Kind = Kind.WRITE
    offset: int = 0
    size: int = 0
    data: bytes = b""


@dataclass(slots=True)
class NameChange(Change):
    """``old`` goes, ``new`` comes and is ``file``, or a folder when that is None; either may be empty."""

    old: str = ""
    new: str = ""
    file: "File | None" = None


@dataclass(slots=True)
class Content:
    """What a file holds: data, and zeros from there to its size."""

    data: bytearray = field(default_factory=bytearray)
    size: int = 0

    def copy(self) -> "Content":
        """Another one."""
        return Content(bytearray(self.data), self.size)

    def apply(self, change: DataChange) -> None:
        """Make a change whole."""
        if change.kind == Kind.TRUNCATE:
            del self.data[change.size :]
            self.size = change.size
        else:
            self.put(change.offset, change.data)
            self.size = max(self.size, change.size)

    def put(self, offset: int, data: bytes) -> None:
        """Write data there."""
        if data:
            self.data.extend(bytes(max(0, offset - len(self.data))))
            self.data[offset : offset + len(data)] = data
            self.size = max(self.size, offset + len(data))

    def write_to(self, path: Path) -> None:
        """Make a file of it."""
        with path.open("wb") as file:
            file.write(self.data)
            file.truncate(self.size)

    def to_bytes(self) -> bytes:
        """All of it."""
        return bytes(self.data).ljust(self.size, b"\0")


@dataclass(slots=True)
class File:
    """An inode from its creation to its end: changes in order, and what of them is certain at the last cut."""

    changes: list[DataChange] = field(default_factory=list)
    certain: Content = field(default_factory=Content)
    unsynced: list[DataChange] = field(default_factory=list)


Names = dict[str, File | None]
"""Paths below the folder, relative to it, with their files; None for a folder."""


class Disk:
    """The folder as ``start`` holds it, and what the events of a trace do to it."""

    def __init__(self, start: Path, inodes: dict[int, str], events: Sequence[Event], folder: str) -> None:
        """``start``: a copy of the folder as it was before; ``inodes``: those of its files and folders, with their
        relative paths ("" for the folder itself); ``folder``: its absolute path in the events.
        """
        self.names: Names = {}
        self.name_changes: list[NameChange] = []
        self._folder = folder
        self._files: dict[int, File] = {}
        self._folders: dict[int, str] = {}
        self._unsynced_names: dict[str, list[NameChange]] = {}
        self._now: Names = {}
        for inode, path in inodes.items():
            if (start / path).is_dir():
                self._folders[inode] = path
                self.names[path] = None
            else:
                data = (start / path).read_bytes()
                self.names[path] = self._files[inode] = File(certain=Content(bytearray(data), len(data)))
        self._now = dict(self.names)
        for event in events:
            self._take(event)

    def _take(self, event: Event) -> None:
        if event.kind in (Kind.WRITE, Kind.TRUNCATE, Kind.ALLOCATE):
            self._change_data(event)
        elif event.kind == Kind.SYNC:
            self._sync(event)
        elif event.kind in (Kind.CREATE, Kind.MKDIR):
            self._make(event)
        elif event.kind in (Kind.RENAME, Kind.UNLINK):
            old, new = ([self._relative(path) for path in event.paths] + [""])[:2]
            if new and _parent(old) != _parent(new):
                raise ValueError(f"a rename from one folder to another is not modelled: {old} to {new}")
            file = self._now.get(old) if new else None
            self._change_name(NameChange(event.place, event.done, old=old, new=new, file=file))

    def _change_data(self, event: Event) -> None:
        size = event.offset + (event.size if event.kind == Kind.ALLOCATE else len(event.data))
        change = DataChange(
            event.place, event.done, kind=event.kind, offset=event.offset, size=size, data=event.data
        )  # fmt: skip
        file = self._files[event.file]
        file.changes.append(change)
        file.unsynced.append(change)

    def _make(self, event: Event) -> None:
        path = self._relative(event.paths[0])
        file = None
        if event.kind == Kind.CREATE:
            # An inode that is free again comes back at once for another file.
            file = self._files[event.file] = File()
            self._folders.pop(event.file, None)
        else:
            self._folders[event.file] = path
        self._change_name(NameChange(event.place, event.done, new=path, file=file))

    def _change_name(self, change: NameChange) -> None:
        self.name_changes.append(change)
        apply_name(self._now, change)
        self._unsynced_names.setdefault(_parent(change.new or change.old), []).append(change)

    def _sync(self, event: Event) -> None:
        unsynced: list[DataChange] | list[NameChange]
        if event.file in self._folders:
            unsynced = self._unsynced_names.setdefault(self._folders[event.file], [])
        else:
            unsynced = self._files[event.file].unsynced
        for change in unsynced:
            if change.done <= event.begin:
                change.durable = event.place
        unsynced[:] = [change for change in unsynced if change.durable == NEVER]  # type: ignore[assignment]

    def _relative(self, path: str) -> str:
        return path[len(self._folder) :].lstrip("/")


def apply_name(names: Names, change: NameChange) -> None:
    """Make a change of a name."""
    if change.old:
        names.pop(change.old, None)
    if change.new:
        names[change.new] = change.file


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


Choice = Callable[[Sequence[Change], random.Random], list[bool]]

# What may become of changes that are not certain. TORN decides by sector, so it is not among them.
CHOICES: Final[dict[str, Choice]] = {
    "dropped": lambda changes, draw: [False for _ in changes],
    "kept": lambda changes, draw: [True for _ in changes],
    "any": lambda changes, draw: [draw.random() < 0.5 for _ in changes],
    "first": lambda changes, draw: _keep(range(draw.randint(0, len(changes))), changes),
    "last": lambda changes, draw: _keep(range(draw.randint(0, len(changes)), len(changes)), changes),
}
TORN: Final = "torn"


def _keep(kept: range, changes: Sequence[Change]) -> list[bool]:
    return [number in kept for number in range(len(changes))]


class PowerCuts:
    """Cuts one disk at places that ascend."""

    def __init__(self, disk: Disk) -> None:
        self._certain_names = dict(disk.names)
        self._names = list(disk.name_changes)
        self._data = [
            (file, sorted(file.changes, key=lambda change: (change.durable, change.place))) for file in _files(disk)
        ]
        self._certain_counts = [0] * len(self._data)

    def cut(self, place: int, fate: str, draw: random.Random) -> dict[str, Content | None]:
        """The folder after a cut at ``place``: relative paths with contents, None for folders."""
        self._advance(place)
        names = dict(self._certain_names)
        pending = [change for change in self._names if change.place < place]
        for change, kept in zip(pending, CHOICES["any" if fate == TORN else fate](pending, draw), strict=True):
            if kept:
                apply_name(names, change)
        contents: dict[str, Content | None] = {}
        for path in sorted(names):
            if path.endswith(NOT_ON_DISK) or (path and _parent(path) not in contents):
                continue
            file = names[path]
            contents[path] = None if file is None else self._cut_file(file, place, fate, draw)
        return contents

    def _advance(self, place: int) -> None:
        for change in self._names:
            if change.durable < place:
                apply_name(self._certain_names, change)
        self._names = [change for change in self._names if change.durable >= place]
        for number, (file, changes) in enumerate(self._data):
            count = self._certain_counts[number]
            while count < len(changes) and changes[count].durable < place:
                file.certain.apply(changes[count])
                count += 1
            self._certain_counts[number] = count

    def _cut_file(self, file: File, place: int, fate: str, draw: random.Random) -> Content:
        content = file.certain.copy()
        pending = [change for change in file.changes if change.place < place <= change.durable]
        if fate == TORN:
            for change in pending:
                _tear(content, change, draw)
            return content
        for change, kept in zip(pending, CHOICES[fate](pending, draw), strict=True):
            if kept:
                content.apply(change)
            elif change.kind != Kind.TRUNCATE and fate == "any" and draw.random() < 0.5:
                content.size = max(content.size, change.size)
        return content


def _files(disk: Disk) -> Iterator[File]:
    files = [*disk.names.values(), *(change.file for change in disk.name_changes)]
    return (file for file in {id(file): file for file in files if file is not None}.values())


def _tear(content: Content, change: DataChange, draw: random.Random) -> None:
    """Keep some sectors of a write and drop others; make any other change or not."""
    if change.kind != Kind.WRITE:
        if draw.random() < 0.5:
            content.apply(change)
        return
    at, end = change.offset, change.offset + len(change.data)
    while at < end:
        stop = min(end, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if draw.random() < 0.5:
            content.put(at, change.data[at - change.offset : stop - change.offset])
        at = stop
    if draw.random() < 0.5:
        content.size = max(content.size, change.size)
