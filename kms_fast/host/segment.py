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
from kms_fast.errors import ConfigurationError, LedgerError
from kms_fast.model.lease import BatchHeader

PAGE_SIZE: Final = 4096
FRAME: Final = struct.Struct("<I4s")
RECORD_MAGIC: Final = b"KFL1"
SEGMENT_MAGIC: Final = b"KFLEDGER"
HEADER_AT: Final = FRAME.size
ENTRIES_AT: Final = HEADER_AT + 180
ENTRY_SIZE: Final = 264
MAX_RECORD_SIZE: Final = ENTRIES_AT + 1024 * ENTRY_SIZE
SCAN_BYTES: Final = 1 << 20

SEGMENT_HEADS_CONTEXT: Final = b"kms_fast 1 segment heads"

_BLOCK = struct.Struct("<8sII16sHH")
_HEAD = struct.Struct("<IIQ32s")
_DIGEST_SIZE: Final = 32
_sync_data = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter
_ENDED: Final = 1


@dataclass(frozen=True, slots=True)
class Head:
    """A batch at which a segment is continued: its header's hash and time (ms).

    For a segment without a batch: what its first header would name as previous, and the newest time it continues.
    ``ended``: nobody wrote to the segment any more, so nothing follows this batch.
    """

    segment: int
    header_hash: bytes
    time_ms: int
    ended: bool

    def to_bytes(self) -> bytes:
        """The 48 bytes of docs/ledger.md."""
        return _HEAD.pack(self.segment, _ENDED if self.ended else 0, self.time_ms, self.header_hash)


@dataclass(frozen=True, slots=True)
class SegmentStart:
    """The first block of a segment: who writes it, under which certificates, and which segments it continues."""

    segment: int
    host_id: bytes
    certificates: bytes
    heads: tuple[Head, ...]

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
        """The newest time it continues, 0 when there is none."""
        return max((head.time_ms for head in self.heads), default=0)

    def to_bytes(self) -> bytes:
        """The block, a multiple of 4,096 bytes."""
        fields = _BLOCK.pack(SEGMENT_MAGIC, 1, self.segment, self.host_id, len(self.certificates), len(self.heads))
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
        _, version, segment, host_id, certificates_size, head_count = _BLOCK.unpack_from(body)
        if len(block) != _block_size(certificates_size, head_count) or hashlib.sha256(body).digest() != digest:
            raise LedgerError(f"The first block of {path} is damaged.", file=str(path))
        if version != 1:
            raise LedgerError(f"{path} has format {version}; this program reads format 1.", file=str(path))
        heads_at = _BLOCK.size + certificates_size
        heads = tuple(
            Head(segment, header_hash, time_ms, bool(flags & _ENDED))
            for segment, flags, time_ms, header_hash in _HEAD.iter_unpack(
                body[heads_at : heads_at + head_count * _HEAD.size]
            )
        )
        return cls(segment, host_id, body[_BLOCK.size : heads_at], heads)


def _block_size(certificates_size: int, head_count: int) -> int:
    size = _BLOCK.size + certificates_size + head_count * _HEAD.size + _DIGEST_SIZE
    return -(-size // PAGE_SIZE) * PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Record:
    """One batch as it lies in a segment: 8 bytes of frame, signed header, one entry of 264 bytes for each leaf."""

    offset: int
    data: bytes

    @property
    def signed_header(self) -> bytes:
        """Header and signature, 180 bytes."""
        return self.data[HEADER_AT:ENTRIES_AT]

    @property
    def header(self) -> BatchHeader:
        """The batch header, taken apart."""
        return BatchHeader.parse(self.data[HEADER_AT : HEADER_AT + 116])

    @property
    def entries(self) -> bytes:
        """The entries, 264 bytes each."""
        return self.data[ENTRIES_AT:]

    def is_whole(self) -> bool:
        """Whether the entries' leaves give the root that the header names."""
        try:
            header = self.header
        except ConfigurationError:
            return False
        size = len(self.entries) // ENTRY_SIZE
        return size == header.tree_size and _core.entries_root(self.entries) == header.root


def segment_path(folder: Path, segment: int) -> Path:
    """The file of a segment."""
    return folder / f"segment-{segment:08d}.kfl"


def list_segments(folder: Path) -> list[Path]:
    """The segment files of a ledger, in ascending number."""
    return sorted(folder.glob("segment-*.kfl"))


def read_start(file: BinaryIO, path: Path) -> SegmentStart:
    """The first block of an open segment file. Raises `LedgerError`, also when the file has another segment's name."""
    first = _read_at(file, 0, PAGE_SIZE)
    if len(first) == PAGE_SIZE:
        *_, certificates_size, head_count = _BLOCK.unpack_from(first)
        first = _read_at(file, 0, _block_size(certificates_size, head_count))
    start = SegmentStart.parse(first, path)
    if path != segment_path(path.parent, start.segment):
        raise LedgerError(f"{path} holds segment {start.segment}: it was renamed or copied.", file=str(path))
    return start


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


def read_records(file: BinaryIO, path: Path, offset: int) -> Iterator[Record]:
    """The records of an open segment file from ``offset`` on, the first at `SegmentStart.size`, each of them whole.

    Ends at preallocated zeros and at a last record that is cut short. Raises `LedgerError` when anything follows a
    record that is not whole.
    """
    number = 0
    while True:
        record = _read_record(file, offset)
        if record is None:
            if not _is_followed(file, offset):
                return
            # Its host may have been writing it just now.
            record = _read_record(file, offset)
            if record is None:
                raise LedgerError(
                    f"The record behind batch {number} of {path}, at byte {offset}, is damaged.",
                    file=str(path),
                    batch=number + 1,
                    offset=offset,
                )
        yield record
        number = record.header.number
        offset += len(record.data)


def is_torn(file: BinaryIO, offset: int) -> bool:
    """Whether a record that was cut short lies at ``offset``, behind the last whole one."""
    return bool(_read_at(file, offset, MAX_RECORD_SIZE).strip(b"\0"))


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _read_frame(file: BinaryIO, offset: int) -> int:
    """The size of the record that is framed at ``offset``, 0 when none is."""
    frame = _read_at(file, offset, FRAME.size)
    if len(frame) < FRAME.size:
        return 0
    size, magic = FRAME.unpack(frame)
    entries, rest = divmod(size - ENTRIES_AT, ENTRY_SIZE)
    return size if magic == RECORD_MAGIC and not rest and 1 <= entries <= 1024 else 0


def _read_record(file: BinaryIO, offset: int) -> Record | None:
    """The record at ``offset``, None when no whole one is there."""
    size = _read_frame(file, offset)
    record = Record(offset, _read_at(file, offset, size))
    return record if size and len(record.data) == size and record.is_whole() else None


def _is_followed(file: BinaryIO, offset: int) -> bool:
    """Whether there is more behind ``offset`` than one record that was cut short.

    Machine names and other words of clients cannot be taken for a record: the entries' leaves would have to give the
    root that its header names.
    """
    size = _read_frame(file, offset)
    if size and _read_frame(file, offset + size):
        return True
    at = offset + FRAME.size
    while len(chunk := _read_at(file, at, SCAN_BYTES)) >= len(RECORD_MAGIC):
        if chunk[max(0, offset + MAX_RECORD_SIZE - at) :].strip(b"\0"):
            return True
        found = chunk.find(RECORD_MAGIC)
        while found >= 0:
            if _read_record(file, at + found - 4):
                return True
            found = chunk.find(RECORD_MAGIC, found + 1)
        at += len(chunk) - len(RECORD_MAGIC) + 1
    return False


def find_head(path: Path) -> Head:
    """Where a segment ends now, put on disk: a new segment is about to continue it.

    Frames are followed and only the last records checked whole: each was synced before the next was written. Raises
    `LedgerError`, OSError.
    """
    with path.open("rb") as file:
        start = read_start(file, path)
        ended = not is_held(file)  # asked first: what is read below is then all there will ever be
        before = last = offset = start.size
        while size := _read_frame(file, offset):
            before, last, offset = last, offset, offset + size
        header_hash, time_ms = start.previous, start.time_ms
        for record in read_records(file, path, before):
            header_hash, time_ms = record.header.hash, record.header.time_ms
        if offset > start.size:
            _sync_data(file.fileno())
    return Head(start.segment, header_hash, time_ms, ended)
