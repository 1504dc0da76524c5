"""A ledger that went back is noticed, refused, and accepted once an administrator says so."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from kms_fast.errors import KmsFastError, LedgerError
from kms_fast.host.prune import prune_ledger
from kms_fast.host.rollback import check_rollback, mark_restored
from kms_fast.host.segment import Head, list_segments, read_start_of
from kms_fast.store import Watermark
from tests.batches import BatchMaker
from tests.hosts import PUBLISHER_ID, Realm
from tests.ledgers import SIZES, change, mark, offsets, read_heads, verify, write_segment
from tests.reference.ledger import check_ledger

pytestmark = pytest.mark.usefixtures("small_steps")


def folder_of(realm: Realm) -> Path:
    return realm.home / "host" / "ledger"


def check(realm: Realm, marks: list[Watermark], *, accept: bool = False) -> list[Head]:
    installation = BatchMaker(realm).installation
    return check_rollback(
        folder_of(realm),
        marks,
        host_id=installation.certificate.host_id,
        certificates=installation.chain_data,
        accept=accept,
    )


def refuse(realm: Realm, marks: list[Watermark], batch: str) -> LedgerError:
    before = sorted(folder_of(realm).iterdir()) if folder_of(realm).exists() else []
    with pytest.raises(LedgerError, match=f"batch {batch},") as caught:
        check(realm, marks)
    assert caught.value.result.name == "LEDGER_WENT_BACK"
    assert caught.value.details["batch"] == batch
    assert (sorted(folder_of(realm).iterdir()) if folder_of(realm).exists() else []) == before
    return caught.value


@pytest.fixture
def segments(realm: Realm, requests: list[bytes]) -> list[Path]:
    return [write_segment(realm, requests) for _ in range(3)]


def test_a_ledger_that_has_everything(realm: Realm, segments: list[Path]) -> None:
    for number in range(1, len(SIZES) + 1):
        marks = [mark(path, number) for path in segments]
        assert check(realm, marks) == []
        assert check(realm, marks, accept=True) == []
    assert check(realm, []) == []
    assert list_segments(folder_of(realm)) == segments


def test_a_new_host(realm: Realm) -> None:
    assert check(realm, []) == []
    assert not folder_of(realm).exists()


@pytest.mark.parametrize("segment", range(3))
def test_one_batch_less(realm: Realm, segments: list[Path], segment: int) -> None:
    marks = [mark(path) for path in segments]
    os.truncate(segments[segment], offsets()[2])
    refuse(realm, marks, f"{segment + 1}/3")


def test_a_last_batch_cut_short(realm: Realm, segments: list[Path]) -> None:
    marks = [mark(path) for path in segments]
    os.truncate(segments[2], offsets()[3] - 1)
    refuse(realm, marks, "3/3")


def test_another_batch_in_its_place(realm: Realm, segments: list[Path], requests: list[bytes]) -> None:
    marks = [mark(path) for path in segments]
    segments[2].unlink()
    assert write_segment(realm, requests[::-1]) == segments[2]
    error = refuse(realm, marks, "3/3")
    assert "ends before it or has another one" in error.message
    change(segments[1], offsets()[2] + 100)
    assert refuse(realm, marks, "2/3").details["batches"] == ["2/3", "3/3"]


def test_a_segment_less(realm: Realm, segments: list[Path]) -> None:
    marks = [mark(path) for path in segments]
    segments[2].unlink()
    assert "lacks the segment" in refuse(realm, marks, "3/3").message


def test_a_ledger_that_is_gone(realm: Realm, segments: list[Path]) -> None:
    marks = [mark(path) for path in segments]
    for path in segments:
        path.unlink()
    refuse(realm, marks, "1/3")
    folder_of(realm).rmdir()
    refuse(realm, marks, "1/3")


def test_a_pruned_segment_has_its_batches(realm: Realm, segments: list[Path]) -> None:
    marks = [mark(path) for path in segments]
    prune_ledger(folder_of(realm), marks, before_ms=1 << 62)
    assert check(realm, marks) == []
    assert check(realm, [replace(marks[0], number=2, header_hash=mark(segments[0], 2).header_hash)]) == []
    os.truncate(segments[0], segments[0].stat().st_size - 188)
    refuse(realm, marks, "1/3")


def test_what_was_accepted_is_in_the_ledger(realm: Realm, segments: list[Path], requests: list[bytes]) -> None:
    marks = [mark(path) for path in segments]
    marks.append(replace(marks[2], segment=7, time_ms=marks[2].time_ms + 60_000))
    os.truncate(segments[2], offsets()[2])
    lost = check(realm, marks, accept=True)
    assert lost == [Head(at.segment, at.header_hash, at.time_ms, lost=True) for at in marks[2:]]
    newest = list_segments(folder_of(realm))[-1]
    start = read_start_of(newest)
    assert start.segment > 1_000_000
    assert start.heads[-2:] == tuple(lost)
    assert start.heads[0] == Head(3, mark(segments[2]).header_hash, mark(segments[2]).time_ms, ended=True)
    assert check(realm, marks) == []
    assert check(realm, marks, accept=True) == []
    following = write_segment(realm, requests)
    assert read_start_of(following).segment == start.segment + 1
    assert mark(following).time_ms >= marks[3].time_ms
    verdict = verify(realm)
    assert (verdict.lost_heads, verdict.segments) == (2, 5)
    assert len(check_ledger(folder_of(realm), [realm.root], PUBLISHER_ID)) == 5


def test_what_is_left_after_an_acceptance_is_pruned(realm: Realm, segments: list[Path]) -> None:
    """An inventory that did not go back names a batch that never comes again: what is left before it was recorded."""
    marks = [mark(path) for path in segments]
    os.truncate(segments[2], offsets()[2])
    check(realm, marks, accept=True)
    pruned = prune_ledger(folder_of(realm), marks, before_ms=1 << 62)
    assert (pruned.segments, pruned.batches, pruned.waiting) == (3, 8, 0)
    assert verify(realm).pruned_segments == 3


def test_a_segment_that_was_lost_and_continued(realm: Realm, segments: list[Path], requests: list[bytes]) -> None:
    """A later segment continues the one that is gone; once its loss is accepted, the rest proves."""
    marks = [mark(path) for path in segments]
    segments[1].unlink()
    with pytest.raises(LedgerError, match="continues segment 2 at a batch that is not there"):
        verify(realm)
    check(realm, marks, accept=True)
    assert verify(realm).lost_heads == 1
    write_segment(realm, requests)
    assert check(realm, marks) == []


def test_going_back_behind_an_acceptance_is_noticed(realm: Realm, segments: list[Path], requests: list[bytes]) -> None:
    marks = [mark(path) for path in segments]
    os.truncate(segments[2], offsets()[2])
    check(realm, marks, accept=True)
    later = write_segment(realm, requests)
    marks.append(mark(later))
    os.truncate(later, offsets()[1])
    refuse(realm, marks, f"{read_start_of(later).segment}/3")
    check(realm, marks, accept=True)
    assert verify(realm).lost_heads == 2


def test_a_restored_ledger_is_refused_until_accepted(realm: Realm, segments: list[Path]) -> None:
    marks = [mark(path) for path in segments]
    mark_restored(folder_of(realm), 1_700_000_000_000)
    with pytest.raises(LedgerError, match="backup of 2023-11-14 22:13:20 UTC") as caught:
        check(realm, marks)
    assert caught.value.result.name == "LEDGER_WENT_BACK"
    assert check(realm, marks, accept=True) == [Head(0, bytes(32), 0, lost=True)]
    assert check(realm, marks) == []
    assert read_heads(list_segments(folder_of(realm))[-1])[-1].lost
    assert verify(realm).lost_heads == 1


def test_an_empty_mark_is_one_too(realm: Realm, segments: list[Path]) -> None:
    (folder_of(realm) / "restored.json").touch()
    with pytest.raises(LedgerError, match="a copy that was put back"):
        check(realm, [])
    assert len(check(realm, [], accept=True)) == 1
    assert check(realm, []) == []


@pytest.mark.parametrize(
    "text", ["put back on Monday", "[]", "7", "{}", '{"backup_created_ms": "Monday"}', "\xe9", "[" * 100_000]
)
def test_a_mark_with_any_text_is_one_too(realm: Realm, segments: list[Path], text: str) -> None:
    (folder_of(realm) / "restored.json").write_text(text, encoding="latin-1")
    with pytest.raises(LedgerError, match="a copy that was put back") as caught:
        check(realm, [])
    assert caught.value.result.name == "LEDGER_WENT_BACK"


def test_a_full_disk_accepts_nothing(realm: Realm, segments: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    marks = [mark(path) for path in segments]
    mark_restored(folder_of(realm), 1)
    os.truncate(segments[2], offsets()[2])

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(KmsFastError, match="No space left"):
            check(realm, marks, accept=True)
    refuse(realm, marks, "3/3")
