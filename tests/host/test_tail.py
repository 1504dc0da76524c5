"""Following a ledger: live and ended segments, torn tails, damage, ledgers that went back."""

import fcntl
import logging
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from kms_fast import _core
from kms_fast.errors import KmsFastError
from kms_fast.host import tail as tail_module
from kms_fast.host.tail import LedgerTail
from kms_fast.store import Watermark
from tests.segments import HOST_ID, SegmentWriter, make_entry

NOW_MS = 1_800_000_000_000


def fold_new(tail: LedgerTail, room: int = 1000) -> tuple[list[int], list[Watermark]]:
    """The machines whose entries were new, by the last byte of their CMID, and the watermarks."""
    fold = _core.Fold(room)
    watermarks = tail.fold_new(fold)
    return [row[0][15] for row in fold for _ in range(row[3])], watermarks


def entry(number: int) -> bytes:
    return make_entry(bytes(15) + bytes([number]))


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[SegmentWriter]:
    """A live segment with one batch of machine 1."""
    with SegmentWriter(tmp_path, 1) as segment:
        segment.append([entry(1)], NOW_MS)
        yield segment


def test_a_live_segment_is_followed(tmp_path: Path, segment: SegmentWriter) -> None:
    tail = LedgerTail(tmp_path, HOST_ID, [])
    machines, [mark] = fold_new(tail)
    assert (machines, mark) == ([1], Watermark(1, segment.offsets[0], 1, segment.header_hash, NOW_MS))
    assert fold_new(tail) == ([], [])
    segment.append([entry(2), entry(3)], NOW_MS + 1)
    segment.append([entry(4)], NOW_MS + 2)
    machines, [mark] = fold_new(tail)
    assert (machines, mark) == ([2, 3, 4], Watermark(1, segment.offsets[2], 3, segment.header_hash, NOW_MS + 2))
    tail.close()


def test_it_goes_on_behind_the_watermarks(tmp_path: Path, segment: SegmentWriter) -> None:
    _, watermarks = fold_new(LedgerTail(tmp_path, HOST_ID, []))
    assert fold_new(LedgerTail(tmp_path, HOST_ID, watermarks)) == ([], [])
    segment.append([entry(2)], NOW_MS + 1)
    assert fold_new(LedgerTail(tmp_path, HOST_ID, watermarks))[0] == [2]


def test_segments_that_come_later(tmp_path: Path, segment: SegmentWriter) -> None:
    tail = LedgerTail(tmp_path, HOST_ID, [])
    assert fold_new(tail)[0] == [1]
    with SegmentWriter(tmp_path, 2) as other:
        other.append([entry(9)], NOW_MS)
        segment.append([entry(2)], NOW_MS)
        machines, watermarks = fold_new(tail)
        assert (machines, sorted(mark.segment for mark in watermarks)) == ([2, 9], [1, 2])


def test_an_ended_segment_is_closed_and_not_looked_at_again(tmp_path: Path, segment: SegmentWriter) -> None:
    tail = LedgerTail(tmp_path, HOST_ID, [])
    assert fold_new(tail)[0] == [1]
    segment.append([entry(2)], NOW_MS)
    segment.end()
    assert fold_new(tail)[0] == [2]
    assert fold_new(tail) == ([], [])
    assert tail._followed == {}
    segment.path.unlink()
    assert fold_new(tail) == ([], [])


@pytest.mark.parametrize("ended", [False, True])
def test_a_torn_tail_is_never_taken(tmp_path: Path, segment: SegmentWriter, ended: bool) -> None:
    segment.append([entry(2), entry(3)], NOW_MS)
    size = segment.size
    segment.crash()
    with segment.path.open("r+b") as file:
        file.seek(segment.offsets[1] + 300)
        file.write(bytes(size - segment.offsets[1] - 300))
    if not ended:
        fcntl.flock(os.open(segment.path, os.O_RDONLY), fcntl.LOCK_EX)
    tail = LedgerTail(tmp_path, HOST_ID, [])
    assert fold_new(tail)[0] == [1]
    assert fold_new(tail) == ([], [])
    assert (tail._followed == {}) is ended


def test_a_record_that_is_being_written_comes_with_the_next_look(tmp_path: Path, segment: SegmentWriter) -> None:
    tail = LedgerTail(tmp_path, HOST_ID, [])
    segment.append([entry(2)], NOW_MS)
    whole = segment.path.read_bytes()[segment.offsets[1] : segment.size]
    os.pwrite(segment._fd, bytes(200), segment.offsets[1] + 100)
    assert fold_new(tail)[0] == [1]
    os.pwrite(segment._fd, whole, segment.offsets[1])
    assert fold_new(tail)[0] == [2]


def test_what_is_taken_was_synced(tmp_path: Path, segment: SegmentWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it was read: what was written since is not taken."""
    synced: list[tuple[int, int]] = []
    fold = _core.Fold(100)
    monkeypatch.setattr(tail_module, "sync_data", lambda fd: synced.append((os.fstat(fd).st_ino, len(fold))))
    assert len(LedgerTail(tmp_path, HOST_ID, []).fold_new(fold)) == 1
    assert synced == [(segment.path.stat().st_ino, 1)]


def test_a_sync_that_fails_is_told_and_nothing_is_taken(
    tmp_path: Path, segment: SegmentWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(tail_module, "sync_data", fail)
    with pytest.raises(KmsFastError, match="Input/output error") as caught:
        LedgerTail(tmp_path, HOST_ID, []).fold_new(_core.Fold(100))
    assert caught.value.result.name == "STORAGE_FAILED"


def test_a_full_fold_leaves_the_rest_for_the_next(tmp_path: Path, segment: SegmentWriter) -> None:
    for number in (2, 3, 4):
        segment.append([entry(number)], NOW_MS)
    segment.end()
    with SegmentWriter(tmp_path, 2) as other:
        other.append([entry(9)], NOW_MS)
    tail = LedgerTail(tmp_path, HOST_ID, [])
    looks = [fold_new(tail, 2)[0] for _ in range(5)]
    assert sorted(chain.from_iterable(looks)) == [1, 2, 3, 4, 9]
    assert max(map(len, looks)) == 2


def test_a_segment_that_always_fills_the_fold_hides_no_other(tmp_path: Path, segment: SegmentWriter) -> None:
    with SegmentWriter(tmp_path, 2) as other:
        other.append([entry(9)], NOW_MS)
        tail = LedgerTail(tmp_path, HOST_ID, [])
        seen: list[int] = []
        for number in range(10, 14):
            segment.append([entry(number)], NOW_MS)
            segment.append([entry(number)], NOW_MS)
            seen += fold_new(tail, 2)[0]
        assert 9 in seen


def test_damage_in_the_middle_is_told_once_and_the_segment_left(
    tmp_path: Path, segment: SegmentWriter, caplog: pytest.LogCaptureFixture
) -> None:
    segment.append([entry(2)], NOW_MS)
    segment.append([entry(3)], NOW_MS)
    os.pwrite(segment._fd, b"\xff", segment.offsets[1] + 200)
    segment.end()
    with SegmentWriter(tmp_path, 2) as other:
        other.append([entry(9)], NOW_MS)
        tail = LedgerTail(tmp_path, HOST_ID, [])
        assert [fold_new(tail)[0] for _ in range(4)] == [[1, 9], [], [], []]
        other.append([entry(8)], NOW_MS)
        assert fold_new(tail)[0] == [8]
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == 1
    assert "is damaged" in told[0]


def test_a_batch_that_does_not_continue_is_damage(
    tmp_path: Path, segment: SegmentWriter, caplog: pytest.LogCaptureFixture
) -> None:
    segment.header_hash = bytes(32)
    segment.append([entry(2)], NOW_MS)
    tail = LedgerTail(tmp_path, HOST_ID, [])
    assert [fold_new(tail)[0] for _ in range(3)] == [[1], [], []]
    assert "what follows batch 1/1 does not continue it" in caplog.text


@pytest.mark.parametrize("how", ["gone", "shorter", "changed"])
def test_a_ledger_that_went_back_is_told_and_nothing_invented(
    tmp_path: Path, segment: SegmentWriter, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    older = segment.path.read_bytes()
    segment.append([entry(2)], NOW_MS)
    _, watermarks = fold_new(LedgerTail(tmp_path, HOST_ID, []))
    segment.end()
    if how == "gone":
        segment.path.unlink()
    else:
        segment.path.write_bytes(older)
    if how == "changed":
        segment.path.unlink()
        with SegmentWriter(tmp_path, 1) as other:
            for number in (1, 7, 8):
                other.append([entry(number)], NOW_MS + 5)
    tail = LedgerTail(tmp_path, HOST_ID, watermarks)
    assert [fold_new(tail) for _ in range(3)] == [([], [])] * 3
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == 1
    assert "Batch 1/2 is in the inventory and not in" in told[0]
    assert "LEDGER_WENT_BACK" in told[0]


def test_another_hosts_segment_is_told_and_left(
    tmp_path: Path, segment: SegmentWriter, caplog: pytest.LogCaptureFixture
) -> None:
    with SegmentWriter(tmp_path, 2, host_id=b"o" * 16) as other:
        other.append([entry(9)], NOW_MS)
    tail = LedgerTail(tmp_path, HOST_ID, [])
    assert [fold_new(tail)[0] for _ in range(2)] == [[1], []]
    assert caplog.text.count("belongs to another host") == 1


def test_a_segment_that_is_none_is_told_once_and_others_are_recorded(
    tmp_path: Path, segment: SegmentWriter, caplog: pytest.LogCaptureFixture
) -> None:
    _, watermarks = fold_new(LedgerTail(tmp_path, HOST_ID, []))
    with SegmentWriter(tmp_path, 2) as other:
        other.append([entry(9)], NOW_MS)
        segment.path.write_bytes(b"")
        tail = LedgerTail(tmp_path, HOST_ID, watermarks)
        assert [fold_new(tail)[0] for _ in range(2)] == [[9], []]
    assert caplog.text.count("is not a ledger segment") == 1
