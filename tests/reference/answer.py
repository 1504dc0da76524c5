"""docs/protocol.md, "Answer", "Leaf" and "Batch header"."""

import struct
from collections.abc import Sequence
from typing import NamedTuple, Self

from tests.reference.certificate import ISSUER_SIZE
from tests.reference.crypto import open_sealed, seal, sha256

LEAF = struct.Struct("<BBBBI32s16s16s16sQHIIIII")
HEADER = struct.Struct("<BBHIQQ16sQI32s32s")
PREFIX = struct.Struct("<BBHBB16s118s")
HEADER_CONTEXT = b"kms_fast 1 batch header"


class Malformed(Exception):
    """An answer that fails step 1."""


class Leaf(NamedTuple):
    """A decision: 118 bytes."""

    version: int
    leaf_type: int
    family_index: int
    reserved: int
    result: int
    request_hash: bytes
    sku_id: bytes
    cmid: bytes
    hardware_digest: bytes
    client_time: int
    generation: int
    validity: int
    activation_interval: int
    renewal_interval: int
    current_count: int
    threshold: int

    def to_bytes(self) -> bytes:
        return LEAF.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        return cls(*LEAF.unpack(data))


class Header(NamedTuple):
    """A batch header without its signature: 116 bytes."""

    version: int
    header_type: int
    tree_size: int
    segment: int
    number: int
    time: int
    host_id: bytes
    serial: int
    revocation_list: int
    previous: bytes
    root: bytes

    def to_bytes(self) -> bytes:
        return HEADER.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        return cls(*HEADER.unpack(data))


class Answer(NamedTuple):
    """The parts of an answer's bytes."""

    leaf_index: int
    sealed: bytes
    path: tuple[bytes, ...]
    header: bytes
    header_signature: bytes
    certificate: bytes
    issuer: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Splits an answer. Raises Malformed: step 1 of "What a client checks"."""
        if len(data) < PREFIX.size:
            raise Malformed("shorter than its fixed part")
        version, message_type, index, nodes, reserved, tag, leaf = PREFIX.unpack(data[: PREFIX.size])
        if version != 1 or message_type != 2 or reserved != 0 or nodes > 10:
            raise Malformed("answer's version, type, reserved byte or number of path nodes")
        header, certificate = 140 + 32 * nodes, 320 + 32 * nodes
        if len(data) < certificate + 4:
            raise Malformed("ends before its host certificate")
        families = data[certificate + 2]
        issuer = certificate + 168 + 12 * families
        if not 1 <= families <= 8 or len(data) != issuer + ISSUER_SIZE:
            raise Malformed("bytes are missing or left over")
        if data[header : header + 2] != b"\1\1":
            raise Malformed("header's version or type")
        if data[certificate] != 1 or data[certificate + 3] != 0 or data[issuer] != 1:
            raise Malformed("a certificate's version or reserved byte")
        path = tuple(data[at : at + 32] for at in range(140, header, 32))
        signature = data[header + 116 : certificate]
        return cls(
            index, tag + leaf, path, data[header : header + 116], signature, data[certificate:issuer], data[issuer:]
        )


def build_answer(
    answer_key: bytes, leaf: bytes, index: int, path: Sequence[bytes], signed_header: bytes, certificates: bytes
) -> bytes:
    """An answer from a leaf, its path, the header with its signature, and host certificate ‖ issuer certificate."""
    sealed = seal_leaf(answer_key, leaf, signed_header[:116])
    prefix = PREFIX.pack(1, 2, index, len(path), 0, sealed[:16], sealed[16:])
    return prefix + b"".join(path) + signed_header + certificates


def seal_leaf(answer_key: bytes, leaf: bytes, header: bytes) -> bytes:
    """tag ‖ sealed leaf."""
    return seal(answer_key, [sha256(header)], leaf)


def open_leaf(answer_key: bytes, sealed: bytes, header: bytes) -> bytes | None:
    """The leaf's 118 bytes, or None when it does not open."""
    return open_sealed(answer_key, [sha256(header)], sealed)
