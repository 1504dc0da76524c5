"""Answers as a host signs them, for tests: every field can be set, also to what no host would sign.

Written from docs/protocol.md, with `cryptography` for all of the cryptography.
"""

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOW_MS = 1_800_000_000_000
ROOT, ISSUER, HOST = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))
PUBLISHER_ID = b"publisher-id-16b"
SKU_ID = b"sku-id-16-bytes."
CMID = b"cmid-16-bytes..."
HARDWARE = b"hardware-digest."
HOST_ID = b"host-id-16-bytes"


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def sign(key: Ed25519PrivateKey, context: bytes, body: bytes) -> bytes:
    """`body` and the signature of docs/protocol.md, "Conventions"."""
    return body + key.sign(context + b"\0" + body)


def verify_signature(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


@dataclass(frozen=True)
class Issuer:
    version: int = 1
    kind: int = 1
    rights: int = 1
    serial: int = 7
    publisher_id: bytes = PUBLISHER_ID
    root_id: bytes = hashlib.sha256(public(ROOT)).digest()[:8]
    not_before: int = NOW_MS - 30 * DAY_MS
    not_after: int = NOW_MS + 300 * DAY_MS
    key: Ed25519PrivateKey = ROOT

    def to_bytes(self) -> bytes:
        body = struct.pack(
            "<BBHI16s8sQQ32s", self.version, self.kind, self.rights, self.serial, self.publisher_id, self.root_id,
            self.not_before, self.not_after, public(ISSUER),
        )  # fmt: skip
        return sign(self.key, b"kms_fast 1 issuer certificate", body)


@dataclass(frozen=True)
class Certificate:
    version: int = 1
    kind: int = 2
    family_count: int | None = None
    reserved: int = 0
    issuer_serial: int = 7
    serial: int = 99
    publisher_id: bytes = PUBLISHER_ID
    host_id: bytes = HOST_ID
    not_before: int = NOW_MS - 10 * DAY_MS
    not_after: int = NOW_MS + 200 * DAY_MS
    host_key: bytes = public(HOST)
    customer_id: int = 0
    families: Sequence[tuple[int, int, int, int]] = ((2, 5, 5, 100_000), (4, 3, 25, 259_200))
    key: Ed25519PrivateKey = ISSUER

    def to_bytes(self) -> bytes:
        count = len(self.families) if self.family_count is None else self.family_count
        body = struct.pack(
            "<BBBBIQ16s16sQQ32sQ", self.version, self.kind, count, self.reserved, self.issuer_serial, self.serial,
            self.publisher_id, self.host_id, self.not_before, self.not_after, self.host_key, self.customer_id,
        )  # fmt: skip
        body += b"".join(struct.pack("<HHII", *family) for family in self.families)
        return sign(self.key, b"kms_fast 1 host certificate", body)


@dataclass(frozen=True)
class Leaf:
    version: int = 1
    leaf_type: int = 1
    family_index: int = 1
    reserved: int = 0
    result: int = 0
    request_hash: bytes | None = None
    sku_id: bytes = SKU_ID
    cmid: bytes = CMID
    hardware: bytes = HARDWARE
    client_time: int = NOW_MS
    generation: int = 3
    validity: int = 259_200
    activation_interval: int = 120
    renewal_interval: int = 10_080
    count: int = 25
    threshold: int = 25

    def to_bytes(self, request: bytes) -> bytes:
        return struct.pack(
            "<BBBBI32s16s16s16sQHIIIII", self.version, self.leaf_type, self.family_index, self.reserved, self.result,
            self.request_hash or hashlib.sha256(request).digest(), self.sku_id, self.cmid, self.hardware,
            self.client_time, self.generation, self.validity, self.activation_interval, self.renewal_interval,
            self.count, self.threshold,
        )  # fmt: skip


@dataclass(frozen=True)
class Header:
    version: int = 1
    header_type: int = 1
    tree_size: int | None = None
    segment: int = 1
    number: int = 1
    time: int = NOW_MS
    host_id: bytes = HOST_ID
    serial: int = 99
    revocation: int = 0
    previous: bytes = bytes(32)
    root: bytes | None = None
    key: Ed25519PrivateKey = HOST

    def to_bytes(self, tree_size: int, root: bytes) -> bytes:
        size = tree_size if self.tree_size is None else self.tree_size
        body = struct.pack(
            "<BBHIQQ16sQI32s32s", self.version, self.header_type, size, self.segment, self.number, self.time,
            self.host_id, self.serial, self.revocation, self.previous, self.root or root,
        )  # fmt: skip
        return sign(self.key, b"kms_fast 1 batch header", body)


def _split(n: int) -> int:
    return 1 << (n - 1).bit_length() - 1


def tree_root(hashes: Sequence[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, over leaf hashes."""
    if len(hashes) == 1:
        return hashes[0]
    k = _split(len(hashes))
    return hashlib.sha256(b"\1" + tree_root(hashes[:k]) + tree_root(hashes[k:])).digest()


def tree_path(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """RFC 9162 section 2.1.3.1, over leaf hashes."""
    if len(hashes) == 1:
        return []
    k = _split(len(hashes))
    if index < k:
        return [*tree_path(hashes[:k], index), tree_root(hashes[k:])]
    return [*tree_path(hashes[k:], index - k), tree_root(hashes[:k])]


@dataclass(frozen=True)
class Answer:
    """One answer of a batch of `size` leaves, at `index`; `answer_secret` is the SKU's."""

    answer_secret: bytes
    leaf: Leaf = field(default_factory=Leaf)
    header: Header = field(default_factory=Header)
    certificate: Certificate = field(default_factory=Certificate)
    issuer: Issuer = field(default_factory=Issuer)
    size: int = 5
    index: int = 3
    version: int = 1
    message_type: int = 2
    reserved: int = 0
    path: Sequence[bytes] | None = None

    def to_bytes(self, request: bytes) -> bytes:
        leaf = self.leaf.to_bytes(request)
        hashes = [hashlib.sha256(b"other%d" % n).digest() for n in range(self.size)]
        hashes[self.index] = hashlib.sha256(b"\0" + leaf).digest()
        path = tree_path(hashes, self.index) if self.path is None else self.path
        header = self.header.to_bytes(self.size, tree_root(hashes))
        answer_key = hmac.digest(self.answer_secret, request[36:52], "sha256")
        sealed = AESSIV(answer_key).encrypt(leaf, [hashlib.sha256(header[:116]).digest()])
        prefix = struct.pack("<BBHBB", self.version, self.message_type, self.index, len(path), self.reserved)
        return b"".join((prefix, sealed, *path, header, self.certificate.to_bytes(), self.issuer.to_bytes()))
