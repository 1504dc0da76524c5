"""Ledger segments of machines that nobody asked for: whole records in a chain, with nothing but the signatures missing.

with SegmentWriter(folder, 1) as segment:            # holds the segment's lock, as a host does
    segment.append([make_entry(cmid), ...], time_ms)
"""

import fcntl
import hashlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from kms_fast import _core
from kms_fast.host.segment import SegmentStart, segment_path

HOST_ID = b"H" * 16
SKU = b"S" * 16
REFUSED = 0xC004F038
VALIDITY_MIN = 259_200
PREALLOCATED = 1 << 20

_LEAF = struct.Struct("<BBBBI32s16s16s16sQHIIIII")
_BEHIND_NAME = struct.Struct("<16s32sIIIBB16sHH")
_HEADER = struct.Struct("<BBHIQQ16sQI32s32s")


def make_entry(
    cmid: bytes,
    *,
    sku: bytes = SKU,
    result: int = 0,
    hardware: bytes = b"w" * 16,
    validity_min: int = VALIDITY_MIN,
    name: bytes = b"desk",
    previous_cmid: bytes = bytes(16),
    predecessor: bytes = bytes(32),
    state: int = 2,
    virtual: int = 0,
    library_version: int = 1 << 24,
    peer: bytes = bytes(10) + b"\xff\xff\xc0\x00\x02\x07",
) -> bytes:
    """The 264 bytes of an entry (docs/ledger.md)."""
    leaf = _LEAF.pack(1, 1, 0, 0, result, bytes(32), sku, cmid, hardware, 0, 1, validity_min, 120, 10_080, 50, 25)
    behind = _BEHIND_NAME.pack(previous_cmid, predecessor, 100, 0, library_version, state, virtual, peer, 40_000, 0)
    return leaf + name.ljust(64, b"\0") + behind


def hash_said(entry: bytes) -> bytes:
    """8 bytes that stand for what a machine says of itself in an entry, and its state (docs/inventory.md)."""
    granted = entry[4:8] == bytes(4)
    said = bytes([1 if granted else entry[242], entry[243]]) + entry[238:242] + entry[244:260]
    return hashlib.sha256(said + entry[72:88] + entry[182:198] + entry[118:182]).digest()[:8]


def make_record(
    entries: Sequence[bytes], *, segment: int, number: int, previous: bytes, time_ms: int
) -> tuple[bytes, bytes]:
    """A record, and the hash of its header."""
    body = b"".join(entries)
    root = _core.entries_root(body)
    header = _HEADER.pack(1, 1, len(entries), segment, number, time_ms, HOST_ID, 1, 0, previous, root)
    return struct.pack("<I4s", 188 + len(body), b"KFL1") + header + bytes(64) + body, hashlib.sha256(header).digest()


class SegmentWriter:
    """Writes a new segment, and holds its lock until `end` or `crash`."""

    def __init__(self, folder: Path, segment: int, *, host_id: bytes = HOST_ID) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        start = SegmentStart(segment, host_id, b"", ())
        self.path = segment_path(folder, segment)
        self.segment = segment
        self.number = 0
        self.header_hash = start.previous
        self.offsets: list[int] = []
        self.size = start.size
        self._fd = os.open(self.path.with_suffix(".new"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        os.pwrite(self._fd, start.to_bytes(), 0)
        os.posix_fallocate(self._fd, start.size, PREALLOCATED)
        self.path.with_suffix(".new").rename(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def append(self, entries: Sequence[bytes], time_ms: int) -> None:
        """One more batch."""
        self.number += 1
        record, self.header_hash = make_record(
            entries, segment=self.segment, number=self.number, previous=self.header_hash, time_ms=time_ms
        )
        self.write(record)

    def write(self, record: bytes) -> None:
        """Bytes behind the last record, whatever they are."""
        os.pwrite(self._fd, record, self.size)
        self.offsets.append(self.size)
        self.size += len(record)

    def end(self) -> None:
        """An orderly end: what was preallocated and not used is cut off."""
        if self._fd >= 0:
            os.ftruncate(self._fd, self.size)
            self.crash()

    def crash(self) -> None:
        """The end of a host that was killed: zeros stay behind the last record."""
        os.close(self._fd)
        self._fd = -1
