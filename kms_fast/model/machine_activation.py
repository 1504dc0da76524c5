"""The exchange that activates one machine without a host: machine request → publisher → activation (docs/files.md).

It belongs to the multiple-activation key. A request names the key by ID and proves it with a MAC under its secret; the
key itself never travels. An activation is signed by the issuer, has no end, and is worth something on one machine only.
"""

import hashlib
import hmac
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kms_fast.errors import ConfigurationError
from kms_fast.model import signing
from kms_fast.model.certificate import IssuerCertificate, Rights
from kms_fast.model.document import canonical_json, malformed, read_document, write_document
from kms_fast.model.keys import KEY_ID_SIZE, ProductKey, key_id
from kms_fast.model.publisher_file import PublisherFile

# Where an activation service takes requests, below its address (docs/publisher.md).
SERVICE_PATH: Final = "/v1/machine-requests"
REQUEST_FORMAT: Final = "kms_fast machine request 1"
ACTIVATION_FORMAT: Final = "kms_fast machine activation 1"
MAC_SIZE: Final = 32
DIGEST_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class ActivationKeySecrets:
    """What a publisher keeps of a multiple-activation key: its ID, last five characters and MAC key, not the key."""

    key_id: bytes
    last_five: str
    mac_key: bytes = field(repr=False)

    @classmethod
    def derive(cls, key: ProductKey, publisher_id: bytes) -> "ActivationKeySecrets":
        """The secrets of a multiple-activation key (docs/keys.md; salt publisher ID)."""
        mac_key = signing.derive(key.secret, salt=publisher_id, info=signing.MACHINE_REQUEST_MAC, length=MAC_SIZE)
        return cls(key_id(key.secret, publisher_id), key.last_five, mac_key)


@dataclass(frozen=True, slots=True)
class MachineRequest:
    """A machine's request for an activation of its own.

    ``hardware_digest``: 16 bytes, made of the CMID and the hardware (docs/protocol.md, "Request"), so that it tells
    machines apart when a key's activations are counted.
    """

    publisher_id: bytes
    key_id: bytes
    sku: UUID
    cmid: UUID
    hardware_digest: bytes
    created_ms: int
    mac: bytes = b""

    @property
    def body(self) -> dict[str, Any]:
        """What the MAC covers."""
        return {
            "publisher_id": self.publisher_id.hex(),
            "key_id": self.key_id.hex(),
            "sku": str(self.sku),
            "cmid": str(self.cmid),
            "hardware_digest": self.hardware_digest.hex(),
            "created_ms": self.created_ms,
        }

    def seal(self, secrets: ActivationKeySecrets) -> "MachineRequest":
        """The request with the MAC of its key."""
        return replace(self, mac=self._compute_mac(secrets))

    def to_json(self) -> bytes:
        """The request as a file: readable JSON, the MAC over its canonical body."""
        return write_document(REQUEST_FORMAT, self.body, mac=self.mac.hex())

    @classmethod
    def parse(cls, data: bytes) -> "MachineRequest":
        """Read a request; raises `ConfigurationError` (OFFLINE_DATA_MALFORMED)."""
        document = read_document(data, REQUEST_FORMAT, "The machine request")
        body = document.object("body")
        request = cls(
            publisher_id=body.octets("publisher_id", 16),
            key_id=body.octets("key_id", KEY_ID_SIZE),
            sku=body.uuid("sku"),
            cmid=body.uuid("cmid"),
            hardware_digest=body.octets("hardware_digest", DIGEST_SIZE),
            created_ms=body.integer("created_ms"),
            mac=document.octets("mac", MAC_SIZE),
        )
        body.finish()
        document.finish()
        return request

    def check_mac(self, secrets: ActivationKeySecrets) -> None:
        """Check that the machine holds this key; raises `ConfigurationError` (KEY_INVALID)."""
        if not hmac.compare_digest(self.mac, self._compute_mac(secrets)):
            raise ConfigurationError(
                f"The machine request was not made with the multiple-activation key that ends in {secrets.last_five}.",
                name="KEY_INVALID",
            )

    def _compute_mac(self, secrets: ActivationKeySecrets) -> bytes:
        return hmac.digest(secrets.mac_key, canonical_json(self.body), hashlib.sha256)


@dataclass(frozen=True, slots=True)
class MachineActivation:
    """What a publisher answers: this SKU is activated on this machine, without an end.

    ``key_last_five``: the end of the key that was used.
    """

    publisher_id: bytes
    sku: UUID
    key_last_five: str
    customer_id: int
    cmid: UUID
    hardware_digest: bytes
    issued_ms: int
    issuer: IssuerCertificate
    signature: bytes = b""

    @property
    def body(self) -> dict[str, Any]:
        """What the issuer signs."""
        return {
            "publisher_id": self.publisher_id.hex(),
            "sku": str(self.sku),
            "key_last_five": self.key_last_five,
            "customer_id": self.customer_id,
            "cmid": str(self.cmid),
            "hardware_digest": self.hardware_digest.hex(),
            "issued_ms": self.issued_ms,
        }

    def to_json(self) -> bytes:
        """The activation as a file, with the issuer's certificate and signature."""
        proofs = {"issuer_certificate": self.issuer.to_bytes().hex(), "signature": self.signature.hex()}
        return write_document(ACTIVATION_FORMAT, self.body, **proofs)

    @classmethod
    def parse(cls, data: bytes) -> "MachineActivation":
        """Read an activation, without verifying it; raises `ConfigurationError` (OFFLINE_DATA_MALFORMED)."""
        document = read_document(data, ACTIVATION_FORMAT, "The activation")
        body = document.object("body")
        activation = cls(
            publisher_id=body.octets("publisher_id", 16),
            sku=body.uuid("sku"),
            key_last_five=body.text("key_last_five", longest=5),
            customer_id=body.integer("customer_id"),
            cmid=body.uuid("cmid"),
            hardware_digest=body.octets("hardware_digest", DIGEST_SIZE),
            issued_ms=body.integer("issued_ms"),
            issuer=IssuerCertificate.parse(document.octets("issuer_certificate")),
            signature=document.octets("signature", signing.SIGNATURE_SIZE),
        )
        body.finish()
        document.finish()
        return activation

    def verify(self, publisher: PublisherFile) -> None:
        """Check root, issuer and signature, as of the time when it was issued.

        Raises `ConfigurationError`: ROOT_UNKNOWN, ISSUER_* or OFFLINE_DATA_MALFORMED.
        """
        # Who may certify a host could activate every machine through one, so that this needs no right of its own.
        self.issuer.verify(publisher.roots, publisher.publisher_id, Rights.HOST_CERTIFICATES, self.issued_ms)
        if self.publisher_id != publisher.publisher_id:
            raise malformed(f"The activation is not one of {publisher.name}.")
        message = canonical_json(self.body)
        if not signing.verify(self.issuer.public_key, self.signature, signing.MACHINE_ACTIVATION, message):
            raise malformed("The activation is not signed by the publisher's issuer: it was changed after it was made.")


def issue_machine_activation(
    issuer_key: Ed25519PrivateKey,
    issuer: IssuerCertificate,
    request: MachineRequest,
    *,
    key_last_five: str,
    customer_id: int,
    issued_ms: int,
) -> MachineActivation:
    """The activation that a request asks for, signed by the issuer."""
    unsigned = MachineActivation(
        publisher_id=request.publisher_id,
        sku=request.sku,
        key_last_five=key_last_five,
        customer_id=customer_id,
        cmid=request.cmid,
        hardware_digest=request.hardware_digest,
        issued_ms=issued_ms,
        issuer=issuer,
    )
    signature = signing.sign(issuer_key, signing.MACHINE_ACTIVATION, canonical_json(unsigned.body))
    return replace(unsigned, signature=signature)
