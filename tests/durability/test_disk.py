"""The disk that loses its power: what was synced stays in every cut, what was not is kept, dropped or torn."""

import random
from pathlib import Path

import pytest

from tests.durability.disk import CHOICES, SECTOR_BYTES, TORN, Content, Disk, PowerCuts
from tests.durability.trace import Event, Kind

FOLDER_INODE, FILE_INODE = 1, 2
FATES = [*CHOICES, TORN]


class Tracer:
    """Makes events as the shim does: a place for each, done at the next."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.end = 64

    def note(self, kind: Kind, file: int = FILE_INODE, *, offset: int = 0, data: bytes = b"", size: int = 0) -> None:
        self.events.append(Event(self.end, self.end + 64, 0, kind, file, offset, size or len(data), data))
        self.end += 64

    def write(self, offset: int, data: bytes) -> None:
        self.note(Kind.WRITE, offset=offset, data=data)

    def create(self, name: str, inode: int = FILE_INODE) -> None:
        self.note(Kind.CREATE, inode, data=f"/top/{name}\0".encode())

    def rename(self, old: str, new: str) -> None:
        self.note(Kind.RENAME, 0, data=f"/top/{old}\0/top/{new}\0".encode())

    def sync(self, inode: int = FILE_INODE, *, begun_at: int | None = None) -> None:
        begin = self.end if begun_at is None else begun_at
        self.events.append(Event(self.end + 64, self.end + 128, begin, Kind.SYNC, inode, 0, 0, b""))
        self.end += 128

    def cut(self, start: Path, fate: str, seed: int = 0, place: int | None = None) -> dict[str, Content | None]:
        disk = Disk(start, {FOLDER_INODE: ""}, self.events, "/top")
        return PowerCuts(disk).cut(self.end if place is None else place, fate, random.Random(seed))

    def read(self, start: Path, name: str, fate: str, seed: int = 0) -> bytes | None:
        content = self.cut(start, fate, seed).get(name)
        return None if content is None else content.to_bytes()


@pytest.fixture
def tracer() -> Tracer:
    """A file ``f`` whose name is certain."""
    tracer = Tracer()
    tracer.create("f")
    tracer.sync(FOLDER_INODE)
    return tracer


@pytest.mark.parametrize("fate", FATES)
def test_what_was_synced_stays(tmp_path: Path, tracer: Tracer, fate: str) -> None:
    tracer.write(0, b"synced")
    tracer.sync()
    tracer.write(100, b"not synced")
    for seed in range(20):
        data = tracer.read(tmp_path, "f", fate, seed)
        assert data is not None
        assert data.startswith(b"synced")


def test_what_was_not_synced_may_go_or_stay(tmp_path: Path, tracer: Tracer) -> None:
    tracer.write(0, b"data")
    assert tracer.read(tmp_path, "f", "dropped") == b""
    assert tracer.read(tmp_path, "f", "kept") == b"data"
    assert {tracer.read(tmp_path, "f", "any", seed) for seed in range(50)} == {b"", b"data", bytes(4)}


def test_a_sync_covers_what_was_done_when_it_began(tmp_path: Path, tracer: Tracer) -> None:
    tracer.write(0, b"early")
    begun = tracer.end
    tracer.write(5, b"late")
    tracer.sync(begun_at=begun)
    assert tracer.read(tmp_path, "f", "dropped") == b"early"


def test_a_later_change_may_stay_where_an_earlier_one_goes(tmp_path: Path, tracer: Tracer) -> None:
    tracer.write(0, b"one")
    tracer.write(3, b"two")
    assert bytes(3) + b"two" in {tracer.read(tmp_path, "f", "last", seed) for seed in range(50)}


def test_a_write_is_torn_between_sectors(tmp_path: Path, tracer: Tracer) -> None:
    tracer.write(0, bytes([1]) * SECTOR_BYTES + bytes([2]) * SECTOR_BYTES)
    found = {tracer.read(tmp_path, "f", TORN, seed) for seed in range(50)}
    assert bytes([1]) * SECTOR_BYTES in found
    assert bytes(SECTOR_BYTES) + bytes([2]) * SECTOR_BYTES in found
    for data in found:
        assert data is not None
        assert all(len(set(data[at : at + SECTOR_BYTES])) == 1 for at in range(0, len(data), SECTOR_BYTES))


def test_sizes_are_changes_too(tmp_path: Path, tracer: Tracer) -> None:
    tracer.write(0, b"0123456789")
    tracer.sync()
    tracer.note(Kind.ALLOCATE, offset=10, size=10)
    assert tracer.read(tmp_path, "f", "kept") == b"0123456789" + bytes(10)
    tracer.note(Kind.TRUNCATE, offset=4)
    assert tracer.read(tmp_path, "f", "kept") == b"0123"
    assert tracer.read(tmp_path, "f", "dropped") == b"0123456789"


def test_a_name_is_certain_when_its_folder_was_synced(tmp_path: Path) -> None:
    tracer = Tracer()
    tracer.create("f.new")
    tracer.write(0, b"data")
    tracer.sync()
    assert "f.new" not in tracer.cut(tmp_path, "dropped")
    tracer.sync(FOLDER_INODE)
    tracer.rename("f.new", "f")
    assert set(tracer.cut(tmp_path, "dropped")) == {"", "f.new"}
    tracer.sync(FOLDER_INODE)
    assert set(tracer.cut(tmp_path, "dropped")) == {"", "f"}


def test_what_lies_in_a_folder_that_is_gone_is_gone(tmp_path: Path) -> None:
    tracer = Tracer()
    tracer.note(Kind.MKDIR, 3, data=b"/top/sub\0")
    tracer.create("sub/f")
    tracer.sync()
    tracer.sync(3)
    assert set(tracer.cut(tmp_path, "dropped")) == {""}
    tracer.sync(FOLDER_INODE)
    assert set(tracer.cut(tmp_path, "dropped")) == {"", "sub", "sub/f"}


def test_an_inode_that_is_used_again_is_another_file(tmp_path: Path, tracer: Tracer) -> None:
    tracer.write(0, b"first")
    tracer.sync()
    tracer.note(Kind.UNLINK, 0, data=b"/top/f\0")
    tracer.create("g")
    tracer.write(0, b"2nd")
    assert tracer.read(tmp_path, "f", "dropped") == b"first"
    assert tracer.cut(tmp_path, "kept").keys() == {"", "g"}
    assert tracer.read(tmp_path, "g", "kept") == b"2nd"


def test_places_ascend_on_one_disk(tmp_path: Path, tracer: Tracer) -> None:
    places = []
    for number in range(5):
        tracer.write(number, b"x")
        places.append(tracer.end)
        tracer.sync()
    cuts = PowerCuts(Disk(tmp_path, {FOLDER_INODE: ""}, tracer.events, "/top"))
    contents = [cuts.cut(place, "dropped", random.Random(0))["f"] for place in places]
    assert [content.to_bytes() for content in contents if content is not None] == [b"x" * n for n in range(5)]


def test_a_rename_between_folders_is_refused(tmp_path: Path, tracer: Tracer) -> None:
    tracer.rename("f", "sub/f")
    with pytest.raises(ValueError, match="not modelled"):
        tracer.cut(tmp_path, "kept")
