"""The format of a ledger segment (docs/ledger.md): its first block, its records, reading them back.

Nothing here writes; `kms_fast.host.ledger` does. A record that was cut short by a crash ends a segment: no client
ever heard of it, since its commit had not returned.
"""

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from kms_fast import _core
from kms_fast.errors import ConfigurationError, LedgerError
from kms_fast.model.lease import BatchHeader

BLOCK_SIZE: Final = 4096
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
_HEAD = struct.Struct("<I32s")
MAX_HEADS: Final = 100


@dataclass(frozen=True, slots=True)
class Head:
    """Where a segment ends: the hash of its last batch header, or of what it continues when it has no batch."""

    segment: int
    header_hash: bytes


@dataclass(frozen=True, slots=True)
class SegmentStart:
    """The first block of a segment: who writes it, under which certificates, and which segments it continues."""

    segment: int
    host_id: bytes
    certificates: bytes
    heads: tuple[Head, ...]

    @property
    def previous(self) -> bytes:
        """What the first batch header names as previous: the hash over the heads it continues."""
        return _hash_heads(self.heads)

    def to_bytes(self) -> bytes:
        """The block, 4,096 bytes. Raises `LedgerError` when it continues more segments than fit."""
        if len(self.heads) > MAX_HEADS:
            raise LedgerError(f"A segment continues at most {MAX_HEADS} others, not {len(self.heads)}.")
        fields = _BLOCK.pack(SEGMENT_MAGIC, 1, self.segment, self.host_id, len(self.certificates), len(self.heads))
        heads = b"".join(_HEAD.pack(head.segment, head.header_hash) for head in self.heads)
        body = (fields + self.certificates + heads).ljust(BLOCK_SIZE - 32, b"\0")
        return body + hashlib.sha256(body).digest()

    @classmethod
    def parse(cls, block: bytes, path: Path) -> "SegmentStart":
        """Take a first block apart. Raises `LedgerError` for another format and for damage."""
        if len(block) != BLOCK_SIZE or block[:8] != SEGMENT_MAGIC:
            raise LedgerError(f"{path} is not a ledger segment.", file=str(path))
        body, digest = block[:-32], block[-32:]
        if hashlib.sha256(body).digest() != digest:
            raise LedgerError(f"The first block of {path} is damaged.", file=str(path))
        _, version, segment, host_id, certificates_size, head_count = _BLOCK.unpack_from(body)
        if version != 1:
            raise LedgerError(f"{path} has format {version}; this program reads format 1.", file=str(path))
        heads_at = _BLOCK.size + certificates_size
        heads_end = heads_at + head_count * _HEAD.size
        heads = tuple(Head(*values) for values in _HEAD.iter_unpack(body[heads_at:heads_end]))
        return cls(segment, host_id, body[_BLOCK.size : heads_at], heads)


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
    start = SegmentStart.parse(_read_at(file, 0, BLOCK_SIZE), path)
    if path != segment_path(path.parent, start.segment):
        raise LedgerError(f"{path} holds segment {start.segment}: it was renamed or copied.", file=str(path))
    return start


def read_records(file: BinaryIO, path: Path, offset: int = BLOCK_SIZE) -> Iterator[Record]:
    """The records of an open segment file from ``offset`` on, each of them whole.

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


@dataclass(frozen=True, slots=True)
class SegmentEnd:
    """Where a segment ends: its head, and the time of its last header (ms; 0 when it has no batch)."""

    start: SegmentStart
    head: Head
    time_ms: int


def find_end(path: Path) -> SegmentEnd:
    """Find where a segment ends, and put all of it on disk: a new segment is about to continue it.

    Frames are followed and only the last records checked whole: each was synced before the next was written. Raises
    `LedgerError`, OSError.
    """
    with path.open("rb") as file:
        start = read_start(file, path)
        before = last = offset = BLOCK_SIZE
        while size := _read_frame(file, offset):
            before, last, offset = last, offset, offset + size
        header = None
        for record in read_records(file, path, before):
            header = record.header
        os.fsync(file.fileno())
    if header is None:
        return SegmentEnd(start, Head(start.segment, start.previous), 0)
    return SegmentEnd(start, Head(start.segment, header.hash), header.time_ms)


def _hash_heads(heads: Sequence[Head]) -> bytes:
    listed = b"".join(_HEAD.pack(head.segment, head.header_hash) for head in heads)
    return hashlib.sha256(SEGMENT_HEADS_CONTEXT + b"\0" + listed).digest()
