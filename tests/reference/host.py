"""A publisher and a host, small enough to make vectors and hostile answers with.

Everything is derived from seeds, so the same seeds give the same bytes. Whoever wants something wrong in an answer
replaces a field before it is signed, or bytes afterwards.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

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

    def __init__(self, publisher_id: bytes, root_key: Ed25519PrivateKey, issuer_key: Ed25519PrivateKey) -> None:
        self.publisher_id = publisher_id
        self.root_key = root_key
        self.issuer_key = issuer_key
        self.root = public_bytes(root_key)

    @classmethod
    def from_seed(cls, seed: str) -> Self:
        """A publisher whose ID and keys are made of ``seed``."""
        return cls(sha256(seed.encode(), b" publisher")[:16], make_key(seed + " root"), make_key(seed + " issuer"))

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


class Scene(NamedTuple):
    """Who asks whom for what, and when; :meth:`answer` is what the host says, right or wrong."""

    publisher: Publisher
    host_key: Ed25519PrivateKey
    families: Sequence[Family]
    sku: Sku
    fields: Fields
    request: bytes
    time: int

    def answer(
        self,
        *,
        size: int = 5,
        index: int = 2,
        count: int = 25,
        leaf: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
        certificate: Mapping[str, Any] | None = None,
        issuer: Mapping[str, Any] | None = None,
        issuer_signer: Ed25519PrivateKey | None = None,
        certificate_signer: Ed25519PrivateKey | None = None,
        header_signer: Ed25519PrivateKey | None = None,
    ) -> bytes:
        """The answer to the request, at ``index`` of a batch of ``size`` leaves, when the family's count is ``count``.

        ``leaf``, ``header``, ``certificate`` and ``issuer`` replace fields before hashing and signing; the ``_signer``
        arguments sign with another key. The issuer's certificate began 100 days before, the host's 10 days.
        """
        issuer_bytes = self.publisher.issue_issuer(self.time - 100 * DAY_MS, issuer_signer, **issuer or {})
        certificate_bytes = self.publisher.issue_host(
            self.host_key, self.families, self.time - 10 * DAY_MS, certificate_signer, **certificate or {}
        )
        host = Host(header_signer or self.host_key, certificate_bytes, issuer_bytes)
        decided = host.decide(self.sku, self.request, self.fields, count, self.time)._replace(**leaf or {})
        leaves = [(sha256(b"leaf %d" % i) * 4)[:118] for i in range(size)]
        leaves[index] = decided.to_bytes()
        batch = host.sign_batch(leaves, self.time, **header or {})
        return batch.answer(index, self.sku.keys.answer_key(self.request))
