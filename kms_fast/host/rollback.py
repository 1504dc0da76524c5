"""Whether the ledger went back: what others know of it that is no longer there.

Others are the inventory, whose watermarks name the last batch recorded of each segment, and whoever restored the host
from a backup, who leaves a mark in the ledger's folder.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from kms_fast import _core
from kms_fast.errors import LedgerError
from kms_fast.files import SECRET, read_bounded, sync_folder, write_atomically
from kms_fast.host.ledger import open_ledger, storage_errors
from kms_fast.host.segment import (
    ENTRIES_AT,
    NO_BATCH,
    UNKNOWN,
    Head,
    hash_header,
    list_segments,
    read_start,
    read_start_of,
    segment_path,
)
from kms_fast.model.policy import format_time
from kms_fast.store import Watermark

RESTORED: Final = "restored.json"
_NOT_KNOWN: Final = Head(UNKNOWN, NO_BATCH, 0, lost=True)


def mark_restored(folder: Path, created_ms: int) -> None:
    """Leave a mark in a ledger's folder: it comes from a backup made at this time (ms). Raises OSError."""
    write_atomically(folder / RESTORED, json.dumps({"backup_created_ms": created_ms}).encode(), mode=SECRET)


def check_rollback(
    folder: Path, watermarks: Iterable[Watermark], *, host_id: bytes, certificates: bytes, accept: bool
) -> list[Head]:
    """Compare the ledger with what is known of it elsewhere; to be called before a host opens its segments.

    ``accept``: what is missing is lost. That is written into the ledger, as a segment of its own whose first block
    names what is lost and whose number is above all that may have been used, so that no (segment, number) is signed
    twice; returned is what it names, nothing when nothing is missing. What was accepted is not asked again.

    Without ``accept`` it raises `LedgerError` (LEDGER_WENT_BACK) that names segment and batch. Raises OSError.
    """
    missing = find_missing(folder, watermarks)
    restored = folder / RESTORED
    if not missing and not restored.exists():
        return []
    if not accept:
        raise _went_back(folder, missing, restored)
    lost = [Head(mark.segment, mark.header_hash, mark.time_ms, lost=True) for mark in missing]
    if restored.exists():
        lost.append(_NOT_KNOWN)
    open_ledger(folder, host_id=host_id, certificates=certificates, added=lost).close()
    with storage_errors(folder):
        restored.unlink(missing_ok=True)
        sync_folder(folder)
    return lost


def find_missing(folder: Path, watermarks: Iterable[Watermark]) -> list[Watermark]:
    """Those watermarks of this ledger's host whose batch it has not, and whose loss was not accepted.

    Raises `LedgerError`, OSError.
    """
    starts = [read_start_of(path) for path in list_segments(folder)]
    accepted = {(head.segment, head.header_hash) for start in starts for head in start.heads if head.lost}
    return [
        mark for mark in watermarks if (mark.segment, mark.header_hash) not in accepted and not _has_batch(folder, mark)
    ]


def _has_batch(folder: Path, mark: Watermark) -> bool:
    """Whether the batch of a watermark is where it was recorded, whole and the same."""
    path = segment_path(folder, mark.segment)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False
    with file:
        start = read_start(file, path)
        offset = start.size + (mark.number - 1) * ENTRIES_AT if start.pruned else mark.offset
        headers = _core.RecordReader(file.fileno(), offset, start.pruned).read_headers(1, offset + 1)
    return bool(headers) and hash_header(headers[0]) == mark.header_hash


def _went_back(folder: Path, missing: list[Watermark], restored: Path) -> LedgerError:
    batches = [f"{mark.segment}/{mark.number}" for mark in missing]
    if missing:
        first = missing[0]
        there = (
            "ends before it or has another one" if segment_path(folder, first.segment).exists() else "lacks the segment"
        )
        message = (
            f"The ledger {folder} went back: batch {batches[0]}, signed {format_time(first.time_ms)}, is in the "
            f"inventory, but the ledger {there}."
        )
        return LedgerError(message, name="LEDGER_WENT_BACK", file=str(folder), batch=batches[0], batches=batches)
    message = f"The ledger {folder} is a copy that was put back: what this host signed after it was made is not known."
    created_ms = _read_created(restored)
    if created_ms is not None:
        message = (
            f"The ledger {folder} was restored from a backup of {format_time(created_ms)}: what this host signed after "
            "that is not known."
        )
    return LedgerError(message, name="LEDGER_WENT_BACK", file=str(restored))


def _read_created(restored: Path) -> int | None:
    """When the backup was made (ms) that this mark tells of, None for one made by hand. Raises OSError."""
    try:
        created_ms = json.loads(read_bounded(restored))["backup_created_ms"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None  # whatever a person wrote there, or nothing: the mark is that the file exists
    return created_ms if isinstance(created_ms, int) else None
