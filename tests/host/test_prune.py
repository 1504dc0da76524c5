"""Pruned segments: what goes, what stays, what still proves, and which segments are left alone."""

import hashlib
import json
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kms_fast.errors import KmsFastError, LedgerError
from kms_fast.host import audit, range_audit
from kms_fast.host.export import export_entries
from kms_fast.host.prune import Pruned, prune_ledger
from kms_fast.host.segment import ENTRIES_AT, list_segments, read_start_of
from tests.batches import BatchMaker
from tests.hosts import PUBLISHER_ID, Realm, make_realm
from tests.ledgers import PAGE_SIZE, SIZES, Worker, change, mark, offsets, read_heads, verify, write_segment
from tests.reference.ledger import check_ledger
from tests.system.asker import now_ms

pytestmark = pytest.mark.usefixtures("small_steps")

HEADER_RECORD = 188
NEVER_MS = 1 << 62


def folder_of(realm: Realm) -> Path:
    return realm.home / "host" / "ledger"


def prune(realm: Realm, *paths: Path, before_ms: int = NEVER_MS) -> Pruned:
    """Prunes as if the inventory had taken up these segments."""
    return prune_ledger(folder_of(realm), [mark(path) for path in paths], before_ms=before_ms)


@pytest.fixture
def three(realm: Realm, requests: list[bytes]) -> list[Path]:
    return [write_segment(realm, requests) for _ in range(3)]


def test_the_bytes_of_a_pruned_segment_are_those_of_the_document(realm: Realm, three: list[Path]) -> None:
    before = three[1].read_bytes()
    size = len(before)
    assert prune(realm, three[1]) == Pruned(1, 3, size - PAGE_SIZE - 3 * HEADER_RECORD, waiting=2)
    block = bytearray(before[: PAGE_SIZE - 32])
    block[36:40] = struct.pack("<I", 1)
    headers = b"".join(struct.pack("<I4s", 188, b"KFH1") + before[at + 8 : at + 188] for at in offsets()[:3])
    assert three[1].read_bytes() == bytes(block) + hashlib.sha256(block).digest() + headers
    assert three[1].stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in folder_of(realm).iterdir()) == [path.name for path in three]


def test_a_pruned_ledger_still_proves(realm: Realm, requests: list[bytes], three: list[Path]) -> None:
    whole = verify(realm)
    assert prune(realm, *three[:2]).segments == 2
    verdict = verify(realm)
    assert (verdict.segments, verdict.pruned_segments, verdict.batches) == (3, 2, 9)
    assert (verdict.records, verdict.granted) == (whole.records, whole.granted // 3)
    assert (verdict.first_ms, verdict.last_ms) == (whole.first_ms, whole.last_ms)
    write_segment(realm, requests)
    assert verify(realm).batches == 12
    assert len(check_ledger(folder_of(realm), [realm.root], PUBLISHER_ID)) == 4


def test_entries_of_pruned_segments_are_gone(realm: Realm, three: list[Path]) -> None:
    prune(realm, *three[:2])
    exported = b"".join(export_entries(folder_of(realm))).splitlines()
    assert {json.loads(line)["batch"] for line in exported} == {"3/1", "3/2", "3/3"}


def test_pruning_again_changes_nothing(realm: Realm, three: list[Path]) -> None:
    marks = [mark(path) for path in three]
    prune_ledger(folder_of(realm), marks, before_ms=NEVER_MS)
    content = [path.read_bytes() for path in three]
    assert prune_ledger(folder_of(realm), marks, before_ms=NEVER_MS) == Pruned()
    assert [path.read_bytes() for path in three] == content


def test_only_what_is_old_enough(realm: Realm, requests: list[bytes]) -> None:
    maker, began_ms = BatchMaker(realm), now_ms() - 10_000
    paths = []
    for turn in range(4):
        ledger = maker.open_ledger()
        for step in (0, 500):
            maker.write(ledger, maker.collect(requests[:1]), began_ms + 1000 * turn + step)
        ledger.close()
        paths.append(ledger.path)
    assert prune(realm, *paths, before_ms=began_ms + 1500).segments == 1
    assert prune(realm, *paths[1:], before_ms=began_ms + 1501).segments == 1
    assert [read_start_of(path).pruned for path in paths] == [True, True, False, False]


def test_only_what_the_inventory_has_to_its_end(realm: Realm, three: list[Path]) -> None:
    assert prune_ledger(folder_of(realm), [mark(three[0], 2)], before_ms=NEVER_MS) == Pruned(waiting=3)
    assert prune_ledger(folder_of(realm), [], before_ms=NEVER_MS) == Pruned(waiting=3)
    assert verify(realm).pruned_segments == 0


def test_a_segment_that_a_host_holds_stays(realm: Realm, requests: list[bytes]) -> None:
    worker = Worker(realm, requests)
    worker.write()
    first, second = worker.ledger.path, write_segment(realm, requests)
    assert prune(realm, first, second).segments == 1
    assert [read_start_of(path).pruned for path in (first, second)] == [False, True]
    worker.write()
    worker.ledger.close()
    assert prune(realm, first).segments == 1
    assert verify(realm).batches == 5


def test_the_newest_segment_goes_once_its_host_has_ended(realm: Realm, requests: list[bytes]) -> None:
    path = write_segment(realm, requests, end=False)
    assert prune(realm, path).segments == 1
    following = write_segment(realm, requests)
    assert [(head.segment, head.ended) for head in read_heads(following)] == [(1, True)]
    assert verify(realm).batches == 6


def test_a_segment_without_a_batch_stays_as_it_is(realm: Realm, requests: list[bytes]) -> None:
    empty = write_segment(realm, requests, ())
    write_segment(realm, requests)
    content = empty.read_bytes()
    assert prune(realm) == Pruned(waiting=1)
    assert empty.read_bytes() == content


def test_a_torn_tail_goes(realm: Realm, requests: list[bytes]) -> None:
    path = write_segment(realm, requests, end=False)
    change(path, offsets()[2] + 200)
    write_segment(realm, requests)
    assert verify(realm).torn_tails == 1
    assert prune(realm, path).batches == 2
    assert (verify(realm).torn_tails, verify(realm).batches) == (0, 5)


@pytest.mark.parametrize("at", [ENTRIES_AT + 20, 100])
def test_a_damaged_segment_is_not_pruned(realm: Realm, three: list[Path], at: int) -> None:
    marks = [mark(three[0])]
    change(three[0], offsets()[1] + at)
    content = three[0].read_bytes()
    with pytest.raises(LedgerError, match="is not pruned"):
        prune_ledger(folder_of(realm), marks, before_ms=NEVER_MS)
    assert three[0].read_bytes() == content
    assert sorted(folder_of(realm).iterdir()) == three


def test_a_full_disk_leaves_the_segment(realm: Realm, three: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    content = three[0].read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(KmsFastError, match="No space left") as caught:
            prune(realm, *three)
    assert caught.value.result.name == "STORAGE_FAILED"
    assert three[0].read_bytes() == content
    assert sorted(folder_of(realm).iterdir()) == three


def test_what_a_crash_left_is_removed(realm: Realm, three: list[Path]) -> None:
    (folder_of(realm) / ".segment-00000001.kfl.0a1b2c3d").write_bytes(b"half")
    prune(realm, *three)
    assert sorted(folder_of(realm).iterdir()) == three


def pruned_offset(number: int) -> int:
    return PAGE_SIZE + number * HEADER_RECORD


@pytest.mark.parametrize("record", range(len(SIZES)))
def test_any_changed_byte_is_found(pruned_segment: tuple[Realm, Path, bytes], record: int) -> None:
    realm, path, content = pruned_segment
    for at in range(pruned_offset(record), pruned_offset(record + 1)):
        data = bytearray(content)
        data[at] ^= 1
        path.write_bytes(data)
        with pytest.raises(LedgerError, match=path.name):
            verify(realm)


@pytest.fixture(scope="module")
def pruned_segment(tmp_path_factory: pytest.TempPathFactory, requests: list[bytes]) -> tuple[Realm, Path, bytes]:
    realm = make_realm(tmp_path_factory.mktemp("pruned"))
    first = write_segment(realm, requests)
    write_segment(realm, requests)
    prune(realm, first)
    assert verify(realm).pruned_segments == 1
    return realm, first, first.read_bytes()


@pytest.mark.parametrize("record", range(len(SIZES)))
def test_a_missing_header_is_found(pruned_segment: tuple[Realm, Path, bytes], record: int) -> None:
    realm, path, content = pruned_segment
    path.write_bytes(content[: pruned_offset(record)] + content[pruned_offset(record + 1) :])
    with pytest.raises(LedgerError) as caught:
        verify(realm)
    kinds = {problem["kind"] for problem in caught.value.details["problems"]}
    assert kinds & {"chain", "head"}


@pytest.mark.parametrize("tail", [b"\0", b"x", bytes(188), b"\xbc\0\0\0KFH1"])
def test_anything_behind_the_last_header_is_found(pruned_segment: tuple[Realm, Path, bytes], tail: bytes) -> None:
    realm, path, content = pruned_segment
    path.write_bytes(content + tail)
    with pytest.raises(LedgerError, match="behind batch 3"):
        verify(realm)


def test_a_flag_that_was_set_or_cleared_is_found(pruned_segment: tuple[Realm, Path, bytes]) -> None:
    realm, path, content = pruned_segment
    path.write_bytes(replace(read_start_of(path), pruned=False).to_bytes() + content[PAGE_SIZE:])
    with pytest.raises(LedgerError, match="continues segment 1 at a batch that is not there"):
        verify(realm)
    second = list_segments(path.parent)[1]
    whole = second.read_bytes()
    path.write_bytes(content)
    second.write_bytes(replace(read_start_of(second), pruned=True).to_bytes() + whole[PAGE_SIZE:])
    with pytest.raises(LedgerError, match=second.name):
        verify(realm)
    second.write_bytes(whole)
    verify(realm)


def test_while_hosts_run_and_open_segments(realm: Realm, requests: list[bytes]) -> None:
    workers = [Worker(realm, requests) for _ in range(3)]
    for turn in range(6):
        workers[turn % 3].write()
        workers[turn % 3].rotate()
        ended = [path for path in list_segments(folder_of(realm)) if path not in [at.ledger.path for at in workers]]
        prune(realm, *ended)
        assert verify(realm).pruned_segments == len(ended) == turn + 1


def test_pruned_while_it_is_verified_or_exported(
    realm: Realm, three: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorder may prune at any time, also between the plan of a proof and its work."""

    def plan_and_prune(*arguments: Any) -> list[range_audit.Range]:
        planned = range_audit.plan_ranges(*arguments)
        prune(realm, *[path for path in three if not read_start_of(path).pruned])
        return planned

    monkeypatch.setattr(range_audit, "RANGE_RECORDS", 2)
    monkeypatch.setattr(audit, "plan_ranges", plan_and_prune)
    verdict = verify(realm)
    assert (verdict.segments, verdict.pruned_segments, verdict.batches, verdict.records) == (3, 3, 9, 18)
