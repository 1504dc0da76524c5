"""docs/protocol.md, "Issuer certificate", "Host certificate" and "Revocations".

Each class holds the fields in their order on the wire; ``body`` is everything before the signature.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.reference.crypto import sha256, sign, signature_is_valid

DAY_MS = 86_400_000
ISSUER = struct.Struct("<BBHI16s8sQQ32s")
ISSUER_SIZE = 144
HOST = struct.Struct("<BBBBIQ16s16sQQ32sQ")
FAMILY = struct.Struct("<HHII")
REVOCATIONS = struct.Struct("<BBHI16sQ")
QUERY = struct.Struct("<BBHI")

ISSUER_CONTEXT = b"kms_fast 1 issuer certificate"
HOST_CONTEXT = b"kms_fast 1 host certificate"
REVOCATIONS_CONTEXT = b"kms_fast 1 revocation list"

RIGHT_HOSTS, RIGHT_CATALOGS, RIGHT_REVOCATIONS = 1, 2, 4


def root_key_id(root: bytes) -> bytes:
    """SHA-256(root public key)[0:8]."""
    return sha256(root)[:8]


def host_id(public_key: bytes) -> bytes:
    """SHA-256(context ‖ 0x00 ‖ host public key)[0:16]."""
    return sha256(b"kms_fast 1 host id", b"\0", public_key)[:16]


class Issuer(NamedTuple):
    """An issuer certificate's body: 80 bytes."""

    version: int
    kind: int
    rights: int
    serial: int
    publisher_id: bytes
    root_key_id: bytes
    not_before: int
    not_after: int
    public_key: bytes

    def body(self) -> bytes:
        return ISSUER.pack(*self)

    def signed(self, root: Ed25519PrivateKey) -> bytes:
        """The certificate's 144 bytes."""
        return self.body() + sign(root, ISSUER_CONTEXT, self.body())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        return cls(*ISSUER.unpack(data[: ISSUER.size]))


class Family(NamedTuple):
    """A certified family."""

    number: int
    generation: int
    minimum_threshold: int
    maximum_validity: int


class HostCertificate(NamedTuple):
    """A host certificate's body: 104 + 12 f bytes."""

    version: int
    kind: int
    family_count: int
    reserved: int
    issuer_serial: int
    serial: int
    publisher_id: bytes
    host_id: bytes
    not_before: int
    not_after: int
    public_key: bytes
    customer_id: int
    families: tuple[Family, ...]

    def body(self) -> bytes:
        return HOST.pack(*self[:-1]) + b"".join(FAMILY.pack(*family) for family in self.families)

    def signed(self, issuer: Ed25519PrivateKey) -> bytes:
        """The certificate's 168 + 12 f bytes."""
        return self.body() + sign(issuer, HOST_CONTEXT, self.body())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        families = tuple(Family(*fields) for fields in FAMILY.iter_unpack(data[HOST.size : -64]))
        return cls._make((*HOST.unpack(data[: HOST.size]), families))


def build_query(number: int) -> bytes:
    """A revocation query: 8 bytes."""
    return QUERY.pack(1, 3, 0, number)


class Revocations(NamedTuple):
    """A revocation list without its signature and issuer certificate."""

    version: int
    message_type: int
    serial_count: int
    number: int
    publisher_id: bytes
    time: int
    serials: tuple[int, ...]

    def body(self) -> bytes:
        return REVOCATIONS.pack(*self[:-1]) + struct.pack(f"<{len(self.serials)}Q", *self.serials)

    def signed(self, issuer: Ed25519PrivateKey, issuer_certificate: bytes) -> bytes:
        """The list's 240 + 8 s bytes."""
        return self.body() + sign(issuer, REVOCATIONS_CONTEXT, self.body()) + issuer_certificate

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises ValueError when length, version, type, count or order of serials is wrong."""
        if len(data) < REVOCATIONS.size:
            raise ValueError("too short")
        head = REVOCATIONS.unpack(data[: REVOCATIONS.size])
        if head[:2] != (1, 4) or head[2] > 400 or head[3] < 1 or len(data) != 240 + 8 * head[2]:
            raise ValueError("not a revocation list")
        serials = struct.unpack(f"<{head[2]}Q", data[32 : 32 + 8 * head[2]])
        if list(serials) != sorted(set(serials)):
            raise ValueError("serials do not ascend")
        return cls._make((*head, serials))


def issuer_problem(
    certificate: bytes, roots: Sequence[bytes], publisher_id: bytes, right: int, time: int
) -> str | None:
    """Steps 8 to 11 of "What a client checks" for an issuer's 144 bytes: the error's name, or None."""
    issuer = Issuer.parse(certificate)
    root = next((root for root in roots if root_key_id(root) == issuer.root_key_id), None)
    if root is None:
        return "ROOT_UNKNOWN"
    if not signature_is_valid(root, certificate[80:], ISSUER_CONTEXT, certificate[:80]):
        return "ISSUER_SIGNATURE"
    if issuer.kind != 1 or issuer.publisher_id != publisher_id or issuer.rights & right == 0 or issuer.rights > 7:
        return "ISSUER_RIGHTS"
    if not issuer.not_before <= issuer.not_after <= issuer.not_before + 731 * DAY_MS:
        return "ISSUER_DATES"
    return None if issuer.not_before <= time <= issuer.not_after else "ISSUER_DATES"


def revocations_problem(data: bytes, roots: Sequence[bytes], publisher_id: bytes, known: int) -> str | None:
    """Why a client that has list number ``known`` does not take this list, or None."""
    try:
        revocations = Revocations.parse(data)
    except ValueError as error:
        return str(error)
    if data[-144:-143] != b"\1":
        return "issuer certificate of another version"
    problem = issuer_problem(data[-144:], roots, publisher_id, RIGHT_REVOCATIONS, revocations.time)
    if problem:
        return problem
    if not signature_is_valid(Issuer.parse(data[-144:]).public_key, data[-208:-144], REVOCATIONS_CONTEXT, data[:-208]):
        return "not signed by its issuer"
    if revocations.publisher_id != publisher_id:
        return "of another publisher"
    return "older than the one known" if revocations.number < known else None
