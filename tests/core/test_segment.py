"""Reading records back from files of any content: what is whole is found, nothing else is, and nothing is read past."""

import os
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from kms_fast import _core
from tests.segments import HOST_ID, SegmentWriter, make_entry

END = (1 << 63) - 1
SIZES = (1, 3, 2, 1024, 1)


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[int], int]:
    """A segment's bytes without preallocated ones, where its records begin and end, and where the first lies."""
    with SegmentWriter(tmp_path_factory.mktemp("segment") / "ledger", 1) as writer:
        first = writer.size
        for number, size in enumerate(SIZES):
            writer.append([make_entry(os.urandom(16)) for _ in range(size)], 1000 + number)
        writer.end()
    return writer.path.read_bytes(), [*writer.offsets, writer.size], first


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def open_with(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


@pytest.fixture
def fd(path: Path, segment: tuple[bytes, list[int], int]) -> Iterator[int]:
    descriptor = open_with(path, segment[0])
    yield descriptor
    os.close(descriptor)


def test_records_are_read_as_they_lie(fd: int, segment: tuple[bytes, list[int], int]) -> None:
    data, offsets, first = segment
    expected = [data[begin:end] for begin, end in pairwise(offsets)]
    for limit in (1, 2, 100):
        reader, found = _core.RecordReader(fd, first), []
        while records := reader.read(limit):
            assert len(records) <= limit
            found += records
        assert found == expected
        assert (reader.offset, reader.number) == (len(data), len(SIZES))
    for number, offset in enumerate(offsets[:-1]):
        assert _core.RecordReader(fd, offset).read(1) == [expected[number]]


def test_headers_end_where_they_are_told(fd: int, segment: tuple[bytes, list[int], int]) -> None:
    data, offsets, first = segment
    headers = [data[at + 8 : at + 188] for at in offsets[:-1]]
    assert _core.RecordReader(fd, first).read_headers(100, END) == headers
    assert _core.RecordReader(fd, first).read_headers(2, END) == headers[:2]
    assert _core.RecordReader(fd, first).read_headers(100, offsets[3]) == headers[:3]
    assert _core.RecordReader(fd, first).read_headers(100, offsets[3] + 1) == headers[:4]


def test_frames_are_followed(fd: int, segment: tuple[bytes, list[int], int]) -> None:
    _, offsets, first = segment
    assert _core.walk_frames(fd, first, False, 1) == offsets
    assert _core.walk_frames(fd, first, False, 2) == [*offsets[::2], offsets[-1]]
    assert _core.walk_frames(fd, first, False, 5) == [offsets[0], offsets[-1]]
    assert _core.walk_frames(fd, first, False, 100) == [offsets[0], offsets[-1]]
    assert _core.walk_frames(fd, offsets[-1], False, 1) == [offsets[-1]]
    assert _core.walk_frames(fd, offsets[-1] + 1_000_000, False, 1) == [offsets[-1] + 1_000_000]
    assert _core.walk_frames(fd, first, True, 1) == [first]


def test_a_record_that_grows_is_found_once_it_is_whole(path: Path, segment: tuple[bytes, list[int], int]) -> None:
    """A reader that found nothing looks at the file again, not at what it remembers."""
    data, offsets, first = segment
    descriptor = open_with(path, data[: offsets[3]])
    reader = _core.RecordReader(descriptor, first)
    assert len(reader.read(100)) == 3
    for size in (1, 8, 100, 188, 200_000):
        path.write_bytes(data[: offsets[3] + size])
        assert reader.read(100) == []
    path.write_bytes(data)
    assert len(reader.read(100)) == 2
    os.close(descriptor)


def test_any_cut_gives_the_records_before_it(path: Path, segment: tuple[bytes, list[int], int]) -> None:
    data, offsets, first = segment
    for cut in [*range(offsets[0], offsets[2] + 1, 7), *offsets]:
        descriptor = open_with(path, data[:cut])
        whole = sum(end <= cut for end in offsets[1:])
        assert len(_core.RecordReader(descriptor, first).read(100)) == whole
        os.close(descriptor)


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_read_without_harm(path: Path, segment: tuple[bytes, list[int], int], seed: int) -> None:
    """Frames of any size, magics anywhere, ends anywhere: what is given back is whole, or nothing is."""
    random = Random(seed)
    data = bytearray(segment[0][: segment[1][3]])
    for _ in range(200):
        at = random.randrange(len(data))
        data[at] = random.randrange(256)
    for at in random.sample(range(len(data) - 8), 20):
        size = random.choice([0, 187, 188, 189, 452, 716, 188 + 264 * 1024, 188 + 264 * 1025, 1 << 31, (1 << 32) - 1])
        data[at : at + 8] = struct.pack("<I4s", size, random.choice([b"KFL1", b"KFH1"]))
    descriptor = open_with(path, bytes(data))
    for pruned in (False, True):
        for offset in (*segment[1][:4], *random.sample(range(len(data)), 50)):
            reader = _core.RecordReader(descriptor, offset, pruned)
            for record in reader.read(1000):
                entries = record[188:]
                assert pruned is not bool(entries)
                assert pruned or _core.entries_root(entries) == record[8 + 84 : 8 + 116]
            assert reader.offset <= len(data)
            _core.walk_frames(descriptor, offset, pruned, 3)
            _core.RecordReader(descriptor, offset, pruned).find_entries(bytes(16))
            formatter = _core.EntryFormatter(False)
            formatter.format(_core.RecordReader(descriptor, offset, pruned), 0, END)
    os.close(descriptor)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        _core.RecordReader(folder, 0).read(1)
    with pytest.raises(IsADirectoryError):
        _core.walk_frames(folder, 0, False, 1)
    with pytest.raises(OSError, match="Invalid argument"):
        _core.RecordReader(folder, -1).read(1)
    os.close(folder)


def test_sizes_are_checked(fd: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        _core.RecordReader(fd, 0).find_entries(b"short")
    for host_id, previous in ((bytes(15), bytes(32)), (bytes(16), bytes(31))):
        with pytest.raises(ValueError, match="16 bytes and a header hash 32"):
            _core.ChainCheck(1, host_id, 1, 0, 1, 0, previous, 0)


def test_what_is_wrong_with_a_header_is_told_by_its_bits(fd: int, segment: tuple[bytes, list[int], int]) -> None:
    data, offsets, first = segment

    def check(*, host_id: bytes = HOST_ID, serial: int = 1, **changes: int) -> list[int]:
        expected = {"segment": 1, "not_before_ms": 0, "not_after_ms": 9999, "number": 0, "time_ms": 0} | changes
        chain = _core.ChainCheck(
            expected["segment"], host_id, serial, expected["not_before_ms"], expected["not_after_ms"],
            expected["number"], data[offsets[0] + 60 : offsets[0] + 92], expected["time_ms"],
        )  # fmt: skip
        checked = chain.check(_core.RecordReader(fd, first), END, 100)
        assert [one[0] for one in checked] == offsets[:-1]
        assert (chain.batches, chain.records, chain.granted) == (len(SIZES), sum(SIZES), sum(SIZES))
        assert (chain.first_ms, chain.last_ms, chain.previous) == (1000, 1004, checked[-1][1])
        return [one[4] for one in checked]

    assert check() == [0] * 5
    assert check(segment=2) == check(number=1) == [1] * 5
    assert check(host_id=bytes(16)) == check(serial=2) == [4] * 5
    assert check(time_ms=1001) == [8, 0, 0, 0, 0]
    assert check(not_before_ms=1002) == [16, 16, 0, 0, 0]
    assert check(not_after_ms=1002) == [0, 0, 0, 16, 16]
    chain = _core.ChainCheck(1, HOST_ID, 1, 0, 9999, 0, bytes(32), 0)
    assert [one[4] for one in chain.check(_core.RecordReader(fd, first), END, 100)] == [2, 0, 0, 0, 0]
