"""``publisher.json``: what clients, hosts and load generators trust of a publisher; public, signed by a root key."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kms_fast.errors import ConfigurationError
from kms_fast.model import signing
from kms_fast.model.catalog import Family, Sku, check_catalog, find_sku
from kms_fast.model.document import Fields, canonical_json, malformed, read_document, write_document
from kms_fast.model.revocation import RevocationList

FORMAT: Final = "kms_fast publisher 1"
WHAT: Final = "The publisher file"
MAX_ROOTS: Final = 2


@dataclass(frozen=True, slots=True)
class PublisherFile:
    """A publisher's public face. ``roots``: one or two 32-byte public keys; ``skus`` carry no secrets."""

    number: int
    publisher_id: bytes
    name: str
    issued_ms: int
    roots: tuple[bytes, ...]
    activation_url: str
    srv_name: str
    families: tuple[Family, ...]
    skus: tuple[Sku, ...]
    revocations: RevocationList | None = None

    @property
    def revoked(self) -> tuple[int, ...]:
        """Serials of revoked host certificates."""
        return self.revocations.serials if self.revocations else ()

    @property
    def revocations_number(self) -> int:
        """The number of the revocation list, 0 when there is none."""
        return self.revocations.number if self.revocations else 0

    def family(self, number: int) -> Family:
        """The family of this number; raises `ConfigurationError` when there is none."""
        for family in self.families:
            if family.number == number:
                return family
        raise ConfigurationError(f"publisher.json of {self.name} has no family {number}.")

    def sku(self, wanted: UUID | int) -> Sku:
        """The SKU of this ID or of a setup key's reference; raises `ConfigurationError` when there is none."""
        sku = find_sku(self.skus, wanted)
        if sku is None:
            raise ConfigurationError(
                f"publisher.json of {self.name} (number {self.number}) has no product {wanted}: the file is older "
                "than the product, or the publisher has given it up. Get the newest one from the publisher."
            )
        return sku

    @classmethod
    def parse(cls, data: bytes, *, trusted_roots: Sequence[bytes] | None = None) -> "PublisherFile":
        """Read and verify a publisher file.

        It must be signed by one of ``trusted_roots``; without them, by one of the roots it lists itself: then it is as
        trustworthy as the way it came. Raises `ConfigurationError`: OFFLINE_DATA_MALFORMED, ROOT_UNKNOWN when no
        trusted root signed it, CONFIGURATION_INVALID when its numbers fight each other.
        """
        return cls.read(read_document(data, FORMAT, WHAT), trusted_roots=trusted_roots)

    @classmethod
    def read(cls, document: Fields, *, trusted_roots: Sequence[bytes] | None = None) -> "PublisherFile":
        """The same for a document that was opened."""
        body = document.object("body")
        signature = document.octets("signature", signing.SIGNATURE_SIZE)
        document.finish()
        revocations = body.octets("revocations")
        publisher = cls(
            number=body.integer("number", low=1),
            publisher_id=body.octets("publisher_id", 16),
            name=body.text("name"),
            issued_ms=body.integer("issued_ms"),
            roots=body.octets_list("roots", signing.PUBLIC_KEY_SIZE),
            activation_url=body.text("activation_url"),
            srv_name=body.text("srv_name"),
            families=tuple(Family.read(fields) for fields in body.objects("families")),
            skus=tuple(Sku.read(fields, with_secret=False) for fields in body.objects("skus")),
            revocations=RevocationList.parse(revocations) if revocations else None,
        )
        body.finish()
        if not 1 <= len(publisher.roots) <= MAX_ROOTS:
            body.refuse("roots", f"must list 1 to {MAX_ROOTS} keys")
        message = canonical_json(body.values)
        publisher._verify(signature, message, publisher.roots if trusted_roots is None else trusted_roots)
        check_catalog(publisher.families, publisher.skus)
        return publisher

    def _verify(self, signature: bytes, message: bytes, roots: Sequence[bytes]) -> None:
        if not any(signing.verify(root, signature, signing.PUBLISHER, message) for root in roots):
            if any(signing.verify(root, signature, signing.PUBLISHER, message) for root in self.roots):
                raise ConfigurationError(
                    "The publisher file is signed by a root key that is not trusted here: it is another publisher's.",
                    name="ROOT_UNKNOWN",
                )
            raise malformed("The publisher file is not signed by its root key: it was changed after it was made.")
        if self.revocations is not None:
            self.revocations.verify(self.roots, self.publisher_id)

    def check_replaces(self, installed: "PublisherFile") -> None:
        """Refuse to replace ``installed`` by another publisher's or an older file.

        Raises `ConfigurationError`: CONFIGURATION_INVALID or VERSION_WENT_BACK. Parse with ``trusted_roots`` first.
        """
        if self.publisher_id != installed.publisher_id:
            raise ConfigurationError(
                f"This is the publisher file of {self.name}, but {installed.name}'s is installed: another publisher "
                "needs a home of its own (--home)."
            )
        if self.number < installed.number:
            raise ConfigurationError(
                f"This publisher file has number {self.number}, the installed one {installed.number}.",
                name="VERSION_WENT_BACK",
                number=self.number,
                installed=installed.number,
            )

    def body(self) -> dict[str, Any]:
        """What the root signs, as JSON values."""
        return {
            "number": self.number,
            "publisher_id": self.publisher_id.hex(),
            "name": self.name,
            "issued_ms": self.issued_ms,
            "roots": [key.hex() for key in self.roots],
            "activation_url": self.activation_url,
            "srv_name": self.srv_name,
            "families": [family.to_json() for family in self.families],
            "skus": [sku.to_json(with_secret=False) for sku in self.skus],
            "revocations": self.revocations.to_bytes().hex() if self.revocations else "",
        }

    def digest(self) -> bytes:
        """SHA-256 of the content without number and time: tells whether anything changed."""
        content = self.body()
        del content["number"], content["issued_ms"]
        return hashlib.sha256(canonical_json(content)).digest()

    def to_signed_json(self, root: Ed25519PrivateKey) -> bytes:
        """The signed file ``publisher.json``."""
        body = self.body()
        signature = signing.sign(root, signing.PUBLISHER, canonical_json(body))
        return write_document(FORMAT, body, signature=signature.hex())
