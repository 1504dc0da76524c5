"""Revocation lists: serials of host certificates that count no more (docs/protocol.md, "Revocations")."""

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kms_fast.errors import ConfigurationError
from kms_fast.model import signing
from kms_fast.model.certificate import ISSUER_CERTIFICATE_SIZE, IssuerCertificate, Rights
from kms_fast.model.document import malformed

MAX_SERIALS: Final = 400

_HEAD = struct.Struct("<BBHI16sQ")
_TAIL_SIZE: Final = signing.SIGNATURE_SIZE + ISSUER_CERTIFICATE_SIZE


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A numbered list of revoked serials, ascending, signed by an issuer whose certificate it carries."""

    number: int
    publisher_id: bytes
    issued_ms: int
    serials: tuple[int, ...]
    issuer: IssuerCertificate
    signature: bytes = b""

    @property
    def body(self) -> bytes:
        """The 32 + 8 s bytes that the issuer signs."""
        head = _HEAD.pack(1, 4, len(self.serials), self.number, self.publisher_id, self.issued_ms)
        return head + struct.pack(f"<{len(self.serials)}Q", *self.serials)

    def to_bytes(self) -> bytes:
        """The list as it travels, 240 + 8 s bytes."""
        return self.body + self.signature + self.issuer.to_bytes()

    @classmethod
    def parse(cls, data: bytes) -> "RevocationList":
        """Take a list apart; raises `ConfigurationError` (OFFLINE_DATA_MALFORMED). Verifies nothing."""
        if len(data) < _HEAD.size + _TAIL_SIZE:
            raise malformed("The revocation list is too short.")
        version, kind, count, number, publisher_id, issued_ms = _HEAD.unpack_from(data)
        end = _HEAD.size + 8 * count
        if (version, kind) != (1, 4) or not number or count > MAX_SERIALS or len(data) != end + _TAIL_SIZE:
            raise malformed("The revocation list is of another version, or its length is wrong.")
        serials = struct.unpack_from(f"<{count}Q", data, _HEAD.size)
        if list(serials) != sorted(set(serials)):
            raise malformed("The serials of the revocation list are not in ascending order.")
        issuer = IssuerCertificate.parse(data[-ISSUER_CERTIFICATE_SIZE:])
        return cls(number, publisher_id, issued_ms, serials, issuer, data[end : end + signing.SIGNATURE_SIZE])

    def verify(self, roots: Sequence[bytes], publisher_id: bytes) -> None:
        """Check that an issuer with the right to do so signed the list, at its time of issue.

        Raises `ConfigurationError`: ROOT_UNKNOWN, ISSUER_*, or OFFLINE_DATA_MALFORMED for the list itself.
        """
        self.issuer.verify(roots, publisher_id, Rights.REVOCATION_LISTS, self.issued_ms)
        if self.publisher_id != publisher_id:
            raise ConfigurationError("The revocation list is another publisher's.", name="OFFLINE_DATA_MALFORMED")
        if not signing.verify(self.issuer.public_key, self.signature, signing.REVOCATION_LIST, self.body):
            raise malformed("The revocation list is not signed by the publisher's issuer.")


def issue_revocation_list(
    issuer_key: Ed25519PrivateKey,
    issuer: IssuerCertificate,
    *,
    number: int,
    issued_ms: int,
    serials: Collection[int],
) -> RevocationList:
    """A signed list; raises ValueError beyond 400 serials."""
    if len(serials) > MAX_SERIALS:
        raise ValueError(f"a revocation list has at most {MAX_SERIALS} serials")
    unsigned = RevocationList(number, issuer.publisher_id, issued_ms, tuple(sorted(set(serials))), issuer)
    return replace(unsigned, signature=signing.sign(issuer_key, signing.REVOCATION_LIST, unsigned.body))
