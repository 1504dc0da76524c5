"""The exchange that activates a host: host request → publisher → host answer (docs/files.md).

This module has both as files; `compact` has them in a form short enough for text and QR codes.

A request names its host keys by ID, proves them with a MAC under their secrets and is signed by the host's private key;
the keys themselves never travel. An answer carries certificates, the catalog sealed for the holder of the host key, and
the publisher file.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from kms_fast.errors import ConfigurationError
from kms_fast.model import signing
from kms_fast.model.catalog import Catalog
from kms_fast.model.certificate import HostCertificate, IssuerCertificate, host_id, verify_chain
from kms_fast.model.document import canonical_json, malformed, read_document, write_document
from kms_fast.model.keys import KEY_ID_SIZE, MAX_KEYS_PER_HOST, ProductKey, key_id
from kms_fast.model.publisher_file import PublisherFile

REQUEST_FORMAT: Final = "kms_fast host request 1"
ANSWER_FORMAT: Final = "kms_fast host answer 1"
INSTALLATION_ID_SIZE: Final = 16
MAC_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class HostKeySecrets:
    """What host and publisher keep of a host key: its ID, last five characters and derived keys, not the key itself."""

    key_id: bytes
    last_five: str
    mac_key: bytes = field(repr=False)
    seal_key: bytes = field(repr=False)

    @classmethod
    def derive(cls, key: ProductKey, publisher_id: bytes) -> "HostKeySecrets":
        """The secrets of a host key (docs/protocol.md, "Conventions"; salt publisher ID)."""
        return cls(
            key_id(key.secret, publisher_id),
            key.last_five,
            signing.derive(key.secret, salt=publisher_id, info=signing.HOST_REQUEST_MAC, length=MAC_SIZE),
            signing.derive(key.secret, salt=publisher_id, info=signing.CATALOG_SEAL, length=32),
        )

    def mac(self, message: bytes) -> bytes:
        """HMAC-SHA256 of a request's canonical body."""
        return hmac.digest(self.mac_key, message, hashlib.sha256)

    def seal(self, catalog: bytes, publisher_id: bytes, host: bytes = b"") -> bytes:
        """AES-SIV (RFC 5297) of a catalog; associated data: publisher ID ‖ host ID, or without one for all hosts."""
        return AESSIV(self.seal_key).encrypt(catalog, [publisher_id + host])

    def open(self, sealed: bytes, publisher_id: bytes, host: bytes = b"") -> bytes:
        """The sealed catalog's bytes; raises `ConfigurationError` (OFFLINE_DATA_MALFORMED) when it does not open."""
        try:
            return AESSIV(self.seal_key).decrypt(sealed, [publisher_id + host])
        except (InvalidTag, ValueError):
            raise malformed("The sealed catalog does not open with this host's key: it was changed.") from None


@dataclass(frozen=True, slots=True)
class HostRequest:
    """A host's request for a certificate.

    ``installation_id`` (16 bytes) tells hosts apart when a key's activations are counted; it stays when a host is
    set up anew on the same machine.
    """

    publisher_id: bytes
    key_ids: tuple[bytes, ...]
    public_key: bytes
    installation_id: bytes
    created_ms: int
    macs: tuple[bytes, ...] = ()
    signature: bytes = b""

    @property
    def body(self) -> dict[str, Any]:
        """What MACs and signature cover."""
        return {
            "publisher_id": self.publisher_id.hex(),
            "key_ids": [key.hex() for key in self.key_ids],
            "public_key": self.public_key.hex(),
            "installation_id": self.installation_id.hex(),
            "created_ms": self.created_ms,
        }

    def to_json(self) -> bytes:
        """The request as a file: readable JSON, MACs and signature over its canonical body."""
        macs = [mac.hex() for mac in self.macs]
        return write_document(REQUEST_FORMAT, self.body, macs=macs, signature=self.signature.hex())

    @classmethod
    def parse(cls, data: bytes) -> "HostRequest":
        """Read a request file and verify its own signature; raises `ConfigurationError` (OFFLINE_DATA_MALFORMED)."""
        document = read_document(data, REQUEST_FORMAT, "The host request")
        body = document.object("body")
        request = cls(
            publisher_id=body.octets("publisher_id", 16),
            key_ids=body.octets_list("key_ids", KEY_ID_SIZE),
            public_key=body.octets("public_key", signing.PUBLIC_KEY_SIZE),
            installation_id=body.octets("installation_id", INSTALLATION_ID_SIZE),
            created_ms=body.integer("created_ms"),
            macs=document.octets_list("macs", MAC_SIZE),
            signature=document.octets("signature", signing.SIGNATURE_SIZE),
        )
        body.finish()
        document.finish()
        count = len(request.key_ids)
        if not 1 <= count <= MAX_KEYS_PER_HOST or len(set(request.key_ids)) != count or len(request.macs) != count:
            raise malformed(f"The host request must name 1 to {MAX_KEYS_PER_HOST} different keys, each with its MAC.")
        if not signing.verify(request.public_key, request.signature, signing.HOST_REQUEST, canonical_json(body.values)):
            raise malformed("The host request is not signed by its host: it was changed after it was made.")
        return request

    def check_mac(self, secrets: HostKeySecrets) -> None:
        """Check that the host holds this key; raises `ConfigurationError` (KEY_INVALID)."""
        mac = self.macs[self.key_ids.index(secrets.key_id)]
        if not hmac.compare_digest(mac, secrets.mac(canonical_json(self.body))):
            raise ConfigurationError(
                f"The host request was not made with the host key that ends in {secrets.last_five}.", name="KEY_INVALID"
            )


def build_host_request(
    private_key: Ed25519PrivateKey,
    keys: Sequence[HostKeySecrets],
    *,
    publisher_id: bytes,
    installation_id: bytes,
    created_ms: int,
) -> bytes:
    """A host request as a file, with its MACs and its signature."""
    request = HostRequest(
        publisher_id,
        tuple(secrets.key_id for secrets in keys),
        signing.public_bytes(private_key),
        installation_id,
        created_ms,
    )
    message = canonical_json(request.body)
    macs = tuple(secrets.mac(message) for secrets in keys)
    return replace(request, macs=macs, signature=signing.sign(private_key, signing.HOST_REQUEST, message)).to_json()


def build_host_answer(
    certificate: HostCertificate,
    issuer: IssuerCertificate,
    *,
    catalog: bytes,
    secrets: HostKeySecrets,
    publisher_data: bytes,
) -> bytes:
    """A host answer as a file: certificates, the signed ``catalog`` sealed under a host key, ``publisher.json``.

    It needs no signature of its own: each part carries one.
    """
    body = {
        "publisher_id": issuer.publisher_id.hex(),
        "host_certificate": certificate.to_bytes().hex(),
        "issuer_certificate": issuer.to_bytes().hex(),
        "catalog_key_id": secrets.key_id.hex(),
        "sealed_catalog": secrets.seal(catalog, issuer.publisher_id, certificate.host_id).hex(),
        "publisher": json.loads(publisher_data),
    }
    return write_document(ANSWER_FORMAT, body)


@dataclass(frozen=True, slots=True)
class HostAnswer:
    """An answer whose parts were all verified; the ``*_data`` are the files to install.

    ``key_id``: the host key that the catalog was sealed under; None when it came without one.
    """

    certificate: HostCertificate
    issuer: IssuerCertificate
    catalog: Catalog
    publisher: PublisherFile
    catalog_data: bytes = field(repr=False)
    publisher_data: bytes = field(repr=False)
    key_id: bytes | None = None

    @property
    def chain_data(self) -> bytes:
        """Host certificate ‖ issuer certificate, the content of ``host.cert``."""
        return self.certificate.to_bytes() + self.issuer.to_bytes()

    @classmethod
    def open(
        cls,
        data: bytes,
        *,
        trusted: PublisherFile,
        public_key: bytes,
        keys: Mapping[bytes, HostKeySecrets],
        now_ms: int,
    ) -> "HostAnswer":
        """Read an answer, verify every part and open the catalog.

        ``trusted``: the publisher file in use so far; ``public_key``: the host's; ``keys``: the host's keys by ID.
        Raises `ConfigurationError` with the result that names what is wrong.
        """
        document = read_document(data, ANSWER_FORMAT, "The host answer")
        body = document.object("body")
        document.finish()
        publisher_document = body.take("publisher")
        publisher_id = body.octets("publisher_id", 16)
        certificate = HostCertificate.parse(body.octets("host_certificate"))
        issuer = IssuerCertificate.parse(body.octets("issuer_certificate"))
        catalog_key_id = body.octets("catalog_key_id", KEY_ID_SIZE)
        sealed = body.octets("sealed_catalog")
        body.finish()
        if publisher_id != trusted.publisher_id:
            raise malformed(f"The answer is not one of {trusted.name}, whose request it should answer.")
        publisher_data = write_publisher(publisher_document)
        publisher = check_certified(
            certificate, issuer, publisher_data, trusted=trusted, public_key=public_key, now_ms=now_ms
        )
        if catalog_key_id not in keys:
            raise malformed("The answer's catalog is sealed for another host key than this host has.")
        catalog_data = keys[catalog_key_id].open(sealed, publisher_id, host_id(public_key))
        return cls(
            certificate,
            issuer,
            Catalog.parse(catalog_data, roots=publisher.roots, publisher_id=publisher_id),
            publisher,
            catalog_data,
            publisher_data,
            catalog_key_id,
        )


def check_certified(
    certificate: HostCertificate,
    issuer: IssuerCertificate,
    publisher_data: bytes,
    *,
    trusted: PublisherFile,
    public_key: bytes,
    now_ms: int,
) -> PublisherFile:
    """Verify an answer's publisher file against the ``trusted`` one, then the chain, then whose certificate it is.

    Raises `ConfigurationError` with the result that names what is wrong.
    """
    publisher = PublisherFile.parse(publisher_data, trusted_roots=trusted.roots)
    publisher.check_replaces(trusted)
    verify_chain(
        certificate,
        issuer,
        roots=publisher.roots,
        publisher_id=publisher.publisher_id,
        at_ms=now_ms,
        revoked=publisher.revoked,
    )
    if not hmac.compare_digest(certificate.public_key, public_key):
        raise malformed("The answer's certificate belongs to another host: apply it where its request was made.")
    return publisher


def write_publisher(document: Any) -> bytes:
    """The bytes of ``publisher.json`` from its object inside another file."""
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
