"""Leaves, batch headers and whole answers as values, for cold callers: status pages, ledger commands, tests.

The hot path reads the same layouts in the core (docs/protocol.md, "Answer"). Parsing verifies nothing.
"""

import hashlib
import struct
import uuid
from dataclasses import dataclass
from typing import Final

from kms_fast.model.certificate import HostCertificate, IssuerCertificate, parse_chain
from kms_fast.model.document import malformed
from kms_fast.model.signing import SIGNATURE_SIZE

LEAF_SIZE: Final = 118
HEADER_SIZE: Final = 116
MAX_PATH: Final = 10

_LEAF = struct.Struct("<BBBBI32s16s16s16sQHIIIII")
_HEADER = struct.Struct("<BBHIQQ16sQI32s32s")
_ANSWER = struct.Struct("<BBHBB16s118s")


@dataclass(frozen=True, slots=True)
class Leaf:
    """One decision: who asked for what, and what was granted. With result 0 it is a lease."""

    family_index: int
    result: int
    request_hash: bytes
    sku_id: bytes
    cmid: bytes
    hardware_digest: bytes
    client_time_ms: int
    generation: int
    validity_min: int
    activation_interval_min: int
    renewal_interval_min: int
    count: int
    threshold: int

    @classmethod
    def parse(cls, data: bytes) -> "Leaf":
        """Take 118 bytes apart; raises `ConfigurationError` (OFFLINE_DATA_MALFORMED)."""
        if len(data) != LEAF_SIZE:
            raise malformed(f"A leaf has {LEAF_SIZE} bytes, not {len(data)}.")
        version, kind, family_index, reserved, *fields = _LEAF.unpack(data)
        if (version, kind, reserved) != (1, 1, 0):
            raise malformed("The leaf is of another version or type.")
        return cls(family_index, *fields)

    def to_bytes(self) -> bytes:
        """The 118 bytes of the leaf."""
        return _LEAF.pack(
            1,
            1,
            self.family_index,
            0,
            self.result,
            self.request_hash,
            self.sku_id,
            self.cmid,
            self.hardware_digest,
            self.client_time_ms,
            self.generation,
            self.validity_min,
            self.activation_interval_min,
            self.renewal_interval_min,
            self.count,
            self.threshold,
        )

    @property
    def machine(self) -> uuid.UUID:
        """The CMID as a UUID."""
        return uuid.UUID(bytes=self.cmid)

    @property
    def sku(self) -> uuid.UUID:
        """The SKU ID as a UUID."""
        return uuid.UUID(bytes=self.sku_id)

    @property
    def hash(self) -> bytes:
        """The leaf hash, SHA-256(0x00 ‖ leaf) (RFC 9162 §2.1.1)."""
        return hashlib.sha256(b"\0" + self.to_bytes()).digest()


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """What a host signs once for all requests of a batch."""

    tree_size: int
    segment: int
    number: int
    time_ms: int
    host_id: bytes
    certificate_serial: int
    revocations_number: int
    previous: bytes
    root: bytes

    @classmethod
    def parse(cls, data: bytes) -> "BatchHeader":
        """Take 116 bytes apart; raises `ConfigurationError` (OFFLINE_DATA_MALFORMED)."""
        if len(data) != HEADER_SIZE:
            raise malformed(f"A batch header has {HEADER_SIZE} bytes, not {len(data)}.")
        version, kind, *fields = _HEADER.unpack(data)
        if (version, kind) != (1, 1):
            raise malformed("The batch header is of another version or type.")
        return cls(*fields)

    def to_bytes(self) -> bytes:
        """The 116 bytes that the host signs."""
        return _HEADER.pack(
            1,
            1,
            self.tree_size,
            self.segment,
            self.number,
            self.time_ms,
            self.host_id,
            self.certificate_serial,
            self.revocations_number,
            self.previous,
            self.root,
        )

    @property
    def hash(self) -> bytes:
        """The header hash, SHA-256 of the 116 bytes."""
        return hashlib.sha256(self.to_bytes()).digest()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer taken apart; the leaf stays sealed."""

    index: int
    siv_tag: bytes
    sealed_leaf: bytes
    path: tuple[bytes, ...]
    header: BatchHeader
    header_signature: bytes
    host_certificate: HostCertificate
    issuer_certificate: IssuerCertificate

    @classmethod
    def parse(cls, data: bytes) -> "Answer":
        """Take 644 to 1,048 bytes apart; raises `ConfigurationError` (OFFLINE_DATA_MALFORMED)."""
        if len(data) < _ANSWER.size:
            raise malformed("The answer is too short.")
        version, kind, index, count, reserved, siv_tag, sealed_leaf = _ANSWER.unpack_from(data)
        header_at = _ANSWER.size + 32 * count
        signature_at = header_at + HEADER_SIZE
        chain_at = signature_at + SIGNATURE_SIZE
        if (version, kind, reserved) != (1, 2, 0) or count > MAX_PATH or len(data) < chain_at:
            raise malformed("The answer is of another version or type, or its length is wrong.")
        path = tuple(data[at : at + 32] for at in range(_ANSWER.size, header_at, 32))
        header = BatchHeader.parse(data[header_at:signature_at])
        return cls(
            index, siv_tag, sealed_leaf, path, header, data[signature_at:chain_at], *parse_chain(data[chain_at:])
        )
