"""Blanking what a ledger holds of a machine outside its hashed leaves: name, address and port."""

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from kms_fast import _core
from kms_fast.errors import KmsFastError
from kms_fast.host.ledger import storage_errors
from kms_fast.host.segment import (
    CMID_AT,
    ENTRIES_AT,
    ENTRY_SIZE,
    MAX_RECORD_SIZE,
    SegmentStart,
    check_tail,
    is_held,
    list_segments,
    read_start,
)
from kms_fast.store import Inventory, Watermark

# Name; peer address and port.
_BLANKS: Final = ((118, bytes(64)), (244, bytes(18)))
_WAIT_S: Final = 0.2
_WAITS: Final = 300


@dataclass(slots=True)
class Forgotten:
    """What `forget_machine` found: entries of the machine, and how many of them it had to blank.

    ``last_records``: where the record with the machine's last entry begins, for each segment that has any.
    """

    entries: int = 0
    blanked: int = 0
    last_records: dict[int, int] = field(default_factory=dict)

    def are_recorded(self, watermarks: Iterable[Watermark]) -> bool:
        """Whether an inventory with these watermarks has taken up all of these entries: none of them comes again."""
        recorded = {mark.segment: mark.offset for mark in watermarks}
        return all(recorded.get(segment, 0) >= offset for segment, offset in self.last_records.items())


def forget_machine(folder: Path, cmid: bytes, on_progress: Callable[[Forgotten], None]) -> Forgotten:
    """Blank name, address and port of every entry of this machine (CMID, 16 bytes), on disk when this returns.

    Leaves and headers stay as they are, so that every proof holds. Hosts may run meanwhile: what they sign after this
    began is a later request. Raises `LedgerError`, `KmsFastError` (STORAGE_FAILED).
    """
    forgotten = Forgotten()
    for path in list_segments(folder):
        with storage_errors(path), path.open("r+b", buffering=0) as file:
            start = read_start(file, path)
            held = is_held(file)  # asked first: behind what is read of a held one, whole records may follow
            reader = _core.RecordReader(file.fileno(), start.size, start.pruned)
            entries = reader.find_entries(cmid)
            places = [offset + ENTRIES_AT + index * ENTRY_SIZE for offset, index in entries]
            if not held:
                places += _find_torn(file, path, start, reader, cmid)
            blanked = sum(_blank(file, place) for place in places)
            if blanked:
                os.fsync(file.fileno())
        forgotten.entries += len(entries)
        forgotten.blanked += blanked
        if entries:
            forgotten.last_records[start.segment] = entries[-1][0]
        on_progress(forgotten)
    return forgotten


async def forget_recorded(inventory: Inventory, host_id: bytes, cmid: bytes, forgotten: Forgotten) -> int:
    """Blank the machine in the inventory once nothing can bring its name back: how many clients that were.

    A recorder may have read entries before `forget_machine` blanked them. So either it has taken them all up, or there
    is none and this takes its place meanwhile. Raises `KmsFastError`: RECORDER_BEHIND when a recorder that runs does
    not get that far, as one that has left a segment alone, and what the store says.
    """
    for _ in range(_WAITS):
        if await inventory.elect(host_id) or forgotten.are_recorded(await inventory.watermarks(host_id)):
            return await inventory.forget(cmid)
        await asyncio.sleep(_WAIT_S)
    raise KmsFastError(
        "The machine is forgotten in the ledger, but the recorder is too far behind to forget it in the inventory.",
        name="RECORDER_BEHIND",
    )


def _blank(file: BinaryIO, entry: int) -> bool:
    """Blank one entry; False when it was blank already."""
    if all(os.pread(file.fileno(), len(zeros), entry + at) == zeros for at, zeros in _BLANKS):
        return False
    for at, zeros in _BLANKS:
        os.pwrite(file.fileno(), zeros, entry + at)
    return True


def _find_torn(file: BinaryIO, path: Path, start: SegmentStart, reader: _core.RecordReader, cmid: bytes) -> list[int]:
    """Entries of the machine in a record that was cut short: nobody was told of it, but a name may stand there.

    Of an ended segment, behind its reader. Never beyond that one record, since entries lie elsewhere in the next one.
    Raises `LedgerError` when the record's frame is gone and more than one record may lie there.
    """
    ends = _core.walk_frames(file.fileno(), reader.offset, start.pruned, 1)[1:2]
    if not ends:
        check_tail(file, path, start, reader)
    size = ends[0] - reader.offset if ends else MAX_RECORD_SIZE
    data = os.pread(file.fileno(), size, reader.offset)
    return [
        reader.offset + at
        for at in range(ENTRIES_AT, len(data), ENTRY_SIZE)
        if data[at + CMID_AT : at + CMID_AT + len(cmid)] == cmid
    ]
