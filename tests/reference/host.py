"""A publisher and a host, small enough to make vectors and hostile answers with.

Everything is derived from seeds, so the same seeds give the same bytes. Whoever wants something wrong in an answer
replaces a field before it is signed, or bytes afterwards.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.reference.answer import HEADER_CONTEXT, Header, Leaf, build_answer
from tests.reference.certificate import DAY_MS, Family, HostCertificate, Issuer, Revocations, host_id, root_key_id
from tests.reference.crypto import public_bytes, sha256, sign
from tests.reference.merkle import path, root
from tests.reference.request import Fields, SkuKeys, hash_request
from tests.reference.verify import CLOCKS_DIFFER, HOUR_MS

COUNT_TOO_LOW = 0xC004F038
CANNOT_SERVE = 0xC004F042
NO_FAMILY = 255


def make_key(seed: str) -> Ed25519PrivateKey:
    """The private key whose 32 bytes are SHA-256 of ``seed``."""
    return Ed25519PrivateKey.from_private_bytes(sha256(seed.encode()))


class Sku(NamedTuple):
    """A product as a host's catalog has it; spans in minutes."""

    keys: SkuKeys
    family: int
    generation: int
    threshold: int = 25
    validity: int = 259_200
    activation_interval: int = 120
    renewal_interval: int = 10_080


class Publisher:
    """A root, an issuer and their publisher ID."""

    def __init__(self, seed: str) -> None:
        self.publisher_id = sha256(seed.encode(), b" publisher")[:16]
        self.root_key = make_key(seed + " root")
        self.issuer_key = make_key(seed + " issuer")
        self.root = public_bytes(self.root_key)

    def issue_issuer(self, start: int, signer: Ed25519PrivateKey | None = None, **changes: Any) -> bytes:
        """An issuer certificate of 731 days from ``start``, with ``changes`` to its fields before signing."""
        issuer = Issuer(
            1, 1, 7, 1, self.publisher_id, root_key_id(self.root), start, start + 731 * DAY_MS,
            public_bytes(self.issuer_key),
        )  # fmt: skip
        return issuer._replace(**changes).signed(signer or self.root_key)

    def issue_host(
        self,
        host_key: Ed25519PrivateKey,
        families: Sequence[Family],
        start: int,
        signer: Ed25519PrivateKey | None = None,
        **changes: Any,
    ) -> bytes:
        """A host certificate of 365 days from ``start``, with ``changes`` to its fields before signing."""
        key = public_bytes(host_key)
        certificate = HostCertificate(
            1, 2, len(families), 0, 1, 1, self.publisher_id, host_id(key), start, start + 365 * DAY_MS,
            key, 0, tuple(families),
        )  # fmt: skip
        return certificate._replace(**changes).signed(signer or self.issuer_key)

    def issue_revocations(self, number: int, time: int, serials: Sequence[int], issuer: bytes) -> bytes:
        """A revocation list."""
        revocations = Revocations(1, 4, len(serials), number, self.publisher_id, time, tuple(serials))
        return revocations.signed(self.issuer_key, issuer)


class Batch(NamedTuple):
    """A signed batch: its leaves as bytes, header ‖ signature, host certificate ‖ issuer certificate."""

    leaves: tuple[bytes, ...]
    signed_header: bytes
    certificates: bytes

    def answer(self, index: int, answer_key: bytes) -> bytes:
        """The answer that carries the leaf at ``index``."""
        nodes = path(index, self.leaves)
        return build_answer(answer_key, self.leaves[index], index, nodes, self.signed_header, self.certificates)


class Host:
    """A certified host: decides, and signs batches."""

    def __init__(self, key: Ed25519PrivateKey, certificate: bytes, issuer: bytes) -> None:
        self.key = key
        self.certificates = certificate + issuer
        self.certificate = HostCertificate.parse(certificate)
        self.number = 0
        self.previous = sha256()

    def decide(self, sku: Sku, request: bytes, fields: Fields, count: int, time: int) -> Leaf:
        """The leaf of "What a host decides"; ``count`` is the family's with this machine."""
        numbers = [family.number for family in self.certificate.families]
        index = numbers.index(sku.family) if sku.family in numbers else NO_FAMILY
        result = 0
        if index == NO_FAMILY or sku.generation > self.certificate.families[index].generation:
            result = CANNOT_SERVE
        elif abs(fields.client_time - time) > 4 * HOUR_MS:
            result = CLOCKS_DIFFER
        elif count < sku.threshold:
            result = COUNT_TOO_LOW
        return Leaf(
            1, 1, index, 0, result, hash_request(request), sku.keys.sku_id, fields.cmid, fields.hardware_digest,
            fields.client_time, sku.generation, 0 if result else sku.validity, sku.activation_interval,
            sku.renewal_interval, count, sku.threshold,
        )  # fmt: skip

    def sign_batch(self, leaves: Sequence[bytes], time: int, **changes: Any) -> Batch:
        """The next batch, with ``changes`` to its header before signing."""
        self.number += 1
        header = Header(
            1, 1, len(leaves), 1, self.number, time, self.certificate.host_id, self.certificate.serial, 0,
            self.previous, root(leaves),
        )  # fmt: skip
        body = header._replace(**changes).to_bytes()
        self.previous = sha256(body)
        return Batch(tuple(leaves), body + sign(self.key, HEADER_CONTEXT, body), self.certificates)
