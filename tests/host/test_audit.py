"""Ledgers that crashed, and ledgers that somebody changed: what the proof says of each."""

import hashlib
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kms_fast.errors import KmsFastError, LedgerError
from kms_fast.host import audit
from kms_fast.host.audit import Verdict
from kms_fast.host.export import export_entries
from kms_fast.host.segment import ENTRIES_AT, ENTRY_SIZE, Head, list_segments, read_start_of
from tests.batches import BatchMaker
from tests.hosts import Realm, make_key, make_realm
from tests.ledgers import PAGE_SIZE, Worker, change, edit_heads, offsets, verify, write_segment
from tests.system.asker import now_ms

pytestmark = pytest.mark.usefixtures("small_steps")


def count_entries(folder: Path) -> int:
    return b"".join(export_entries(folder)).count(b"\n")


def test_whole_segments_make_one_chain(realm: Realm, requests: list[bytes]) -> None:
    for sizes in ((1,), (), (8, 2), (), ()):
        write_segment(realm, requests, sizes)
    verdict = verify(realm)
    assert (verdict.segments, verdict.batches, verdict.records, verdict.granted) == (5, 3, 11, 11)
    assert verdict.first_ms is not None
    assert verdict.last_ms is not None
    assert 0 < verdict.first_ms <= verdict.last_ms <= now_ms()
    assert count_entries(realm.home / "host" / "ledger") == 11


def test_an_empty_ledger_is_whole(realm: Realm, requests: list[bytes]) -> None:
    write_segment(realm, requests, ())
    assert verify(realm) == Verdict(segments=1)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda head: replace(head, header_hash=bytes(32)), "at a batch that is not there"),
        (lambda head: replace(head, segment=7), "continues segment 7 at a batch that is not there"),
        (lambda head: replace(head, time_ms=head.time_ms - 1), "at a batch of another time"),
    ],
)
def test_a_changed_head_is_found(
    realm: Realm, requests: list[bytes], edit: Callable[[Head], Head], complaint: str
) -> None:
    write_segment(realm, requests)
    edit_heads(write_segment(realm, requests, ()), edit)
    with pytest.raises(LedgerError, match=complaint):
        verify(realm)


def test_a_segment_that_is_not_continued_is_found(realm: Realm, requests: list[bytes]) -> None:
    write_segment(realm, requests)
    second = write_segment(realm, requests, ())
    second.write_bytes(replace(read_start_of(second), heads=()).to_bytes())
    with pytest.raises(LedgerError, match="segment 1 nowhere"):
        verify(realm)


def test_a_changed_flag_breaks_the_chain(realm: Realm, requests: list[bytes]) -> None:
    write_segment(realm, requests)
    edit_heads(write_segment(realm, requests), lambda head: replace(head, ended=False))
    with pytest.raises(LedgerError, match=r"2/1.*does not continue"):
        verify(realm)


def test_what_was_written_after_the_end_is_found(realm: Realm, requests: list[bytes]) -> None:
    worker = Worker(realm, requests)
    worker.write()
    Worker(realm, requests)
    worker.write()
    edit_heads(list_segments(worker.maker.folder)[1], lambda head: replace(head, ended=True))
    with pytest.raises(LedgerError, match="as ended at a batch that others follow"):
        verify(realm)


CUTS = {
    "in the frame's length": 3,
    "in the frame's magic": 6,
    "behind the frame": 8,
    "in the header": 60,
    "in the signature": 150,
    "behind the signature": ENTRIES_AT,
    "in a leaf": ENTRIES_AT + 50,
    "in a name": ENTRIES_AT + 150,
    "behind the first entry": ENTRIES_AT + ENTRY_SIZE,
    "in the last leaf": ENTRIES_AT + ENTRY_SIZE + 100,
}


@pytest.mark.parametrize("zeros", [False, True], ids=["end of file", "zeros follow"])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
def test_a_last_record_cut_short_is_no_damage(realm: Realm, requests: list[bytes], cut: int, zeros: bool) -> None:
    path = write_segment(realm, requests, end=False)
    data = path.read_bytes()
    kept = data[: offsets()[2] + cut]
    path.write_bytes(kept.ljust(len(data), b"\0") if zeros else kept)
    assert (verify(realm).batches, verify(realm).torn_tails) == (2, 1)
    write_segment(realm, requests)
    assert (verify(realm).batches, verify(realm).torn_tails) == (5, 1)
    assert count_entries(path.parent) == 4 + 6


@pytest.mark.parametrize("at", [0, 5, 8, 90, ENTRIES_AT, ENTRIES_AT + ENTRY_SIZE + 40])
def test_a_last_record_written_in_part_is_no_damage(realm: Realm, requests: list[bytes], at: int) -> None:
    """Pages reach the disk in any order: some of the record is there, any of it may be zeros."""
    path = write_segment(realm, requests, end=False)
    change(path, offsets()[2] + at, bytes(40))
    assert (verify(realm).batches, verify(realm).torn_tails) == (2, 1)
    write_segment(realm, requests)
    assert verify(realm).batches == 5


def test_a_segment_whose_only_record_is_torn(realm: Realm, requests: list[bytes]) -> None:
    path = write_segment(realm, requests, (2,), end=False)
    change(path, PAGE_SIZE + ENTRIES_AT + 8)
    write_segment(realm, requests)
    assert (verify(realm).batches, verify(realm).torn_tails) == (3, 1)


MIDDLE = {
    "frame's length": 0,
    "frame's length, upper byte": 1,
    "frame's magic": 4,
    "header's number": 16,
    "header's time": 24,
    "header's previous": 8 + 60,
    "header's root": 8 + 90,
    "signature": 130,
    "leaf": ENTRIES_AT + 20,
    "leaf's count": ENTRIES_AT + 110,
}


@pytest.mark.parametrize("record", [0, 1])
@pytest.mark.parametrize("at", MIDDLE.values(), ids=MIDDLE.keys())
def test_a_change_before_the_last_record_is_damage(realm: Realm, requests: list[bytes], record: int, at: int) -> None:
    path = write_segment(realm, requests)
    change(path, offsets()[record] + at)
    with pytest.raises(LedgerError, match=r"segment-00000001\.kfl") as caught:
        verify(realm)
    assert caught.value.details["batch"] == f"1/{record + 1}"


@pytest.mark.parametrize("at", [8 + 8, 8 + 16, 8 + 52, 130])
def test_a_changed_last_header_is_damage(realm: Realm, requests: list[bytes], at: int) -> None:
    path = write_segment(realm, requests)
    change(path, offsets()[2] + at)
    with pytest.raises(LedgerError, match="1/3"):
        verify(realm)


def test_zeros_in_the_middle_are_damage_that_a_start_refuses(realm: Realm, requests: list[bytes]) -> None:
    path = write_segment(realm, requests, end=False)
    change(path, offsets()[1], bytes(offsets()[2] - offsets()[1]))
    with pytest.raises(LedgerError, match="behind batch 1"):
        verify(realm)
    with pytest.raises(LedgerError, match="behind batch 1"):
        BatchMaker(realm).open_ledger()
    assert list(path.parent.iterdir()) == [path]


def test_bytes_far_behind_the_last_record_are_damage(realm: Realm, requests: list[bytes]) -> None:
    path = write_segment(realm, requests, end=False)
    change(path, offsets()[-1] + 300_000, b"\1")
    with pytest.raises(LedgerError, match="behind batch 3"):
        verify(realm)


def test_a_name_that_looks_like_a_record_is_none(realm: Realm, requests: list[bytes]) -> None:
    path = write_segment(realm, requests, end=False)
    at = offsets()[2] + ENTRIES_AT + 118
    change(path, at, struct.pack("<I4s", 452, b"KFL1"))
    change(path, offsets()[2] + 100)
    assert (verify(realm).batches, verify(realm).torn_tails) == (2, 1)


@pytest.mark.parametrize("at", [0, 8, 12, 20, 33, 34, 100, 4000, 4090])
def test_a_changed_first_block_is_damage(realm: Realm, requests: list[bytes], at: int) -> None:
    path = write_segment(realm, requests)
    change(path, at)
    for use in (lambda: verify(realm), lambda: BatchMaker(realm).open_ledger()):
        with pytest.raises(LedgerError, match=r"segment-00000001\.kfl"):
            use()


def test_a_cut_of_what_was_continued_is_damage(realm: Realm, requests: list[bytes]) -> None:
    path = write_segment(realm, requests)
    write_segment(realm, requests)
    os.truncate(path, offsets()[2])
    with pytest.raises(LedgerError, match="continues segment 1"):
        verify(realm)


def test_a_removed_segment_is_damage(realm: Realm, requests: list[bytes]) -> None:
    paths = [write_segment(realm, requests) for _ in range(3)]
    paths[1].unlink()
    with pytest.raises(LedgerError, match="continues segment 2"):
        verify(realm)


def test_swapped_or_copied_segments_are_damage(realm: Realm, requests: list[bytes]) -> None:
    first, second = write_segment(realm, requests), write_segment(realm, requests)
    third = second.with_name("segment-00000003.kfl")
    third.write_bytes(second.read_bytes())
    with pytest.raises(LedgerError, match="holds segment 2"):
        verify(realm)
    third.unlink()
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    for use in (lambda: verify(realm), lambda: BatchMaker(realm).open_ledger()):
        with pytest.raises(LedgerError, match="holds segment 2"):
            use()


def test_a_copy_under_another_name_is_damage(realm: Realm, requests: list[bytes]) -> None:
    path = write_segment(realm, requests)
    path.with_name("segment-00000001-copy.kfl").write_bytes(path.read_bytes())
    with pytest.raises(LedgerError, match="renamed or copied") as caught:
        verify(realm)
    assert [problem["kind"] for problem in caught.value.details["problems"]] == ["first block"]


def write_segment_of_another_host(
    folder: Path, requests: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> tuple[Realm, Path]:
    with monkeypatch.context() as patch:
        patch.setattr("tests.hosts.make_key", lambda name: make_key("another " + name if name == "host" else name))
        folder.mkdir()
        realm = make_realm(folder)
    return realm, write_segment(realm, requests)


def test_another_hosts_segment(
    realm: Realm, requests: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, foreign = write_segment_of_another_host(tmp_path / "other", requests, monkeypatch)
    folder = realm.home / "host" / "ledger"
    folder.mkdir()
    (folder / foreign.name).write_bytes(foreign.read_bytes())
    with pytest.raises(LedgerError, match="belongs to another host"):
        BatchMaker(realm).open_ledger()
    (folder / foreign.name).unlink()
    write_segment(realm, requests)
    data = bytearray(foreign.read_bytes()[:PAGE_SIZE])
    data[12] = 2
    data[-32:] = hashlib.sha256(data[:-32]).digest()
    (folder / "segment-00000002.kfl").write_bytes(data)
    with pytest.raises(LedgerError, match="belongs to another host"):
        verify(realm)


def test_a_ledger_under_another_root(realm: Realm, requests: list[bytes]) -> None:
    write_segment(realm, requests)
    with pytest.raises(LedgerError, match="do not verify"):
        verify(realm, roots=(bytes(32),))


def sign_again(realm: Realm, path: Path, edit: Callable[[bytearray], Any]) -> None:
    """Changes the header of the second record and signs it with the host's own key."""
    data = bytearray(path.read_bytes())
    at = offsets()[1] + 8
    header = data[at : at + 116]
    edit(header)
    data[at : at + 116] = header
    data[at + 116 : at + 180] = make_key("host").sign(b"kms_fast 1 batch header\0" + header)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("at", "octets", "complaint"),
    [
        (4, struct.pack("<I", 2), "numbered 2/2"),
        (8, struct.pack("<Q", 1), "numbered 1/1"),
        (16, struct.pack("<Q", 1), "time goes back"),
        (16, struct.pack("<Q", 1 << 50), "outside its certificate's dates"),
        (24, bytes(16), "another certificate"),
        (40, bytes(8), "another certificate"),
        (52, bytes(32), "does not continue"),
    ],
)
def test_a_host_that_signs_something_else(
    realm: Realm, requests: list[bytes], at: int, octets: bytes, complaint: str
) -> None:
    path = write_segment(realm, requests)

    def edit(header: bytearray) -> None:
        header[at : at + len(octets)] = octets

    sign_again(realm, path, edit)
    with pytest.raises(LedgerError, match=complaint) as caught:
        verify(realm)
    assert caught.value.details["batch"] == "1/2"


def test_time_does_not_go_back_from_one_segment_to_the_next(realm: Realm, requests: list[bytes]) -> None:
    maker = BatchMaker(realm)
    time_ms = now_ms()
    for at_ms in (time_ms, time_ms - 1):
        ledger = maker.open_ledger()
        maker.write(ledger, maker.collect(requests[:1]), at_ms)
        ledger.close()
    with pytest.raises(LedgerError, match=r"2/1.*time goes back"):
        verify(realm)


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("batches", range(10))
@pytest.mark.parametrize("end", [True, False])
def test_ranges_of_any_length_add_up(realm: Realm, requests: list[bytes], batches: int, end: bool) -> None:
    sizes = (2,) * batches
    write_segment(realm, requests, sizes, end=end)
    write_segment(realm, requests, sizes, end=end)
    verdict = verify(realm)
    assert (verdict.segments, verdict.batches, verdict.records) == (2, 2 * batches, 4 * batches)


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("record", range(9))
def test_any_changed_byte_is_found_in_any_range(realm: Realm, requests: list[bytes], record: int) -> None:
    """Every byte of headers and signatures, and of leaves; not those of names and addresses, which may be blanked."""
    sizes = (1,) * 9
    path = write_segment(realm, requests, sizes)
    write_segment(realm, requests)
    content = path.read_bytes()
    for at in [*range(ENTRIES_AT + 118)][record % 2 :: 2]:
        change(path, offsets(sizes)[record] + at)
        with pytest.raises(LedgerError):
            verify(realm)
        path.write_bytes(content)
    change(path, offsets(sizes)[record] + ENTRIES_AT + 118, b"another name")
    assert verify(realm).batches == 12


@pytest.mark.usefixtures("small_ranges")
def test_each_fault_shows_once(realm: Realm, requests: list[bytes]) -> None:
    sizes = (1,) * 9
    path = write_segment(realm, requests, sizes)
    for record in (1, 3, 6, 8):
        change(path, offsets(sizes)[record] + 130)
    with pytest.raises(LedgerError) as caught:
        verify(realm)
    assert [(problem["kind"], problem["batch"]) for problem in caught.value.details["problems"]] == [
        ("signature", f"1/{record + 1}") for record in (1, 3, 6, 8)
    ]


@pytest.mark.usefixtures("small_ranges")
def test_several_processes_find_what_one_finds(realm: Realm, requests: list[bytes]) -> None:
    sizes = (1,) * 9
    path = write_segment(realm, requests, sizes)
    write_segment(realm, requests, sizes)
    assert verify(realm, processes=2) == verify(realm)
    change(path, offsets(sizes)[4] + 130)
    change(path, offsets(sizes)[7] + ENTRIES_AT)
    found = []
    for processes in (1, 2):
        with pytest.raises(LedgerError) as caught:
            verify(realm, processes=processes)
        found.append(caught.value.details)
    assert found[0] == found[1]
    assert [problem["kind"] for problem in found[0]["problems"]] == ["signature", "record"]


@pytest.mark.usefixtures("small_ranges")
def test_a_process_that_is_ended_is_told(realm: Realm, requests: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a machine that is short of memory."""
    write_segment(realm, requests, (1,) * 9)
    monkeypatch.setattr(audit, "_leave_interrupts", os.abort)
    with pytest.raises(KmsFastError, match="was ended") as caught:
        verify(realm, processes=2)
    assert caught.value.result.name == "PROCESS_FAILED"
