"""docs/ledger.md: the segments of a ledger, read back and checked."""

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Self

from tests.reference.answer import HEADER_CONTEXT, Header, Leaf
from tests.reference.certificate import HOST_CONTEXT, ISSUER_SIZE, RIGHT_HOSTS, HostCertificate, Issuer, issuer_problem
from tests.reference.crypto import sha256, signature_is_valid
from tests.reference.merkle import root
from tests.reference.verify import Rejected, check_bounds

PAGE = 4096
BLOCK = struct.Struct("<8sII16sHHI")
HEAD = struct.Struct("<IIQ32s")
FRAME = struct.Struct("<I4s")
ENTRIES_AT, ENTRY_SIZE, LEAF_SIZE = 188, 264, 118
HEADS_CONTEXT = b"kms_fast 1 segment heads"


class Wrong(Exception):
    """A ledger that docs/ledger.md does not allow."""


class Head(NamedTuple):
    """Where an earlier segment is continued."""

    segment: int
    flags: int
    time: int
    header_hash: bytes


class Start(NamedTuple):
    """A segment's first block, how many bytes it has, and whether its records were pruned."""

    segment: int
    host_id: bytes
    certificate: bytes
    issuer: bytes
    heads: tuple[Head, ...]
    size: int
    pruned: bool

    @property
    def previous(self) -> bytes:
        """What the first header names."""
        return sha256(HEADS_CONTEXT, b"\0", *(HEAD.pack(*head) for head in self.heads))

    @property
    def time(self) -> int:
        """Below which no batch of the segment may be."""
        resets = [head.time for head in self.heads if head.flags & 4]
        return max(resets or [head.time for head in self.heads], default=0)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises Wrong."""
        if len(data) < PAGE:
            raise Wrong("shorter than a first block")
        magic, version, segment, host_id, certificates_size, count, flags = BLOCK.unpack_from(data)
        heads_at = BLOCK.size + certificates_size
        size = -(-(heads_at + HEAD.size * count + 32) // PAGE) * PAGE
        if (magic, version) != (b"KFLEDGER", 1) or sha256(data[: size - 32]) != data[size - 32 : size]:
            raise Wrong("the first block is damaged")
        certificates = data[BLOCK.size : heads_at]
        heads = HEAD.iter_unpack(data[heads_at : heads_at + HEAD.size * count])
        return cls(
            segment, host_id, certificates[:-ISSUER_SIZE], certificates[-ISSUER_SIZE:],
            tuple(Head(*fields) for fields in heads), size, bool(flags & 1),
        )  # fmt: skip


class Record(NamedTuple):
    """One batch: its header's bytes and fields, its signature, and its leaves' bytes, none when it was pruned."""

    header_bytes: bytes
    header: Header
    signature: bytes
    leaves: tuple[bytes, ...]


@lru_cache(maxsize=1 << 14)
def parse_record(data: bytes, pruned: bool) -> Record | None:
    """A record that is whole, else None."""
    if len(data) < ENTRIES_AT + (0 if pruned else ENTRY_SIZE) or data[8:10] != b"\1\1":
        return None
    header = Header.parse(data[8:124])
    leaves = tuple(data[at : at + LEAF_SIZE] for at in range(ENTRIES_AT, len(data), ENTRY_SIZE))
    if not pruned and (header.tree_size != len(leaves) or root(leaves) != header.root):
        return None
    return Record(data[8:124], header, data[124:188], leaves)


def read_records(data: bytes, start: Start) -> Iterator[Record]:
    """The records of a segment up to the first place where no whole one lies."""
    at, expected = start.size, b"KFH1" if start.pruned else b"KFL1"
    while len(data) >= at + FRAME.size:
        size, magic = FRAME.unpack_from(data, at)
        record = (
            parse_record(data[at : at + size], start.pruned) if magic == expected and at + size <= len(data) else None
        )
        if record is None:
            return
        yield record
        at += size


class Segment(NamedTuple):
    """A segment whose signatures, numbers, times and bounds are right."""

    start: Start
    records: tuple[Record, ...]

    def times(self) -> dict[bytes, int]:
        """Every hash at which a later segment may continue this one, in order, and the time there."""
        return {self.start.previous: self.start.time} | {
            sha256(record.header_bytes): record.header.time for record in self.records
        }


@lru_cache(maxsize=1 << 14)
def is_signed(public_key: bytes, record: Record) -> bool:
    """Whether the batch's signature is that of the host."""
    return signature_is_valid(public_key, record.signature, HEADER_CONTEXT, record.header_bytes)


@lru_cache(maxsize=1 << 10)
def check_certificates(start: Start, roots: tuple[bytes, ...], publisher_id: bytes) -> HostCertificate:
    """The host certificate of a segment. Raises Wrong."""
    certificate, issuer = HostCertificate.parse(start.certificate), Issuer.parse(start.issuer)
    problem = issuer_problem(start.issuer, roots, publisher_id, RIGHT_HOSTS, certificate.not_before)
    body, signature = start.certificate[:-64], start.certificate[-64:]
    if problem or not signature_is_valid(issuer.public_key, signature, HOST_CONTEXT, body):
        raise Wrong(f"the certificates do not verify: {problem or 'signature'}")
    if certificate.host_id != start.host_id:
        raise Wrong("the certificate is another host's")
    return certificate


def check_segment(data: bytes, roots: tuple[bytes, ...], publisher_id: bytes) -> Segment:
    """A segment by itself. Raises Wrong."""
    start = Start.parse(data)
    certificate = check_certificates(start, roots, publisher_id)
    records = tuple(read_records(data, start))
    previous, time = start.previous, start.time
    for number, record in enumerate(records, 1):
        header = record.header
        if (header.segment, header.number, header.previous) != (start.segment, number, previous):
            raise Wrong(f"batch {number} of segment {start.segment} does not follow the one before")
        if (header.host_id, header.serial) != (certificate.host_id, certificate.serial):
            raise Wrong(f"batch {number} of segment {start.segment} is of another certificate")
        if not is_signed(certificate.public_key, record):
            raise Wrong(f"the signature of batch {number} of segment {start.segment} does not verify")
        if not max(time, certificate.not_before) <= header.time <= certificate.not_after:
            raise Wrong(f"the time of batch {number} of segment {start.segment} goes back, or is not the certificate's")
        check_leases(record, certificate)
        previous, time = sha256(record.header_bytes), header.time
    return Segment(start, records)


@lru_cache(maxsize=1 << 14)
def check_leases(record: Record, certificate: HostCertificate) -> None:
    """The bounds of every grant in a batch. Raises Wrong."""
    for leaf in map(Leaf.parse, record.leaves):
        if leaf.result == 0:
            try:
                check_bounds(leaf, certificate.families[leaf.family_index])
            except (Rejected, IndexError) as error:
                raise Wrong(f"a lease in batch {record.header.number} of {record.header.segment}: {error}") from error


def check_ledger(folder: Path, roots: Sequence[bytes], publisher_id: bytes) -> list[Segment]:
    """Every segment, and that each continues what is there. Raises Wrong."""
    segments = []
    for path in sorted(folder.glob("segment-*.kfl")):
        segment = check_segment(path.read_bytes(), tuple(roots), publisher_id)
        if path.name != f"segment-{segment.start.segment:08d}.kfl":
            raise Wrong(f"{path.name} holds segment {segment.start.segment}")
        segments.append(segment)
    times = {segment.start.segment: segment.times() for segment in segments}
    lost = {head.segment for segment in segments for head in segment.start.heads if head.flags & 2}
    for segment in segments:
        for head in segment.start.heads:
            there = times.get(head.segment, {})
            if head.flags & 6 or (head.segment in lost and head.header_hash not in there):
                continue
            if there.get(head.header_hash) != head.time:
                raise Wrong(f"segment {segment.start.segment} continues {head.segment} at a batch that is not there")
            if head.flags & 1 and list(there)[-1] != head.header_hash:
                raise Wrong(f"segment {head.segment} goes on after segment {segment.start.segment} took it as ended")
    if len({segment.start.host_id for segment in segments}) > 1:
        raise Wrong("segments of several hosts")
    return segments
