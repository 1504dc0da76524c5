"""Ledgers that crashed, and ledgers that somebody changed. What `kms_fast.host.segment` and `ledger` do with each."""

import hashlib
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kms_fast.errors import KmsFastError, LedgerError
from kms_fast.host import ledger as ledger_module
from kms_fast.host.audit import Verdict, list_records, verify_ledger
from kms_fast.host.segment import ENTRIES_AT, ENTRY_SIZE, Head, SegmentStart, find_head, list_segments, read_start
from tests.batches import BatchMaker
from tests.hosts import PUBLISHER_ID, Realm, make_key, make_realm
from tests.system.asker import Asker, now_ms

SIZES = (3, 1, 2)
CHAIN_SIZE = 168 + 12 + 144
PAGE_SIZE = 4096


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments grow by little, so that tests need no 64 MiB each."""
    monkeypatch.setattr(ledger_module, "PREALLOCATE_BYTES", 1 << 20)


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    asker = Asker.of(make_realm(tmp_path_factory.mktemp("requests")), "desktop")
    return [asker.ask().request for _ in range(8)]


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return make_realm(tmp_path)


def write_segment(realm: Realm, requests: list[bytes], sizes: tuple[int, ...] = SIZES, *, end: bool = True) -> Path:
    """A new segment with batches of these sizes; without an orderly ``end`` its preallocated zeros stay."""
    maker = BatchMaker(realm)
    ledger = maker.open_ledger()
    time_ms = max(ledger.last_time_ms, now_ms())
    for number, size in enumerate(sizes):
        maker.write(ledger, maker.collect(requests[:size]), time_ms + number)
    if end:
        ledger.close()
    else:
        os.close(ledger._fd)
    return ledger.path


def verify(realm: Realm, *, roots: tuple[bytes, ...] | None = None) -> Verdict:
    return verify_ledger(
        realm.home / "host" / "ledger",
        roots=roots or (realm.root,),
        publisher_id=PUBLISHER_ID,
        on_progress=lambda verdict: None,
    )


def offsets(sizes: tuple[int, ...] = SIZES) -> list[int]:
    """Where each record begins, and where the last one ends."""
    found = [PAGE_SIZE]
    for size in sizes:
        found.append(found[-1] + ENTRIES_AT + size * ENTRY_SIZE)
    return found


def change(path: Path, at: int, octets: bytes = b"") -> None:
    """Flips a bit of the byte at ``at``, or puts ``octets`` there."""
    data = bytearray(path.read_bytes())
    if octets:
        data[at : at + len(octets)] = octets
    else:
        data[at] ^= 1
    path.write_bytes(data)


def test_whole_segments_make_one_chain(realm: Realm, requests: list[bytes]) -> None:
    for sizes in ((1,), (), (8, 2), (), ()):
        write_segment(realm, requests, sizes)
    assert verify(realm) == Verdict(5, 3, 11, 11, 0, verify(realm).first_ms, verify(realm).last_ms)
    assert len(list(list_records(realm.home / "host" / "ledger"))) == 11


def test_an_empty_ledger_is_whole(realm: Realm, requests: list[bytes]) -> None:
    write_segment(realm, requests, ())
    assert verify(realm) == Verdict(segments=1)


def test_the_bytes_of_a_segment_are_those_of_the_document(realm: Realm, requests: list[bytes]) -> None:
    data = write_segment(realm, requests).read_bytes()
    chain = (realm.home / "host" / "host.cert").read_bytes()
    fields = struct.pack("<8sII16sHH", b"KFLEDGER", 1, 1, chain[32:48], len(chain), 0) + chain
    block = fields.ljust(4064, b"\0")
    assert data[:PAGE_SIZE] == block + hashlib.sha256(block).digest()
    previous = hashlib.sha256(b"kms_fast 1 segment heads\0").digest()
    for number, (at, size) in enumerate(zip(offsets(), SIZES, strict=False), 1):
        length, magic = struct.unpack_from("<I4s", data, at)
        assert (length, magic) == (188 + 264 * size, b"KFL1")
        header = data[at + 8 : at + 124]
        assert struct.unpack_from("<BBHIQ", header) == (1, 1, size, 1, number)
        assert header[52:84] == previous
        previous = hashlib.sha256(header).digest()
    assert len(data) == offsets()[-1]


def test_a_segment_names_the_heads_it_continues(realm: Realm, requests: list[bytes]) -> None:
    first = write_segment(realm, requests).read_bytes()
    second = write_segment(realm, requests).read_bytes()
    at = offsets()[2] + 8
    head = (
        struct.pack("<IIQ", 1, 1, *struct.unpack_from("<Q", first, at + 16))
        + hashlib.sha256(first[at : at + 116]).digest()
    )
    assert second[36 + CHAIN_SIZE : 36 + CHAIN_SIZE + 48] == head
    assert struct.unpack_from("<H", second, 34) == (1,)
    previous = hashlib.sha256(b"kms_fast 1 segment heads\0" + head).digest()
    assert second[PAGE_SIZE + 8 + 52 : PAGE_SIZE + 8 + 84] == previous


def read_heads(path: Path) -> tuple[Head, ...]:
    with path.open("rb") as file:
        return read_start(file, path).heads


class Worker:
    """Writes segments as a worker does: several at once, the next one opened while the one before is written to."""

    def __init__(self, realm: Realm, requests: list[bytes]) -> None:
        self.maker = BatchMaker(realm)
        self.requests = requests
        self.ledger = self.maker.open_ledger()

    def write(self, batches: int = 1) -> None:
        for _ in range(batches):
            time_ms = max(now_ms(), self.ledger.last_time_ms)
            self.maker.write(self.ledger, self.maker.collect(self.requests[:2]), time_ms)

    def rotate(self) -> None:
        following = self.maker.open_ledger()
        self.write()
        self.ledger.close()
        self.ledger = following


def test_workers_side_by_side_are_tied_together(realm: Realm, requests: list[bytes]) -> None:
    first, second = Worker(realm, requests), Worker(realm, requests)
    for _ in range(3):
        first.write()
        second.write(2)
    first.ledger.close()
    third = Worker(realm, requests)
    second.write()
    second.ledger.close()
    fourth = Worker(realm, requests)
    heads = [(head.segment, head.ended) for head in read_heads(third.ledger.path)]
    assert heads == [(1, True), (2, False)]
    assert [(head.segment, head.ended) for head in read_heads(fourth.ledger.path)] == [(2, True), (3, False)]
    assert verify(realm).batches == 10


def test_a_worker_begins_its_next_segment_while_others_write(realm: Realm, requests: list[bytes]) -> None:
    workers = [Worker(realm, requests) for _ in range(3)]
    for worker in (*workers, *workers):
        worker.write()
        worker.rotate()
        worker.write()
        assert verify(realm).torn_tails == 0
    for worker in workers:
        worker.ledger.close()
    # The three newest, and the one before that its worker closed last.
    assert [(head.segment, head.ended) for head in read_heads(write_segment(realm, requests))] == [
        (6, True),
        (7, True),
        (8, True),
        (9, True),
    ]
    assert verify(realm).segments == 10


def test_workers_that_open_their_next_segments_at_once(realm: Realm, requests: list[bytes]) -> None:
    workers = [Worker(realm, requests) for _ in range(8)]

    def turn(worker: Worker) -> None:
        for _ in range(4):
            worker.write()
            worker.rotate()

    with ThreadPoolExecutor(len(workers)) as threads:
        for done in [threads.submit(turn, worker) for worker in workers]:
            while not done.done():
                verify(realm)
            done.result()
    verdict = verify(realm)
    assert (verdict.segments, verdict.batches, verdict.torn_tails) == (40, 64, 0)


def test_a_block_has_as_many_pages_as_its_heads_need() -> None:
    for count, pages in ((0, 1), (77, 1), (78, 2), (256, 4), (1000, 12)):
        heads = tuple(Head(number, bytes(32), number, ended=number % 2 == 0) for number in range(1, count + 1))
        start = SegmentStart(count + 1, bytes(16), bytes(CHAIN_SIZE), heads)
        assert len(start.to_bytes()) == start.size == pages * PAGE_SIZE
        assert SegmentStart.parse(start.to_bytes(), Path("many")) == start


def test_a_block_of_several_pages(realm: Realm, requests: list[bytes]) -> None:
    maker = BatchMaker(realm)
    others = [maker.open_ledger() for _ in range(79)]
    worker = Worker(realm, requests)
    assert len(read_heads(worker.ledger.path)) == 79
    worker.write(2)
    assert struct.unpack_from("<I4s", worker.ledger.path.read_bytes(), 2 * PAGE_SIZE)[1] == b"KFL1"
    assert verify(realm).batches == 2
    for ledger in (*others, worker.ledger):
        ledger.close()
    assert len(read_heads(write_segment(realm, requests))) == 80
    assert verify(realm).batches == 5


def test_a_start_reads_only_the_first_block_of_an_ended_segment(realm: Realm, requests: list[bytes]) -> None:
    old = write_segment(realm, requests)
    newest = write_segment(realm, requests)
    change(old, offsets()[1] + 20)
    assert [head.segment for head in read_heads(write_segment(realm, requests))] == [2]
    change(newest, 3)
    with pytest.raises(LedgerError, match=newest.name):
        BatchMaker(realm).open_ledger()


def test_a_segment_without_a_batch_hands_time_on(realm: Realm, requests: list[bytes]) -> None:
    time_ms = find_head(write_segment(realm, requests)).time_ms
    for _ in range(2):
        write_segment(realm, requests, ())
    assert BatchMaker(realm).open_ledger().last_time_ms == time_ms


def edit_heads(path: Path, edit: Callable[[Head], Head]) -> None:
    """Writes a segment's first block anew, with a right digest."""
    data = path.read_bytes()
    with path.open("rb") as file:
        start = read_start(file, path)
    block = replace(start, heads=tuple(map(edit, start.heads))).to_bytes()
    path.write_bytes(block + data[start.size :])


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
    assert len(list(list_records(path.parent))) == 4 + 6


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
    assert str(caught.value.details["batch"]) in (f"1/{record + 1}", str(record + 1))


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


def test_a_start_continues_time(realm: Realm, requests: list[bytes]) -> None:
    path = write_segment(realm, requests)
    assert BatchMaker(realm).open_ledger().last_time_ms == find_head(path).time_ms > 0


def test_a_segment_grows_by_steps(realm: Realm, requests: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "PREALLOCATE_BYTES", 300_000)
    maker = BatchMaker(realm)
    ledger = maker.open_ledger()
    assert ledger.path.stat().st_size == PAGE_SIZE + 300_000
    for _ in range(300):
        ledger.reserve()
        maker.write(ledger, maker.collect(requests), now_ms())
        used = PAGE_SIZE + (ledger.number - 1) * (ENTRIES_AT + 8 * ENTRY_SIZE)
        assert ledger.path.stat().st_size >= used
    assert ledger.path.stat().st_size > PAGE_SIZE + 600_000
    ledger.close()
    assert ledger.path.stat().st_size == used
    assert verify(realm).records == 2400


def test_a_start_that_finds_no_room_leaves_no_segment_behind(
    realm: Realm, requests: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(KmsFastError, match="No space left") as caught:
            BatchMaker(realm).open_ledger()
    assert caught.value.result.name == "STORAGE_FAILED"
    assert list((realm.home / "host" / "ledger").iterdir()) == []
    write_segment(realm, requests)
    assert verify(realm).batches == 3


def test_a_start_after_a_crash_in_a_start(realm: Realm, requests: list[bytes]) -> None:
    write_segment(realm, requests)
    (realm.home / "host" / "ledger" / "segment-00000002.new").write_bytes(b"half a blo")
    write_segment(realm, requests)
    assert verify(realm).segments == 2
