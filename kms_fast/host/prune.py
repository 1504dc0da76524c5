"""Pruning: old segments lose what their batches hold of machines, and keep every signed header."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kms_fast import _core
from kms_fast.errors import LedgerError
from kms_fast.files import SECRET, lock_folder, open_atomically
from kms_fast.host.ledger import storage_errors
from kms_fast.host.segment import (
    END,
    ENTRIES_AT,
    FRAME,
    PRUNED_MAGIC,
    Head,
    find_head,
    hash_header,
    list_segments,
    read_start_of,
)
from kms_fast.store import Watermark

_HEADERS_PER_CALL = 4096


@dataclass(slots=True)
class Pruned:
    """What `prune_ledger` did. ``waiting``: segments that are old enough and not wholly in the inventory yet."""

    segments: int = 0
    batches: int = 0
    freed_bytes: int = 0
    waiting: int = 0

    def to_json(self) -> dict[str, Any]:
        """The object that ``ledger prune --json`` prints."""
        return asdict(self)


def prune_ledger(
    folder: Path,
    watermarks: Iterable[Watermark],
    *,
    before_ms: int,
    limit: int | None = None,
    on_progress: Callable[[Pruned], None] = lambda pruned: None,
) -> Pruned:
    """Drop the entries of every segment that has ended, and whose last batch was signed before a time (ms).

    Only where the inventory has the segment whole: that batch is its watermark, or its watermark is a batch behind it
    that is lost, and accepted as that. A segment is replaced as a whole or not at all; hosts may run meanwhile.
    ``limit``: at most so many segments. Raises `LedgerError` for a segment that is damaged, `KmsFastError`
    (STORAGE_FAILED).
    """
    recorded = {(mark.segment, mark.header_hash) for mark in watermarks}
    starts = {path: read_start_of(path) for path in list_segments(folder)}
    heads = [head for start in starts.values() for head in start.heads]
    ends = {head.segment: head for head in heads if head.ended}
    went_back = {head.segment for head in heads if head.lost and (head.segment, head.header_hash) in recorded}
    pruned = Pruned()
    for path, start in starts.items():
        if start.pruned:
            continue
        with storage_errors(folder):
            end = ends.get(start.segment) or find_head(path)
        if not end.ended or end.header_hash == start.previous or end.time_ms >= before_ms:
            continue
        if end.segment not in went_back and (end.segment, end.header_hash) not in recorded:
            pruned.waiting += 1
            continue
        with storage_errors(folder), lock_folder(folder):
            _remove_unfinished(folder)
            _prune_segment(path, end, pruned)
        on_progress(pruned)
        if pruned.segments == limit:
            break
    return pruned


def _remove_unfinished(folder: Path) -> None:
    """What a crash left; nobody else replaces a segment while the ledger is locked."""
    for path in folder.glob(".segment-*"):
        path.unlink()


def _prune_segment(path: Path, end: Head, pruned: Pruned) -> None:
    start = read_start_of(path)
    if start.pruned:
        return
    size = path.stat().st_size
    last = b""
    with path.open("rb") as file, open_atomically(path, mode=SECRET) as target:
        target.write(replace(start, pruned=True).to_bytes())
        reader = _core.RecordReader(file.fileno(), start.size)
        while headers := reader.read_headers(_HEADERS_PER_CALL, END):
            target.writelines(FRAME.pack(ENTRIES_AT, PRUNED_MAGIC) + header for header in headers)
            last = headers[-1]
        if hash_header(last) != end.header_hash:
            raise LedgerError(
                f"{path} does not end where a later segment continues it: it is not pruned.",
                file=str(path),
                segment=start.segment,
                offset=reader.offset,
            )
    pruned.segments += 1
    pruned.batches += reader.number
    pruned.freed_bytes += size - path.stat().st_size
