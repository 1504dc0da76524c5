"""The ledger as the host writes it: one open segment, one record a batch, synced before any answer leaves.

A segment is opened at each start, and whenever a running host begins the next one. It belongs to its process alone (an
exclusive lock, which also tells others that it has not ended). Its file is preallocated, and zeros are written ahead of
the records: the first write to a preallocated block changes the file's metadata, so a sync has nothing but data to
write only where something was written before.
"""

import fcntl
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from kms_fast import _core
from kms_fast.errors import KmsFastError, LedgerError
from kms_fast.files import SECRET_FOLDER, lock_folder, make_folder, sync_folder
from kms_fast.host.segment import (
    MAX_RECORD_SIZE,
    Head,
    SegmentStart,
    find_head,
    list_segments,
    read_last,
    read_start,
    read_start_of,
    segment_path,
)

PREALLOCATE_BYTES: Final = 64 << 20
# Two of the largest batches, dozens of usual ones; the commit that brings them takes half a millisecond longer.
ZEROS_AHEAD_BYTES: Final = 512 << 10
LOST_NUMBERS: Final = 1_000_000


class Ledger:
    """The open segment of a host.

    ``previous`` (32 bytes), ``number`` and ``last_time_ms`` are what the next batch header follows; ``used_bytes`` is
    where its record will begin; ``first_time_ms`` the time of the first batch, None before it. Made by `open_ledger`.
    """

    def __init__(self, path: Path, fd: int, start: SegmentStart) -> None:
        self.path = path
        self.segment = start.segment
        self.previous = start.previous
        self.number = 1
        self.last_time_ms = start.time_ms
        self.first_time_ms: int | None = None
        self._fd = fd
        self.used_bytes = start.size
        self._allocated_bytes = start.size
        self._written_bytes = start.size
        self.reserve()

    def reserve(self) -> None:
        """Preallocate so that the next record fits. Raises `KmsFastError` (STORAGE_FAILED), as on a full disk."""
        if self.used_bytes + MAX_RECORD_SIZE <= self._allocated_bytes:
            return
        with storage_errors(self.path, f"its next part needs {PREALLOCATE_BYTES >> 20} MiB"):
            os.posix_fallocate(self._fd, self._allocated_bytes, PREALLOCATE_BYTES)
        self._allocated_bytes += PREALLOCATE_BYTES

    def append(self, committer: _core.Committer, batch: _core.Batch, header_hash: bytes, time_ms: int) -> None:
        """Start the durable write of a sealed batch; `committer` tells when it has ended."""
        zeros_to, end = 0, self.used_bytes + batch.record_size()
        if end > self._written_bytes:
            zeros_to = self._written_bytes = min(end + ZEROS_AHEAD_BYTES, self._allocated_bytes)
        self.used_bytes += committer.submit(batch, self._fd, self.used_bytes, zeros_to)
        self.previous = header_hash
        self.number += 1
        self.last_time_ms = time_ms
        if self.first_time_ms is None:
            self.first_time_ms = time_ms

    def close(self) -> None:
        """Give back what was preallocated and not used, and the lock."""
        with storage_errors(self.path):
            os.ftruncate(self._fd, self.used_bytes)
            os.fsync(self._fd)
            os.close(self._fd)


def open_ledger(folder: Path, *, host_id: bytes, certificates: bytes, added: Sequence[Head] = ()) -> Ledger:
    """Open a new segment that continues all earlier ones; others may write to theirs meanwhile.

    Only the first blocks are read of segments that an earlier block names as ended; of others that have ended the
    preallocated zeros are cut off. ``added``: heads that no segment has: of batches that were lost, or a reset of
    the clock. Nobody knows which segments followed what was lost, so the number is then far above all others.

    Raises `LedgerError` when a segment is damaged or of another host; `KmsFastError`: STORAGE_FAILED when the folder
    cannot be written, HOST_RUNNING when the clock is to be reset below a host that still writes.
    """
    with storage_errors(folder):
        make_folder(folder, mode=SECRET_FOLDER)
    with storage_errors(folder), lock_folder(folder):
        found = find_heads(folder, host_id)
        if any(head.reset for head in added):
            _refuse_running(folder, found.values())
        for path, head in found.items():
            if head.ended:
                _cut_zeros(path)
        heads = (*found.values(), *added)
        # The newest segment is named by no other, so it is among these.
        number = max((head.segment for head in heads), default=0) + 1
        if any(head.lost for head in added):
            number += LOST_NUMBERS
        start = SegmentStart(number, host_id, certificates, heads)
        path = segment_path(folder, start.segment)
        fd = _create_segment(path, start)
        sync_folder(folder)
    return Ledger(path, fd, start)


def find_newest_time(folder: Path) -> int | None:
    """The time (ms) that a ledger has reached, None when it has no batch. Raises `LedgerError`, OSError."""
    return max((head.time_ms for head in find_heads(folder).values()), default=0) or None


def find_heads(folder: Path, host_id: bytes | None = None) -> dict[Path, Head]:
    """The heads of all segments that no block names as ended.

    Raises `LedgerError`, also for a segment of another host than this one; OSError.
    """
    starts = {path: _read_start(path, host_id) for path in list_segments(folder)}
    ended = {head.segment for start in starts.values() for head in start.heads if head.ended}
    return {path: find_head(path) for path, start in starts.items() if start.segment not in ended}


def _refuse_running(folder: Path, heads: Iterable[Head]) -> None:
    held = [head.segment for head in heads if not head.ended]
    if held:
        raise KmsFastError(
            f"A host writes to the ledger {folder} (segment {held[0]}).", name="HOST_RUNNING", folder=str(folder)
        )


def _read_start(path: Path, host_id: bytes | None) -> SegmentStart:
    start = read_start_of(path)
    if host_id is not None and start.host_id != host_id:
        raise LedgerError(f"{path} belongs to another host than this one's certificate.", file=str(path))
    return start


def _cut_zeros(path: Path) -> None:
    """Give back what a host that was killed had preallocated; a record that was cut short stays."""
    with path.open("r+b", buffering=0) as file:
        reader, _ = read_last(file, read_start(file, path))
        torn = os.pread(file.fileno(), MAX_RECORD_SIZE, reader.offset).rstrip(b"\0")
        os.ftruncate(file.fileno(), reader.offset + len(torn))


def _create_segment(path: Path, start: SegmentStart) -> int:
    """A descriptor of the new segment's file, locked. Under its name there is never one without its first block."""
    unfinished = path.with_suffix(".new")
    fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(start.to_bytes())
        os.fsync(fd)
        unfinished.rename(path)
    except BaseException:
        os.close(fd)
        unfinished.unlink(missing_ok=True)
        raise
    return fd


class storage_errors:
    """Turns an OSError into `KmsFastError` (STORAGE_FAILED) that names the path, and what was wanted of it."""

    def __init__(self, path: Path, wanted: str | None = None) -> None:
        self._path = path
        self._wanted = f" ({wanted})" if wanted else ""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise KmsFastError(
                f"The ledger {self._path} cannot be written: {error.strerror}{self._wanted}.",
                name="STORAGE_FAILED",
                file=str(self._path),
                reason=error.strerror,
            ) from error
