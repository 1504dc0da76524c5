"""docs/protocol.md, "What a client checks": the 25 steps in their order."""

from typing import NamedTuple

from tests.reference.answer import HEADER_CONTEXT, Answer, Header, Leaf, Malformed, open_leaf
from tests.reference.certificate import HOST_CONTEXT, RIGHT_HOSTS, Family, HostCertificate, Issuer, issuer_problem
from tests.reference.crypto import signature_is_valid
from tests.reference.merkle import hash_leaf, is_included
from tests.reference.request import SkuKeys, hash_request

HOUR_MS = 3_600_000
CLOCKS_DIFFER = 0xC004F06C
YEAR_MINUTES = 525_600


class Rejected(Exception):
    """An answer that is none; ``name`` is the error of the step that failed."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Product(NamedTuple):
    """What a client knows before it asks: the publisher, the SKU and its keys."""

    publisher_id: bytes
    roots: tuple[bytes, ...]
    keys: SkuKeys
    family: int
    generation: int
    customer_id: int = 0
    revoked: frozenset[int] = frozenset()


class Asked(NamedTuple):
    """What a client asked."""

    request: bytes
    cmid: bytes
    hardware_digest: bytes


class Clock(NamedTuple):
    """A client's clock, and the highest header time it accepted in a grant (0: none)."""

    now_ms: int
    mark_ms: int = 0


class Verified(NamedTuple):
    """What passed all checks; the leaf may be a refusal."""

    leaf: Leaf
    header: Header
    leaf_hash: bytes


def verify(product: Product, asked: Asked, data: bytes, clock: Clock | None) -> Verified:
    """Steps 1 to 25, or to 23 without a ``clock``. Raises Rejected."""
    try:
        answer = Answer.parse(data)
    except Malformed as error:
        raise Rejected("ANSWER_MALFORMED") from error
    leaf_bytes = open_leaf(product.keys.answer_key(asked.request), answer.sealed, answer.header)
    if leaf_bytes is None:
        raise Rejected("ANSWER_UNREADABLE")
    leaf, header = Leaf.parse(leaf_bytes), Header.parse(answer.header)
    certificate = HostCertificate.parse(answer.certificate)
    check_leaf(product, asked, leaf)
    check_chain(product, answer, certificate, header.time)
    family = certified_family(product, certificate, leaf) if leaf.result == 0 else None
    check_batch(product, answer, certificate, header, hash_leaf(leaf_bytes))
    if family:
        check_bounds(leaf, family)
    if clock and leaf.result != CLOCKS_DIFFER:
        check_times(header.time, clock)
    return Verified(leaf, header, hash_leaf(leaf_bytes))


def require(condition: bool, name: str) -> None:
    if not condition:
        raise Rejected(name)


def check_leaf(product: Product, asked: Asked, leaf: Leaf) -> None:
    """Steps 3 to 7."""
    require((leaf.version, leaf.leaf_type, leaf.reserved) == (1, 1, 0), "ANSWER_MALFORMED")
    require(leaf.request_hash == hash_request(asked.request), "REQUEST_HASH_MISMATCH")
    require(leaf.sku_id == product.keys.sku_id, "SKU_MISMATCH")
    require(leaf.cmid == asked.cmid, "CMID_MISMATCH")
    require(leaf.hardware_digest == asked.hardware_digest, "HARDWARE_MISMATCH")


def check_chain(product: Product, answer: Answer, certificate: HostCertificate, time: int) -> None:
    """Steps 8 to 14."""
    problem = issuer_problem(answer.issuer, product.roots, product.publisher_id, RIGHT_HOSTS, time)
    if problem:
        raise Rejected(problem)
    issuer = Issuer.parse(answer.issuer)
    body, signature = answer.certificate[:-64], answer.certificate[-64:]
    require(certificate.issuer_serial == issuer.serial, "CERTIFICATE_SIGNATURE")
    require(signature_is_valid(issuer.public_key, signature, HOST_CONTEXT, body), "CERTIFICATE_SIGNATURE")
    numbers = [family.number for family in certificate.families]
    require(certificate.kind == 2, "CERTIFICATE_KIND")
    require(certificate.publisher_id == product.publisher_id, "CERTIFICATE_KIND")
    require(numbers == sorted(set(numbers)), "CERTIFICATE_KIND")
    require(product.customer_id in (0, certificate.customer_id), "CERTIFICATE_KIND")
    require(certificate.not_before <= time <= certificate.not_after, "CERTIFICATE_DATES")


def certified_family(product: Product, certificate: HostCertificate, leaf: Leaf) -> Family:
    """Steps 15 and 16."""
    require(leaf.family_index < certificate.family_count, "FAMILY_NOT_CERTIFIED")
    family = certificate.families[leaf.family_index]
    require(family.number == product.family, "FAMILY_NOT_CERTIFIED")
    require(leaf.generation == product.generation, "GENERATION_NOT_CERTIFIED")
    require(leaf.generation <= family.generation, "GENERATION_NOT_CERTIFIED")
    return family


def check_batch(
    product: Product, answer: Answer, certificate: HostCertificate, header: Header, leaf_hash: bytes
) -> None:
    """Steps 17 to 20."""
    require(certificate.serial not in product.revoked, "CERTIFICATE_REVOKED")
    require((header.host_id, header.serial) == (certificate.host_id, certificate.serial), "HEADER_HOST_MISMATCH")
    signed = signature_is_valid(certificate.public_key, answer.header_signature, HEADER_CONTEXT, answer.header)
    require(signed, "BATCH_SIGNATURE")
    require(1 <= header.tree_size <= 1024, "NOT_INCLUDED")
    require(is_included(answer.leaf_index, header.tree_size, leaf_hash, answer.path, header.root), "NOT_INCLUDED")


def check_bounds(leaf: Leaf, family: Family) -> None:
    """Steps 21 to 23."""
    require(leaf.current_count >= leaf.threshold, "COUNT_OUT_OF_BOUNDS")
    require(leaf.threshold >= family.minimum_threshold, "THRESHOLD_OUT_OF_BOUNDS")
    require(1 <= leaf.validity <= min(family.maximum_validity, YEAR_MINUTES), "VALIDITY_OUT_OF_BOUNDS")


def check_times(time: int, clock: Clock) -> None:
    """Steps 24 and 25."""
    require(abs(time - clock.now_ms) <= 4 * HOUR_MS, "ANSWER_TIME")
    require(min(time, clock.now_ms) >= clock.mark_ms - 8 * HOUR_MS, "CLOCK_SET_BACK")
