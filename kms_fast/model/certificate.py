"""Issuer and host certificates (docs/protocol.md, "Issuer certificate", "Host certificate") and the chain they form."""

import hashlib
import hmac
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import IntFlag
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kms_fast.errors import ConfigurationError
from kms_fast.model import signing
from kms_fast.model.document import malformed
from kms_fast.model.policy import DAY_MS, MAX_VALIDITY_MIN, format_time

ISSUER_CERTIFICATE_SIZE: Final = 144
MAX_FAMILIES: Final = 8
MAX_ISSUER_DAYS: Final = 731

_ISSUER = struct.Struct("<BBHI16s8sQQ32s")
_HOST = struct.Struct("<BBBBIQ16s16sQQ32sQ")
_FAMILY = struct.Struct("<HHII")


class Rights(IntFlag):
    """What an issuer may sign."""

    HOST_CERTIFICATES = 1
    CATALOGS = 2
    REVOCATION_LISTS = 4


ALL_RIGHTS: Final = Rights.HOST_CERTIFICATES | Rights.CATALOGS | Rights.REVOCATION_LISTS


@dataclass(frozen=True, slots=True)
class IssuerCertificate:
    """An issuer's public key and rights, signed by a root key; 144 bytes. Times are milliseconds since 1970."""

    rights: Rights
    serial: int
    publisher_id: bytes
    root_key_id: bytes
    not_before_ms: int
    not_after_ms: int
    public_key: bytes
    signature: bytes = b""

    @property
    def body(self) -> bytes:
        """The 80 bytes that the root signs."""
        return _ISSUER.pack(
            1,
            1,
            self.rights,
            self.serial,
            self.publisher_id,
            self.root_key_id,
            self.not_before_ms,
            self.not_after_ms,
            self.public_key,
        )

    def to_bytes(self) -> bytes:
        """The certificate, 144 bytes."""
        return self.body + self.signature

    @classmethod
    def parse(cls, data: bytes) -> "IssuerCertificate":
        """Take 144 bytes apart; raises `ConfigurationError` (OFFLINE_DATA_MALFORMED). Verifies nothing."""
        if len(data) != ISSUER_CERTIFICATE_SIZE:
            raise malformed(f"The issuer certificate has {len(data)} bytes, not {ISSUER_CERTIFICATE_SIZE}.")
        version, kind, rights, serial, publisher_id, root_id, *rest = _ISSUER.unpack_from(data)
        if (version, kind) != (1, 1):
            raise malformed("The issuer certificate is of another version or kind.")
        not_before_ms, not_after_ms, public_key = rest
        signature = data[_ISSUER.size :]
        return cls(Rights(rights), serial, publisher_id, root_id, not_before_ms, not_after_ms, public_key, signature)

    def verify(self, roots: Sequence[bytes], publisher_id: bytes, right: Rights, at_ms: int) -> None:
        """Check root, signature, publisher, right and dates, in the order of docs/protocol.md (steps 8 to 11).

        Raises `ConfigurationError` with the name of the step that failed.
        """
        root = next((root for root in roots if root_key_id(root) == self.root_key_id), None)
        if root is None:
            raise _chain_error("ROOT_UNKNOWN", "The issuer certificate names a root key that is not trusted here.")
        if not signing.verify(root, self.signature, signing.ISSUER_CERTIFICATE, self.body):
            raise _chain_error("ISSUER_SIGNATURE", "The issuer certificate is not signed by the publisher's root key.")
        if self.publisher_id != publisher_id or right not in self.rights or int(self.rights) > int(ALL_RIGHTS):
            raise _chain_error("ISSUER_RIGHTS", f"The issuer may not sign {right.name} for this publisher.")
        longest_ms = MAX_ISSUER_DAYS * DAY_MS
        if not (self.not_before_ms <= self.not_after_ms <= self.not_before_ms + longest_ms):
            raise _chain_error("ISSUER_DATES", "The issuer certificate's dates are impossible or too far apart.")
        self.check_dates(at_ms)

    def check_dates(self, at_ms: int) -> None:
        """Check that it is valid at this time; raises `ConfigurationError` (ISSUER_DATES)."""
        _check_dates("ISSUER_DATES", "The issuer certificate", self.not_before_ms, self.not_after_ms, at_ms)


@dataclass(frozen=True, slots=True)
class CertifiedFamily:
    """What a host may serve of one family: its generation and earlier ones, within these bounds."""

    number: int
    generation: int
    minimum_threshold: int
    maximum_validity_min: int


@dataclass(frozen=True, slots=True)
class HostCertificate:
    """A host's public key and families, signed by an issuer; 168 + 12 f bytes. Times are milliseconds since 1970."""

    issuer_serial: int
    serial: int
    publisher_id: bytes
    host_id: bytes
    not_before_ms: int
    not_after_ms: int
    public_key: bytes
    customer_id: int
    families: tuple[CertifiedFamily, ...]
    signature: bytes = b""

    @property
    def body(self) -> bytes:
        """The 104 + 12 f bytes that the issuer signs."""
        head = _HOST.pack(
            1,
            2,
            len(self.families),
            0,
            self.issuer_serial,
            self.serial,
            self.publisher_id,
            self.host_id,
            self.not_before_ms,
            self.not_after_ms,
            self.public_key,
            self.customer_id,
        )
        return head + b"".join(
            _FAMILY.pack(f.number, f.generation, f.minimum_threshold, f.maximum_validity_min) for f in self.families
        )

    def to_bytes(self) -> bytes:
        """The certificate, 168 + 12 f bytes."""
        return self.body + self.signature

    @classmethod
    def parse(cls, data: bytes) -> "HostCertificate":
        """Take the bytes of one host certificate apart; raises `ConfigurationError` (OFFLINE_DATA_MALFORMED)."""
        if len(data) < _HOST.size:
            raise malformed("The host certificate is too short.")
        version, kind, count, reserved, *rest = _HOST.unpack_from(data)
        if (version, kind, reserved) != (1, 2, 0) or not 1 <= count <= MAX_FAMILIES:
            raise malformed("The host certificate is of another version or kind.")
        end = _HOST.size + count * _FAMILY.size
        if len(data) != end + signing.SIGNATURE_SIZE:
            raise malformed(f"The host certificate has {len(data)} bytes, not {end + signing.SIGNATURE_SIZE}.")
        families = tuple(CertifiedFamily(*values) for values in _FAMILY.iter_unpack(data[_HOST.size : end]))
        numbers = [family.number for family in families]
        if numbers != sorted(set(numbers)):
            raise malformed("The families of the host certificate are not in ascending order.")
        issuer_serial, serial, publisher_id, host_id_, not_before_ms, not_after_ms, public_key, customer_id = rest
        return cls(
            issuer_serial,
            serial,
            publisher_id,
            host_id_,
            not_before_ms,
            not_after_ms,
            public_key,
            customer_id,
            families,
            data[end:],
        )

    def family(self, number: int) -> CertifiedFamily | None:
        """The certified family of this number, if there is one."""
        return next((family for family in self.families if family.number == number), None)

    def family_index(self, number: int) -> int:
        """The position of a family in the certificate, 255 when it is not there (the leaf's family index)."""
        return next((index for index, family in enumerate(self.families) if family.number == number), 255)


def parse_chain(data: bytes) -> tuple[HostCertificate, IssuerCertificate]:
    """Take ``host certificate ‖ issuer certificate`` apart, the form of ``host.cert`` and of an answer's last bytes."""
    if len(data) < ISSUER_CERTIFICATE_SIZE:
        raise malformed("The certificate file is too short.")
    host, issuer = data[:-ISSUER_CERTIFICATE_SIZE], data[-ISSUER_CERTIFICATE_SIZE:]
    return HostCertificate.parse(host), IssuerCertificate.parse(issuer)


def verify_chain(
    host: HostCertificate,
    issuer: IssuerCertificate,
    *,
    roots: Sequence[bytes],
    publisher_id: bytes,
    at_ms: int,
    revoked: Collection[int] = (),
) -> None:
    """Check root → issuer → host at one time (docs/protocol.md, steps 8 to 14 and 17).

    Raises `ConfigurationError` with the name of the step that failed.
    """
    issuer.verify(roots, publisher_id, Rights.HOST_CERTIFICATES, at_ms)
    if host.issuer_serial != issuer.serial or not signing.verify(
        issuer.public_key, host.signature, signing.HOST_CERTIFICATE, host.body
    ):
        raise _chain_error("CERTIFICATE_SIGNATURE", "The host certificate is not signed by the publisher's issuer.")
    if host.publisher_id != publisher_id or not hmac.compare_digest(host.host_id, host_id(host.public_key)):
        raise _chain_error("CERTIFICATE_KIND", "The host certificate is not one of this publisher.")
    _check_dates("CERTIFICATE_DATES", "The host certificate", host.not_before_ms, host.not_after_ms, at_ms)
    if host.serial in revoked:
        raise _chain_error("CERTIFICATE_REVOKED", f"The publisher has revoked the host certificate {host.serial}.")


def issue_issuer_certificate(
    root: Ed25519PrivateKey,
    *,
    public_key: bytes,
    publisher_id: bytes,
    serial: int,
    not_before_ms: int,
    days: int,
    rights: Rights = ALL_RIGHTS,
) -> IssuerCertificate:
    """An issuer certificate signed by ``root``, valid for ``days`` (at most 731); raises ValueError beyond."""
    if not 1 <= days <= MAX_ISSUER_DAYS:
        raise ValueError(f"an issuer certificate is valid for 1 to {MAX_ISSUER_DAYS} days")
    not_after_ms = not_before_ms + days * DAY_MS
    root_id = root_key_id(signing.public_bytes(root))
    unsigned = IssuerCertificate(rights, serial, publisher_id, root_id, not_before_ms, not_after_ms, public_key)
    return replace(unsigned, signature=signing.sign(root, signing.ISSUER_CERTIFICATE, unsigned.body))


def issue_host_certificate(
    issuer_key: Ed25519PrivateKey,
    issuer: IssuerCertificate,
    *,
    public_key: bytes,
    serial: int,
    not_before_ms: int,
    not_after_ms: int,
    families: Sequence[CertifiedFamily],
    customer_id: int = 0,
) -> HostCertificate:
    """A host certificate signed by the issuer; raises ValueError when the families break the layout's rules."""
    ordered = tuple(sorted(families, key=lambda family: family.number))
    if not 1 <= len(ordered) <= MAX_FAMILIES or len({family.number for family in ordered}) != len(ordered):
        raise ValueError(f"a host certificate has 1 to {MAX_FAMILIES} different families")
    if any(family.maximum_validity_min > MAX_VALIDITY_MIN for family in ordered):
        raise ValueError("a lease is valid for at most 365 days")
    unsigned = HostCertificate(
        issuer_serial=issuer.serial,
        serial=serial,
        publisher_id=issuer.publisher_id,
        host_id=host_id(public_key),
        not_before_ms=not_before_ms,
        not_after_ms=not_after_ms,
        public_key=public_key,
        customer_id=customer_id,
        families=ordered,
    )
    return replace(unsigned, signature=signing.sign(issuer_key, signing.HOST_CERTIFICATE, unsigned.body))


def host_id(public_key: bytes) -> bytes:
    """The 16-byte ID of a host: SHA-256(context ‖ 0x00 ‖ public key)[0:16]."""
    return hashlib.sha256(signing.signed_message(signing.HOST_ID, public_key)).digest()[:16]


def root_key_id(public_key: bytes) -> bytes:
    """The 8-byte ID of a root key: SHA-256(public key)[0:8]."""
    return hashlib.sha256(public_key).digest()[:8]


def _chain_error(name: str, message: str) -> ConfigurationError:
    return ConfigurationError(message, name=name)


def _check_dates(name: str, what: str, not_before_ms: int, not_after_ms: int, at_ms: int) -> None:
    if not not_before_ms <= at_ms <= not_after_ms:
        raise _chain_error(
            name,
            f"{what} is valid from {format_time(not_before_ms)} to {format_time(not_after_ms)}, "
            f"but it is {format_time(at_ms)} now.",
        )
