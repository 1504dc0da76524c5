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
from kms_fast.errors import LedgerError
from kms_fast.model.lease import BatchHeader

BLOCK_SIZE: Final = 4096
FRAME: Final = struct.Struct("<I4s")
RECORD_MAGIC: Final = b"KFL1"
SEGMENT_MAGIC: Final = b"KFLEDGER"
HEADER_AT: Final = FRAME.size
ENTRIES_AT: Final = HEADER_AT + 180
ENTRY_SIZE: Final = 264
MAX_RECORD_SIZE: Final = ENTRIES_AT + 1024 * ENTRY_SIZE

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
        size = len(self.entries) // ENTRY_SIZE
        return size == self.header.tree_size and _core.entries_root(self.entries) == self.header.root


def segment_path(folder: Path, segment: int) -> Path:
    """The file of a segment."""
    return folder / f"segment-{segment:08d}.kfl"


def list_segments(folder: Path) -> list[Path]:
    """The segment files of a ledger, in ascending number."""
    return sorted(folder.glob("segment-*.kfl"))


def read_start(file: BinaryIO, path: Path) -> SegmentStart:
    """The first block of an open segment file; leaves the file at its first record."""
    file.seek(0)
    return SegmentStart.parse(file.read(BLOCK_SIZE), path)


def walk_frames(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Offset and size of each framed record from the file's position on.

    Ends at preallocated zeros, at the end of the file, and at a record that is cut short.
    """
    offset = file.tell()
    end = file.seek(0, os.SEEK_END)
    while offset + FRAME.size <= end:
        file.seek(offset)
        size, magic = FRAME.unpack(file.read(FRAME.size))
        entries, rest = divmod(size - ENTRIES_AT, ENTRY_SIZE)
        if magic != RECORD_MAGIC or rest or not 1 <= entries <= 1024 or offset + size > end:
            return
        yield offset, size
        offset += size


def read_records(file: BinaryIO) -> Iterator[Record]:
    """The framed records from the file's position on; whether each is whole is for the caller to ask."""
    for offset, size in walk_frames(file):
        file.seek(offset)
        yield Record(offset, file.read(size))


@dataclass(frozen=True, slots=True)
class SegmentEnd:
    """Where a segment ends: its head, the time of its last header (ms; 0 when it has no batch), its used size in
    bytes.
    """

    start: SegmentStart
    head: Head
    time_ms: int
    used_bytes: int


def find_end(path: Path) -> SegmentEnd:
    """Find the end of a segment that nobody writes.

    Only the last record is checked whole: those before it were synced before it was written.
    """
    with path.open("rb") as file:
        start = read_start(file, path)
        frames = list(walk_frames(file))
        for offset, size in reversed(frames[-2:]):
            file.seek(offset)
            record = Record(offset, file.read(size))
            if record.is_whole():
                head = Head(start.segment, record.header.hash)
                return SegmentEnd(start, head, record.header.time_ms, offset + size)
    if len(frames) > 1:
        raise LedgerError(f"The last two records of {path} are damaged.", file=str(path))
    return SegmentEnd(start, Head(start.segment, start.previous), 0, BLOCK_SIZE)


def _hash_heads(heads: Sequence[Head]) -> bytes:
    listed = b"".join(_HEAD.pack(head.segment, head.header_hash) for head in heads)
    return hashlib.sha256(SEGMENT_HEADS_CONTEXT + b"\0" + listed).digest()
