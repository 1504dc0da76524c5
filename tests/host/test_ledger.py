"""The segments that a host opens: their bytes, how each continues the others, how they grow."""

import hashlib
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from kms_fast import _core
from kms_fast.errors import KmsFastError, LedgerError
from kms_fast.host import ledger as ledger_module
from kms_fast.host.segment import ENTRIES_AT, ENTRY_SIZE, Head, SegmentStart, find_head, list_segments, segment_path
from tests.batches import BatchMaker
from tests.hosts import Realm
from tests.ledgers import CHAIN_SIZE, PAGE_SIZE, SIZES, Worker, change, offsets, read_heads, verify, write_segment
from tests.system.asker import now_ms

pytestmark = pytest.mark.usefixtures("small_steps")


def test_the_bytes_of_a_segment_are_those_of_the_document(realm: Realm, requests: list[bytes]) -> None:
    data = write_segment(realm, requests).read_bytes()
    chain = (realm.home / "host" / "host.cert").read_bytes()
    fields = struct.pack("<8sII16sHHI", b"KFLEDGER", 1, 1, chain[32:48], len(chain), 0, 0) + chain
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
    assert second[40 + CHAIN_SIZE : 40 + CHAIN_SIZE + 48] == head
    assert struct.unpack_from("<H", second, 34) == (1,)
    previous = hashlib.sha256(b"kms_fast 1 segment heads\0" + head).digest()
    assert second[PAGE_SIZE + 8 + 52 : PAGE_SIZE + 8 + 84] == previous


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


def test_zeros_are_written_ahead_of_the_records(
    realm: Realm, requests: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and then, and never past what is preallocated: that would need room on a disk that may be full."""
    monkeypatch.setattr(ledger_module, "PREALLOCATE_BYTES", 300_000)
    monkeypatch.setattr(ledger_module, "ZEROS_AHEAD_BYTES", 20_000)
    submitted: list[tuple[int, int]] = []

    class Committer:
        def submit(self, batch: _core.Batch, fd: int, offset: int, zeros_to: int) -> int:
            submitted.append((offset + batch.record_size(), zeros_to))
            assert submitted[-1][0] <= os.fstat(fd).st_size
            return batch.record_size()

    maker = BatchMaker(realm)
    ledger = maker.open_ledger()
    written = PAGE_SIZE
    for _ in range(300):
        ledger.reserve()
        batch = maker.collect(requests)
        ledger.append(cast("_core.Committer", Committer()), batch, bytes(32), now_ms())
        end, zeros_to = submitted[-1]
        assert zeros_to == (0 if end <= written else min(end + 20_000, ledger.path.stat().st_size))
        written = max(written, zeros_to)
    assert sum(zeros_to > 0 for _, zeros_to in submitted) in range(25, 40)
    ledger.close()


def test_a_start_cuts_the_zeros_of_segments_that_have_ended(realm: Realm, requests: list[bytes]) -> None:
    killed = write_segment(realm, requests, end=False)
    worker = Worker(realm, requests)
    worker.write()
    assert killed.stat().st_size == offsets()[-1]
    allocated = worker.ledger.path.stat().st_size
    write_segment(realm, requests)
    assert worker.ledger.path.stat().st_size == allocated
    worker.write()
    worker.ledger.close()
    verdict = verify(realm)
    assert (verdict.batches, verdict.torn_tails) == (len(SIZES) + 2 + len(SIZES), 0)


def test_a_start_keeps_a_record_that_was_cut_short(realm: Realm, requests: list[bytes]) -> None:
    path = write_segment(realm, requests, end=False)
    last = offsets()[2]
    change(path, last + ENTRIES_AT + 20)
    change(path, last + ENTRIES_AT + ENTRY_SIZE, bytes(ENTRY_SIZE))
    torn = path.read_bytes()[last:].rstrip(b"\0")
    write_segment(realm, requests)
    assert path.read_bytes()[last:] == torn
    assert verify(realm).torn_tails == 1


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


def test_segments_are_listed_by_number_however_long(tmp_path: Path) -> None:
    numbers = (1, 99_999_999, 100_000_000, 1_234_567_890)
    for number in reversed(numbers):
        segment_path(tmp_path, number).touch()
    assert list_segments(tmp_path) == [segment_path(tmp_path, number) for number in numbers]
