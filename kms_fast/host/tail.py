"""The end of a ledger, as the recorder follows it: what was committed since the last look, from every segment.

What a power cut can take must never be in the inventory, so whatever is taken is put on disk here, by the file it was
read from: its host may be about to do so, or may have been killed before it could.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from kms_fast import _core
from kms_fast.errors import LedgerError
from kms_fast.host.ledger import storage_errors
from kms_fast.host.rollback import find_missing
from kms_fast.host.segment import SegmentStart, check_tail, is_held, list_segments, read_start, segment_path, sync_data
from kms_fast.messages import log
from kms_fast.store import Watermark


class LedgerTail:
    """All segments of a ledger behind the watermarks, live and ended ones, also those that come later.

    Segments that are damaged, of another host, or went back behind their watermark, are logged once, counted in
    ``segments_left`` and left alone.
    """

    def __init__(self, folder: Path, host_id: bytes, watermarks: Iterable[Watermark]) -> None:
        self._folder = folder
        self._host_id = host_id
        self._watermarks = {mark.segment: mark for mark in watermarks}
        self._followed: dict[Path, _SegmentTail] = {}
        self._left: set[Path] = set()
        self._turn = 0
        self.segments_left = 0
        for mark in self._find_missing():
            self._leave_missing(mark)

    def fold_new(self, fold: _core.Fold) -> list[Watermark]:
        """Add what is new to a fold until that is full: the new watermarks of the segments it came from.

        Raises `KmsFastError` (STORAGE_FAILED) when the ledger cannot be read; then nothing of the fold may be used.
        """
        with storage_errors(self._folder):
            paths = [path for path in list_segments(self._folder) if path not in self._left]
            # Each time another segment is first, so that one which grows faster than it is read hides no other.
            self._turn = (self._turn + 1) % max(1, len(paths))
            watermarks = []
            for path in paths[self._turn :] + paths[: self._turn]:
                if fold.is_full:
                    break
                try:
                    watermark = self._fold_segment(path, fold)
                except LedgerError as error:
                    self._note_left(error)
                    self._leave(path)
                else:
                    watermarks += [watermark] if watermark else []
        return watermarks

    def close(self) -> None:
        """Close the segments' files."""
        for path in [*self._followed]:
            self._leave(path)

    def _fold_segment(self, path: Path, fold: _core.Fold) -> Watermark | None:
        if path not in self._followed:
            self._followed[path] = _SegmentTail(path, self._host_id, self._watermarks)
        segment = self._followed[path]
        watermark = segment.fold_new(fold)
        if segment.has_ended:
            self._leave(path)
        return watermark

    def _find_missing(self) -> list[Watermark]:
        try:
            return find_missing(self._folder, self._watermarks.values())
        except LedgerError:
            # Told when that segment's turn comes. Others are recorded all the same: what does not continue a watermark
            # is never taken.
            return []

    def _leave(self, path: Path) -> None:
        self._left.add(path)
        if segment := self._followed.pop(path, None):
            segment.file.close()

    def _note_left(self, error: LedgerError) -> None:
        log("SEGMENT_LEFT", error=error)
        self.segments_left += 1

    def _leave_missing(self, mark: Watermark) -> None:
        path = segment_path(self._folder, mark.segment)
        error = LedgerError(
            f"Batch {mark.segment}/{mark.number} is in the inventory and not in {path}.",
            name="LEDGER_WENT_BACK",
            file=str(path),
        )
        self._note_left(error)
        self._left.add(path)


class _SegmentTail:
    """An open segment, read as far as it is recorded. Raises `LedgerError`, OSError."""

    def __init__(self, path: Path, host_id: bytes, watermarks: dict[int, Watermark]) -> None:
        self.path = path
        self.file: BinaryIO = path.open("rb")
        self.has_ended = False
        try:
            self._start = read_start(self.file, path)
            if self._start.host_id != host_id:
                raise LedgerError(f"{path} belongs to another host than this one's certificate.", file=str(path))
            self._number, self._header_hash = 0, self._start.previous
            self._reader = self._begin(self._start, watermarks.get(self._start.segment))
        except BaseException:
            self.file.close()
            raise

    def _begin(self, start: SegmentStart, mark: Watermark | None) -> _core.RecordReader:
        if mark is None or start.pruned:
            return _core.RecordReader(self.file.fileno(), start.size, start.pruned)
        reader = _core.RecordReader(self.file.fileno(), mark.offset)
        reader.read_headers(1, mark.offset + 1)
        self._number, self._header_hash = mark.number, mark.header_hash
        return reader

    def fold_new(self, fold: _core.Fold) -> Watermark | None:
        """Add what is new to the fold; where that ends."""
        if self._start.pruned:
            # Only what is recorded is pruned, and an inventory that begins anew finds no machines here.
            self.has_ended = True
            return None
        held = is_held(self.file)  # asked first: when it is not, what is read below is all there will ever be
        try:
            batch = fold.add_batches(self._reader, self._start.segment, self._number, self._header_hash)
        except ValueError as error:
            raise LedgerError(f"{self.path}: {error}.", file=str(self.path)) from error
        if batch is None:
            if not held and not fold.is_full:
                self.has_ended = True
                check_tail(self.file, self.path, self._start, self._reader)
            return None
        sync_data(self.file.fileno())
        self._number, self._header_hash = batch.number, batch.header_hash
        return Watermark(self._start.segment, batch.offset, batch.number, batch.header_hash, batch.time_ms)
