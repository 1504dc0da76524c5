"""Vectors of every message that is not an answer: each function gives the content of one file."""

from typing import Any

from tests.reference import merkle
from tests.reference.answer import HEADER_CONTEXT, Header, Leaf, seal_leaf
from tests.reference.certificate import HostCertificate, Issuer, Revocations, build_query
from tests.reference.crypto import public_bytes, sha256, sign
from tests.reference.request import Fields, SkuKeys, hash_request, seal_request
from tests.vectors.world import (
    CERTIFIED,
    CMID,
    FAMILIES,
    FIELDS,
    HOST_FROM,
    HOST_KEY,
    ISSUER_FROM,
    KEYS,
    NONCE,
    PUBLISHER,
    REQUEST,
    SECRET,
    SKU_ID,
    TIME,
    build,
)

Vectors = list[dict[str, Any]]


def as_json(fields: Any) -> dict[str, Any]:
    """A structure's fields for JSON: bytes as hex, the rest as it is."""
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in fields._asdict().items()}


def keys() -> Vectors:
    """docs/protocol.md, "Keys of a SKU"."""
    inputs = [
        (SECRET, PUBLISHER.publisher_id, SKU_ID),
        (bytes(10), bytes(16), bytes(16)),
        (b"\xff" * 10, b"\xff" * 16, b"\xff" * 16),
        (SECRET, SKU_ID, PUBLISHER.publisher_id),
    ]
    return [
        {
            "secret": secret.hex(),
            "publisher_id": publisher_id.hex(),
            **as_json(SkuKeys.derive(secret, publisher_id, sku)),
        }
        for secret, publisher_id, sku in inputs
    ]


def requests() -> Vectors:
    """Sealed fields and the request they make; docs/protocol.md, "Request"."""
    largest = Fields(
        b"\xff" * 16, b"\xff" * 16, "😀".encode() * 16, 2**64 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1, 5, 1, 0,
        b"\xff" * 16, b"\xff" * 32,
    )  # fmt: skip
    smallest = Fields(bytes(15) + b"\1")
    renewal = FIELDS._replace(licence_state=1, revocation_list=3, predecessor=sha256(b"lease"), previous_cmid=b"p" * 16)
    return [
        {
            **as_json(KEYS),
            "fields": {**as_json(fields), "name": fields.name.decode()},
            "fields_bytes": fields.to_bytes().hex(),
            "nonce": nonce.hex(),
            "request": (request := seal_request(KEYS, fields.to_bytes(), nonce)).hex(),
            "request_hash": hash_request(request).hex(),
            "answer_key": KEYS.answer_key(request).hex(),
        }
        for fields, nonce in [(FIELDS, NONCE), (renewal, NONCE), (smallest, bytes(16)), (largest, b"\xff" * 16)]
    ]


def refused_requests() -> Vectors:
    """Requests that a host refuses with REQUEST_UNREADABLE."""
    names = [b"a\0b", b"\x1f", b"\x7f", "\x80".encode(), "\x9f".encode(), b"\xff", b"\xc0\x80", b"\xed\xa0\x80"]
    sealed = [
        ("CMID is zero", FIELDS._replace(cmid=bytes(16))),
        ("licence state 4", FIELDS._replace(licence_state=4)),
        ("licence state 6", FIELDS._replace(licence_state=6)),
        ("virtual machine 2", FIELDS._replace(virtual_machine=2)),
        ("reserved 1", FIELDS._replace(reserved=1)),
        ("reserved 256", FIELDS._replace(reserved=256)),
        ("name ends inside a character", FIELDS._replace(name=b"x" * 63 + b"\xc3")),
        *((f"name {name.hex()}", FIELDS._replace(name=name)) for name in names),
    ]
    clear = bytearray(REQUEST)
    changed = [("empty", b""), ("last byte missing", REQUEST[:-1]), ("a byte left over", REQUEST + b"\0")]
    for what, at in [("version", 0), ("type", 1), ("reserved", 2), ("reserved", 3), ("nonce", 20), ("tag", 36)]:
        changed.append((f"{what} at {at} changed", bytes(clear[:at]) + bytes([clear[at] ^ 2]) + bytes(clear[at + 1 :])))
    return [
        {"what": what, **as_json(KEYS), "request": request.hex()}
        for what, request in [(what, seal_request(KEYS, fields.to_bytes(), NONCE)) for what, fields in sealed] + changed
    ]


def leaves() -> Vectors:
    """Leaf, leaf hash and how it is sealed; docs/protocol.md, "Leaf" and "Answer"."""
    header = sha256(b"any header") * 4
    lease = Leaf(1, 1, 5, 0, 0, hash_request(REQUEST), SKU_ID, CMID, b"h" * 16, TIME, 3, 259_200, 120, 10_080, 25, 25)
    refusal = lease._replace(result=0xC004F042, family_index=255, validity=0, current_count=2**32 - 1)
    return [
        {
            "fields": as_json(leaf),
            "leaf": (data := leaf.to_bytes()).hex(),
            "leaf_hash": merkle.hash_leaf(data).hex(),
            "answer_key": KEYS.answer_key(REQUEST).hex(),
            "header": header[:116].hex(),
            "sealed": seal_leaf(KEYS.answer_key(REQUEST), data, header[:116]).hex(),
        }
        for leaf in (lease, refusal)
    ]


def headers() -> Vectors:
    """Batch header, its hash and signature; docs/protocol.md, "Batch header"."""
    first = Header.parse(build()[140 + 3 * 32 :][:116])
    last = first._replace(tree_size=1024, segment=2**32 - 1, number=2**64 - 1, revocation_list=2**32 - 1)
    return [
        {
            "fields": as_json(header),
            "header": (data := header.to_bytes()).hex(),
            "header_hash": sha256(data).hex(),
            "public_key": public_bytes(HOST_KEY).hex(),
            "signature": sign(HOST_KEY, HEADER_CONTEXT, data).hex(),
        }
        for header in (first, last)
    ]


def issuer_certificates() -> Vectors:
    """docs/protocol.md, "Issuer certificate"."""
    certificates = [
        PUBLISHER.issue_issuer(ISSUER_FROM),
        PUBLISHER.issue_issuer(ISSUER_FROM, rights=1, serial=2**32 - 1),
    ]
    return [
        {"root": PUBLISHER.root.hex(), "fields": as_json(Issuer.parse(data)), "certificate": data.hex()}
        for data in certificates
    ]


def host_certificates() -> Vectors:
    """docs/protocol.md, "Host certificate"; with 1 and with 8 families."""
    vectors = []
    for families in ([CERTIFIED], FAMILIES):
        data = PUBLISHER.issue_host(HOST_KEY, families, HOST_FROM, customer_id=len(families) - 1)
        fields = as_json(HostCertificate.parse(data))
        fields["families"] = [as_json(family) for family in families]
        issuer = public_bytes(PUBLISHER.issuer_key).hex()
        vectors.append({"issuer_public_key": issuer, "fields": fields, "certificate": data.hex()})
    return vectors


def revocations() -> Vectors:
    """Query and list; docs/protocol.md, "Revocations". The answer to a query for the list before it."""
    issuer = PUBLISHER.issue_issuer(ISSUER_FROM)
    vectors = []
    for number, serials in [(1, ()), (2, (7,)), (2**32 - 1, (*range(1, 400), 2**64 - 1))]:
        data = PUBLISHER.issue_revocations(number, TIME, serials, issuer)
        fields = as_json(Revocations.parse(data))
        vectors.append(
            {"query": build_query(number - 1).hex(), "root": PUBLISHER.root.hex(), "fields": fields, "list": data.hex()}
        )
    return vectors


def trees() -> Vectors:
    """Roots and inclusion paths of trees whose leaf i is the two bytes of i, little-endian; RFC 9162 §2.1."""
    vectors = []
    for size in (1, 2, 3, 5, 8, 1023, 1024):
        entries = [i.to_bytes(2, "little") for i in range(size)]
        for index in sorted({0, size // 2, size - 1}):
            nodes = [node.hex() for node in merkle.path(index, entries)]
            vectors.append({"size": size, "index": index, "root": merkle.root(entries).hex(), "path": nodes})
    return vectors
