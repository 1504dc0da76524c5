"""Ledgers in this process, for tests: segments of batches, workers side by side, and changes to what they wrote.

Fixtures for them are in tests/host/conftest.py.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kms_fast.host.audit import Verdict, verify_ledger
from kms_fast.host.segment import ENTRIES_AT, ENTRY_SIZE, Head, read_records, read_start, read_start_of
from kms_fast.store import Watermark
from tests.batches import BatchMaker
from tests.hosts import PUBLISHER_ID, Realm
from tests.system.asker import now_ms

SIZES = (3, 1, 2)
CHAIN_SIZE = 168 + 12 + 144
PAGE_SIZE = 4096


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


def verify(realm: Realm, *, roots: tuple[bytes, ...] | None = None, processes: int = 1) -> Verdict:
    """Verifies the realm's ledger. Raises LedgerError."""
    return verify_ledger(
        realm.home / "host" / "ledger",
        roots=roots or (realm.root,),
        publisher_id=PUBLISHER_ID,
        on_progress=lambda verdict: None,
        processes=processes,
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


def read_heads(path: Path) -> tuple[Head, ...]:
    """The heads that a segment continues."""
    return read_start_of(path).heads


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


def mark(path: Path, number: int = 0) -> Watermark:
    """The watermark of a segment's batch of this number, else of its last."""
    with path.open("rb") as file:
        records = list(read_records(file, path, read_start(file, path)))
    record = records[number - 1]
    header = record.header
    return Watermark(header.segment, record.offset, header.number, header.hash, header.time_ms)


def edit_heads(path: Path, edit: Callable[[Head], Head]) -> None:
    """Writes a segment's first block anew, with a right digest."""
    data = path.read_bytes()
    start = read_start_of(path)
    block = replace(start, heads=tuple(map(edit, start.heads))).to_bytes()
    path.write_bytes(block + data[start.size :])
