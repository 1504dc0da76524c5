"""The format of a ledger segment (docs/ledger.md): its first block, its records, reading them back.

Nothing here writes; `kms_fast.host.ledger` does. A record that was cut short by a crash ends a segment: no client
ever heard of it, since its commit had not returned.
"""

import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from kms_fast import _core
from kms_fast.errors import LedgerError
from kms_fast.model.lease import HEADER_SIZE, BatchHeader

PAGE_SIZE: Final = 4096
FRAME: Final = struct.Struct("<I4s")
RECORD_MAGIC: Final = b"KFL1"
PRUNED_MAGIC: Final = b"KFH1"
SEGMENT_MAGIC: Final = b"KFLEDGER"
HEADER_AT: Final = FRAME.size
ENTRIES_AT: Final = HEADER_AT + 180
ENTRY_SIZE: Final = 264
CMID_AT: Final = 56
MAX_LEAVES: Final = 1024
MAX_RECORD_SIZE: Final = ENTRIES_AT + MAX_LEAVES * ENTRY_SIZE
END: Final = (1 << 63) - 1
UNKNOWN: Final = 0
# In place of a header's hash, where a head stands for no batch.
NO_BATCH: Final = bytes(32)
SCAN_BYTES: Final = 1 << 20
READ_RECORDS: Final = 64

SEGMENT_HEADS_CONTEXT: Final = b"kms_fast 1 segment heads"

_BLOCK = struct.Struct("<8sII16sHHI")
_PRUNED: Final = 1
_HEAD = struct.Struct("<IIQ32s")
_ENDED: Final = 1
_LOST: Final = 2
_RESET: Final = 4
_DIGEST_SIZE: Final = 32
sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter


@dataclass(frozen=True, slots=True)
class Head:
    """A batch at which a segment is continued: its header's hash and time (ms).

    For a segment without a batch: what its first header would name as previous, and the newest time it continues.
    ``ended``: nobody wrote to the segment any more, so nothing follows this batch. ``lost``: the batch is known from
    elsewhere and not in this ledger, which went back; an administrator accepted that. Of segment 0 (UNKNOWN): nobody
    knows what is lost. ``reset``: no batch but an administrator's word that time goes on from here (segment UNKNOWN).
    """

    segment: int
    header_hash: bytes
    time_ms: int
    ended: bool = False
    lost: bool = False
    reset: bool = False

    def to_bytes(self) -> bytes:
        """The 48 bytes of docs/ledger.md."""
        flags = (_ENDED * self.ended) | (_LOST * self.lost) | (_RESET * self.reset)
        return _HEAD.pack(self.segment, flags, self.time_ms, self.header_hash)


@dataclass(frozen=True, slots=True)
class SegmentStart:
    """The first block of a segment: who writes it, under which certificates, and which segments it continues.

    ``pruned``: its records were replaced by their signed headers.
    """

    segment: int
    host_id: bytes
    certificates: bytes
    heads: tuple[Head, ...]
    pruned: bool = False

    @property
    def size(self) -> int:
        """Bytes of the block, where the first record lies: as many whole pages as its certificates and heads need."""
        return _block_size(len(self.certificates), len(self.heads))

    @property
    def previous(self) -> bytes:
        """What the first batch header names as previous: the hash over the heads it continues."""
        return hashlib.sha256(SEGMENT_HEADS_CONTEXT + b"\0" + self._packed_heads()).digest()

    @property
    def time_ms(self) -> int:
        """The time to which the clock was reset, else the newest that it continues, 0 when there is none."""
        continued = [head for head in self.heads if head.reset] or self.heads
        return max((head.time_ms for head in continued), default=0)

    def to_bytes(self) -> bytes:
        """The block, a multiple of 4,096 bytes."""
        sizes = len(self.certificates), len(self.heads)
        fields = _BLOCK.pack(SEGMENT_MAGIC, 1, self.segment, self.host_id, *sizes, _PRUNED if self.pruned else 0)
        body = (fields + self.certificates + self._packed_heads()).ljust(self.size - _DIGEST_SIZE, b"\0")
        return body + hashlib.sha256(body).digest()

    def _packed_heads(self) -> bytes:
        return b"".join(head.to_bytes() for head in self.heads)

    @classmethod
    def parse(cls, block: bytes, path: Path) -> "SegmentStart":
        """Take a first block apart. Raises `LedgerError` for another format and for damage."""
        if len(block) < PAGE_SIZE or block[:8] != SEGMENT_MAGIC:
            raise LedgerError(f"{path} is not a ledger segment.", file=str(path))
        body, digest = block[:-_DIGEST_SIZE], block[-_DIGEST_SIZE:]
        _, version, segment, host_id, certificates_size, head_count, flags = _BLOCK.unpack_from(body)
        if len(block) != _block_size(certificates_size, head_count) or hashlib.sha256(body).digest() != digest:
            raise LedgerError(f"The first block of {path} is damaged.", file=str(path))
        if version != 1:
            raise LedgerError(f"{path} has format {version}; this program reads format 1.", file=str(path))
        heads_at = _BLOCK.size + certificates_size
        heads = tuple(
            Head(
                number,
                header_hash,
                time_ms,
                ended=bool(head_flags & _ENDED),
                lost=bool(head_flags & _LOST),
                reset=bool(head_flags & _RESET),
            )
            for number, head_flags, time_ms, header_hash in _HEAD.iter_unpack(
                body[heads_at : heads_at + head_count * _HEAD.size]
            )
        )
        return cls(segment, host_id, body[_BLOCK.size : heads_at], heads, bool(flags & _PRUNED))


def _block_size(certificates_size: int, head_count: int) -> int:
    size = _BLOCK.size + certificates_size + head_count * _HEAD.size + _DIGEST_SIZE
    return -(-size // PAGE_SIZE) * PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Record:
    """One batch as it lies in a segment: 8 bytes of frame, signed header, one entry of 264 bytes for each leaf.

    A pruned record has no entries.
    """

    offset: int
    data: bytes

    @property
    def signed_header(self) -> bytes:
        """Header and signature, 180 bytes."""
        return self.data[HEADER_AT:ENTRIES_AT]

    @property
    def header(self) -> BatchHeader:
        """The batch header, taken apart."""
        return BatchHeader.parse(self.data[HEADER_AT : HEADER_AT + HEADER_SIZE])

    @property
    def entries(self) -> bytes:
        """The entries, 264 bytes each."""
        return self.data[ENTRIES_AT:]


def segment_path(folder: Path, segment: int) -> Path:
    """The file of a segment."""
    return folder / f"segment-{segment:08d}.kfl"


def list_segments(folder: Path) -> list[Path]:
    """The segment files of a ledger, in ascending number."""
    # A number above eight digits makes a longer name.
    return sorted(folder.glob("segment-*.kfl"), key=lambda path: (len(path.name), path.name))


def read_start(file: BinaryIO, path: Path) -> SegmentStart:
    """The first block of an open segment file. Raises `LedgerError`, also when the file has another segment's name."""
    first = _read_at(file, 0, PAGE_SIZE)
    if len(first) == PAGE_SIZE:
        *_, certificates_size, head_count, _ = _BLOCK.unpack_from(first)
        first = _read_at(file, 0, _block_size(certificates_size, head_count))
    start = SegmentStart.parse(first, path)
    if path != segment_path(path.parent, start.segment):
        raise LedgerError(f"{path} holds segment {start.segment}: it was renamed or copied.", file=str(path))
    return start


def read_start_of(path: Path) -> SegmentStart:
    """The first block of a segment file. Raises `LedgerError`, OSError."""
    with path.open("rb") as file:
        return read_start(file, path)


def is_held(file: BinaryIO) -> bool:
    """Whether a host holds the segment and may write more; once false, it is never written again.

    Asks for a shared lock, so that those who ask do not take each other for the host. Raises OSError.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def read_records(file: BinaryIO, path: Path, start: SegmentStart, offset: int | None = None) -> Iterator[Record]:
    """The whole records of an open segment file, from the first one or ``offset`` on.

    Ends at preallocated zeros and at a last record that is cut short. Raises `LedgerError` when anything follows a
    record that is not whole, OSError.
    """
    held = is_held(file)  # asked first: when it is not, what is read below is all there will ever be
    reader = _core.RecordReader(file.fileno(), start.size if offset is None else offset, start.pruned)
    at = reader.offset
    while records := reader.read(READ_RECORDS):
        for data in records:
            yield Record(at, data)
            at += len(data)
    if not held:
        check_tail(file, path, start, reader)


def check_tail(file: BinaryIO, path: Path, start: SegmentStart, reader: _core.RecordReader) -> bool:
    """Whether a record that was cut short lies where the reader of an ended segment ended.

    Raises `LedgerError` when more lies there: then a record in the middle is damaged.
    """
    offset = reader.offset
    if start.pruned:
        followed = torn = bool(_read_at(file, offset, 1))
    else:
        followed = _is_followed(file, offset)
        torn = not _is_zero(_read_at(file, offset, MAX_RECORD_SIZE))
    if followed:
        raise LedgerError(
            f"The record behind batch {reader.number} of {path}, at byte {offset}, is damaged.",
            file=str(path),
            segment=start.segment,
            batch=f"{start.segment}/{reader.number + 1}",
            offset=offset,
        )
    return torn


def read_last(file: BinaryIO, start: SegmentStart) -> tuple[_core.RecordReader, bytes]:
    """A reader that stands behind the last whole record, and that record's header, b"" when there is none.

    Frames are followed and only the last records checked whole: each was synced before the next was written. Raises
    OSError.
    """
    cuts = _core.walk_frames(file.fileno(), start.size, start.pruned, READ_RECORDS)
    reader = _core.RecordReader(file.fileno(), cuts[-3:][0], start.pruned)
    last = b""
    while headers := reader.read_headers(READ_RECORDS, END):
        last = headers[-1][:HEADER_SIZE]
    return reader, last


def read_end(file: BinaryIO, path: Path, start: SegmentStart) -> tuple[_core.RecordReader, bytes, bool]:
    """As `read_last`, and whether the segment has ended: then nothing but a record that was cut short may follow.

    Raises `LedgerError` when more does, OSError.
    """
    ended = not is_held(file)  # asked first: when it has, what is read below is all there will ever be
    reader, last = read_last(file, start)
    if ended:
        check_tail(file, path, start, reader)
    return reader, last, ended


def hash_header(signed: bytes) -> bytes:
    """SHA-256 of a batch header, by which others name the batch; of a signed header without its signature."""
    return hashlib.sha256(signed[:HEADER_SIZE]).digest()


def find_head(path: Path) -> Head:
    """Where a segment ends now, put on disk: a new segment is about to continue it. Raises `LedgerError`, OSError."""
    with path.open("rb") as file:
        start = read_start(file, path)
        _, last, ended = read_end(file, path, start)
        if not last:
            return Head(start.segment, start.previous, start.time_ms, ended)
        sync_data(file.fileno())
    header = BatchHeader.parse(last)
    return Head(start.segment, header.hash, header.time_ms, ended)


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _is_followed(file: BinaryIO, offset: int) -> bool:
    """Whether there is more behind ``offset`` than one record that was cut short.

    Machine names and other words of clients cannot be taken for a record: the entries' leaves would have to give the
    root that its header names.
    """
    if len(_core.walk_frames(file.fileno(), offset, False, 1)) > 2:
        return True
    at = offset + FRAME.size
    while len(chunk := _read_at(file, at, SCAN_BYTES)) >= len(RECORD_MAGIC):
        if not _is_zero(chunk[max(0, offset + MAX_RECORD_SIZE - at) :]):
            return True
        found = chunk.find(RECORD_MAGIC)
        while found >= 0:
            if _core.RecordReader(file.fileno(), at + found - 4).read(1):
                return True
            found = chunk.find(RECORD_MAGIC, found + 1)
        at += len(chunk) - len(RECORD_MAGIC) + 1
    return False


def _is_zero(data: bytes) -> bool:
    return data == bytes(len(data))
