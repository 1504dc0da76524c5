"""Vectors of answers: accepted ones, and for every step of "What a client checks" ones that must be refused."""

import struct
from collections.abc import Iterator
from typing import Any

from tests.reference.certificate import DAY_MS, Family
from tests.reference.crypto import sha256
from tests.reference.host import Publisher, make_key
from tests.reference.request import hash_request, seal_request
from tests.reference.verify import HOUR_MS, YEAR_MINUTES, Asked, Clock, Product
from tests.vectors.world import (
    ASKED,
    CERTIFIED,
    CLOCK,
    FAMILIES,
    FIELDS,
    ISSUER_FROM,
    KEYS,
    PRODUCT,
    PUBLISHER,
    TIME,
    build,
)

STRANGER = Publisher.from_seed("stranger")
STRANGE_KEY = make_key("stranger")
OTHER_REQUEST = seal_request(KEYS, FIELDS.to_bytes(), b"other nonce here")
SUFFIX = len(build(size=1, index=0)) - 140


def client(product: Product = PRODUCT, asked: Asked = ASKED, clock: Clock = CLOCK) -> dict[str, Any]:
    """What a client knows, asked and sees on its clock, for JSON."""
    return {
        "publisher_id": product.publisher_id.hex(),
        "roots": [root.hex() for root in product.roots],
        "sku_id": product.keys.sku_id.hex(),
        "request_key": product.keys.request_key.hex(),
        "answer_secret": product.keys.answer_secret.hex(),
        "family": product.family,
        "generation": product.generation,
        "customer_id": product.customer_id,
        "revoked": sorted(product.revoked),
        "request": asked.request.hex(),
        "cmid": asked.cmid.hex(),
        "hardware_digest": asked.hardware_digest.hex(),
        "now_ms": clock.now_ms,
        "mark_ms": clock.mark_ms,
    }


def put(data: bytes, at: int, value: bytes) -> bytes:
    """``data`` with ``value`` in place of its bytes from ``at`` on; a negative ``at`` counts from the end."""
    at %= len(data)
    return data[:at] + value + data[at + len(value) :]


def decided() -> Iterator[tuple[str, bytes, int]]:
    """Every outcome in trees of every shape: what, answer, result."""
    late = FIELDS._replace(client_time=TIME - 5 * HOUR_MS)
    late_request = seal_request(KEYS, late.to_bytes(), bytes(16))
    for size in (1, 2, 3, 5, 8, 1024):
        for index in sorted({0, size - 1}):
            where = f"leaf {index} of {size}"
            yield f"granted, {where}", build(size=size, index=index), 0
            yield f"below threshold, {where}", build(size=size, index=index, count=24), 0xC004F038
            only = [FAMILIES[0]]
            yield f"family not certified, {where}", build(size=size, index=index, families=only), 0xC004F042
            older = [Family(6, 2, 25, 259_200)]
            yield f"product too new, {where}", build(size=size, index=index, families=older), 0xC004F042
            wrong = build(size=size, index=index, fields=late, request=late_request)
            yield f"clock five hours slow, {where}", wrong, 0xC004F06C


def bounds() -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Answers just inside a bound: what, answer, changes to the client."""
    plain = build()
    yield "client four hours ahead", plain, {"now_ms": TIME + 4 * HOUR_MS}
    yield "client four hours behind", plain, {"now_ms": TIME - 4 * HOUR_MS}
    yield "eight hours before the mark", plain, {"now_ms": TIME, "mark_ms": TIME + 8 * HOUR_MS}
    yield "client eight hours before the mark", plain, {"now_ms": TIME - 9, "mark_ms": TIME - 9 + 8 * HOUR_MS}
    yield "issuer's last moment", build(issuer={"not_after": TIME}), {}
    yield "issuer's first moment", build(issuer={"not_before": TIME}), {}
    yield "certificate's last moment", build(certificate={"not_after": TIME}), {}
    yield "certificate's first moment", build(certificate={"not_before": TIME}), {}
    yield "certificate of one moment", build(certificate={"not_before": TIME, "not_after": TIME}), {}
    yield "customer pinned", build(certificate={"customer_id": 77}), {"customer_id": 77}
    yield "customer not pinned", build(certificate={"customer_id": 77}), {}
    yield "second of two roots", plain, {"roots": [STRANGER.root.hex(), PUBLISHER.root.hex()]}
    yield "another serial revoked", plain, {"revoked": [0, 2, 2**64 - 1]}
    yield "rights only for hosts", build(issuer={"rights": 1}), {}
    yield "one family", build(families=[CERTIFIED]), {}
    yield "generation exactly the certified one", build(families=[CERTIFIED._replace(generation=3)]), {}
    yield "longest certified validity", build(leaf={"validity": 259_200}), {}
    yield "shortest validity", build(leaf={"validity": 1}), {}
    year = [CERTIFIED._replace(maximum_validity=2**32 - 1)]
    yield "a year", build(families=year, leaf={"validity": YEAR_MINUTES}), {}
    yield "threshold above the certified minimum", build(leaf={"threshold": 30, "current_count": 30}), {}
    yield "threshold and minimum zero", build(families=[CERTIFIED._replace(minimum_threshold=0)],
                                              leaf={"threshold": 0, "current_count": 0}), {}  # fmt: skip
    yield "intervals to be clamped", build(leaf={"activation_interval": 0, "renewal_interval": 2**32 - 1}), {}


def accepted() -> list[dict[str, Any]]:
    """Answers that pass every check, with the leaf's result."""
    late = seal_request(KEYS, FIELDS._replace(client_time=TIME - 5 * HOUR_MS).to_bytes(), bytes(16))
    slow = client(asked=ASKED._replace(request=late), clock=Clock(TIME - 5 * HOUR_MS, TIME + 9 * HOUR_MS))
    vectors = [
        {"what": what, **(slow if result == 0xC004F06C else client()), "result": result, "answer": data.hex()}
        for what, data, result in decided()
    ]
    vectors += [
        {"what": what, **client(), **changes, "result": 0, "answer": data.hex()} for what, data, changes in bounds()
    ]
    unknown = build(leaf={"result": 0xC004FFFF, "family_index": 255, "validity": 0, "generation": 99})
    vectors.append(
        {"what": "a refusal unknown to this page", **client(), "result": 0xC004FFFF, "answer": unknown.hex()}
    )
    return vectors


def malformed() -> Iterator[tuple[int, str, bytes, dict[str, Any]]]:
    """Step 1."""
    plain = build()
    header, certificate, issuer = 140 + 96, 320 + 96, len(plain) - 144
    for length in (0, 1, 139, 140, 319, header + 116, certificate + 3, certificate + 168, issuer, len(plain) - 1):
        yield 1, f"cut to {length} bytes", plain[:length], {}
    yield 1, "a byte left over", plain + b"\0", {}
    for what, at, value in [
        ("answer version 0", 0, 0), ("answer version 2", 0, 2), ("answer type 1", 1, 1), ("answer reserved", 5, 1),
        ("a path node too many", 4, 4), ("header version 2", header, 2), ("header type 2", header + 1, 2),
        ("certificate version 2", certificate, 2), ("certificate reserved", certificate + 3, 1),
        ("no family", certificate + 2, 0), ("a family less than the length has", certificate + 2, 7),
        ("issuer version 2", issuer, 2),
    ]:  # fmt: skip
        yield 1, what, put(plain, at, bytes([value])), {}
    yield 1, "eleven path nodes", put(plain[:140] + bytes(32 * 8) + plain[140:], 4, b"\x0b"), {}
    nine = [*FAMILIES, FAMILIES[-1]._replace(number=9)]
    yield 1, "nine families", build(families=nine), {}
    yield 1, "no families at all", build(families=[], leaf={"family_index": 0, "result": 0, "validity": 1}), {}


def opened() -> Iterator[tuple[int, str, bytes, dict[str, Any]]]:
    """Steps 2 to 7."""
    plain = build()
    yield 2, "tag changed", put(plain, 6, bytes([plain[6] ^ 1])), {}
    yield 2, "sealed leaf changed", put(plain, 139, bytes([plain[139] ^ 0x80])), {}
    yield 2, "header changed", put(plain, 140 + 96 + 16, b"\1"), {}
    yield 2, "an answer to another request", build(request=OTHER_REQUEST), {}
    yield 2, "sealed leaf of another batch", put(plain, 6, build(size=4)[6:140]), {}
    for field, value in [("version", 2), ("leaf_type", 2), ("reserved", 1)]:
        yield 3, f"leaf {field} {value}", build(leaf={field: value}), {}
    yield 4, "leaf of another request", build(leaf={"request_hash": hash_request(OTHER_REQUEST)}), {}
    yield 5, "another product", build(leaf={"sku_id": bytes(16)}), {}
    yield 6, "another machine", build(leaf={"cmid": b"c" * 16}), {}
    yield 7, "other hardware", build(leaf={"hardware_digest": b"h" * 16}), {}


def chained() -> Iterator[tuple[int, str, bytes, dict[str, Any]]]:
    """Steps 8 to 14."""
    yield 8, "another root", build(), {"roots": [STRANGER.root.hex()]}
    yield 8, "no root", build(), {"roots": []}
    yield 9, "issuer signed by another key", build(issuer_signer=STRANGE_KEY), {}
    yield 9, "issuer changed after signing", put(build(), -144 + 2, b"\1"), {}
    for rights in (0, 6, 9, 0xFFFF):
        yield 10, f"rights {rights}", build(issuer={"rights": rights}), {}
    yield 10, "kind 2", build(issuer={"kind": 2}), {}
    yield 10, "another publisher's issuer", build(issuer={"publisher_id": STRANGER.publisher_id}), {}
    yield 11, "a millisecond too long", build(issuer={"not_after": ISSUER_FROM + 731 * DAY_MS + 1}), {}
    yield 11, "not after before not before", build(issuer={"not_before": TIME + 1, "not_after": TIME - 1}), {}
    yield 11, "all times", build(issuer={"not_before": 0, "not_after": 2**64 - 1}), {}
    yield 11, "times that overflow", build(issuer={"not_before": 2**64 - 2, "not_after": 2**64 - 1}), {}
    yield 11, "header after its end", build(issuer={"not_after": TIME - 1}), {}
    yield 11, "header before its start", build(issuer={"not_before": TIME + 1}), {}
    yield 12, "another issuer's serial", build(certificate={"issuer_serial": 2}), {}
    yield 12, "signed by another key", build(certificate_signer=STRANGE_KEY), {}
    yield 12, "changed after signing", put(build(), -144 - 64 - 4, struct.pack("<I", 525_600)), {}
    yield 13, "kind 1", build(certificate={"kind": 1}), {}
    yield 13, "another publisher's certificate", build(certificate={"publisher_id": STRANGER.publisher_id}), {}
    yield 13, "a family twice", build(families=[CERTIFIED, CERTIFIED]), {}
    yield 13, "families descending", build(families=[CERTIFIED, FAMILIES[0]]), {}
    yield 13, "another customer", build(certificate={"customer_id": 76}), {"customer_id": 77}
    yield 13, "no customer", build(), {"customer_id": 77}
    yield 14, "header after its end", build(certificate={"not_after": TIME - 1}), {}
    yield 14, "header before its start", build(certificate={"not_before": TIME + 1}), {}


def proven() -> Iterator[tuple[int, str, bytes, dict[str, Any]]]:
    """Steps 15 to 20."""
    for index in (8, 254, 255):
        yield 15, f"family index {index}", build(leaf={"family_index": index}), {}
    yield 15, "another family", build(leaf={"family_index": 4}), {}
    yield 16, "an older generation than the product's", build(leaf={"generation": 2}), {}
    yield 16, "a newer generation than the product's", build(leaf={"generation": 4}), {}
    older = [CERTIFIED._replace(generation=2)]
    yield 16, "newer than certified", build(families=older, leaf={"result": 0, "validity": 9}), {}
    yield 17, "revoked", build(), {"revoked": [1]}
    yield 17, "a refusal, revoked", build(count=24), {"revoked": [1, 2]}
    yield 18, "another host's ID", build(header={"host_id": bytes(16)}), {}
    yield 18, "another serial", build(header={"serial": 2}), {}
    yield 19, "signed by another key", build(header_signer=STRANGE_KEY), {}
    signature = 140 + 96 + 116
    yield 19, "signature changed", put(build(), signature, bytes([build()[signature] ^ 1])), {}
    yield 20, "tree size 0", build(header={"tree_size": 0}), {}
    yield 20, "tree size 1025", build(header={"tree_size": 1025}), {}
    yield 20, "tree size 65535", build(header={"tree_size": 65_535}), {}
    yield 20, "index at the tree's size", put(build(), 2, b"\5"), {}
    yield 20, "another leaf's index", put(build(), 2, b"\3"), {}
    yield 20, "a node changed", put(build(), 140, bytes(32)), {}
    yield 20, "path too long", put(build()[:140] + bytes(32) + build()[140:], 4, b"\4"), {}
    yield 20, "path too short", put(build()[:140] + build()[172:], 4, b"\2"), {}
    yield 20, "path too short for the last leaf", put(build(size=6, index=5, header={"tree_size": 5}), 2, b"\4"), {}
    yield 20, "another root", build(header={"root": sha256(b"another")}), {}
    yield 20, "a refusal that is not in the tree", build(count=24, header={"root": sha256(b"another")}), {}


def bounded() -> Iterator[tuple[int, str, bytes, dict[str, Any]]]:
    """Steps 21 to 25."""
    yield 21, "one machine too few", build(leaf={"current_count": 24}), {}
    yield 21, "no machine", build(leaf={"current_count": 0}), {}
    yield 22, "threshold below the certified minimum", build(leaf={"threshold": 24}), {}
    yield 22, "threshold zero", build(leaf={"threshold": 0}), {}
    yield 23, "validity zero", build(leaf={"validity": 0}), {}
    yield 23, "a minute above the certified maximum", build(leaf={"validity": 259_201}), {}
    year = [CERTIFIED._replace(maximum_validity=2**32 - 1)]
    yield 23, "a minute above a year", build(families=year, leaf={"validity": YEAR_MINUTES + 1}), {}
    yield 24, "client too far ahead", build(), {"now_ms": TIME + 4 * HOUR_MS + 1}
    yield 24, "client too far behind", build(), {"now_ms": TIME - 4 * HOUR_MS - 1}
    yield 24, "a refusal for count, too far", build(count=24), {"now_ms": TIME - 4 * HOUR_MS - 1}
    yield 24, "client at zero", build(), {"now_ms": 0}
    yield 25, "header before the mark", build(), {"now_ms": TIME + 9, "mark_ms": TIME + 8 * HOUR_MS + 1}
    yield 25, "client before the mark", build(), {"now_ms": TIME - 9, "mark_ms": TIME - 9 + 8 * HOUR_MS + 1}
    yield 25, "a refusal before the mark", build(count=24), {"mark_ms": TIME + 9 * HOUR_MS}


# One fault for each step, chosen so that any of them can be made together.
FAULTS: dict[int, dict[str, dict[str, Any]]] = {
    3: {"leaf": {"reserved": 1}},
    4: {"leaf": {"request_hash": bytes(32)}},
    5: {"leaf": {"sku_id": bytes(16)}},
    6: {"leaf": {"cmid": bytes(16)}},
    7: {"leaf": {"hardware_digest": bytes(16)}},
    8: {"client": {"roots": [STRANGER.root.hex()]}},
    9: {"signers": {"issuer_signer": STRANGE_KEY}},
    10: {"issuer": {"rights": 6}},
    11: {"issuer": {"not_after": TIME - 1}},
    12: {"certificate": {"issuer_serial": 2}},
    13: {"certificate": {"kind": 1}},
    14: {"certificate": {"not_after": TIME - 1}},
    15: {"leaf": {"family_index": 4}},
    16: {"leaf": {"generation": 2}},
    17: {"client": {"revoked": [1]}},
    18: {"header": {"host_id": bytes(16)}},
    19: {"signers": {"header_signer": STRANGE_KEY}},
    20: {"header": {"root": bytes(32)}},
    21: {"leaf": {"current_count": 23}},
    22: {"leaf": {"threshold": 24}},
    23: {"leaf": {"validity": 0}},
    24: {"client": {"now_ms": TIME + 5 * HOUR_MS}},
    25: {"client": {"mark_ms": TIME + 20 * HOUR_MS}},
}


def ordered() -> Iterator[tuple[int, str, bytes, dict[str, Any]]]:
    """For each step an answer that fails it and every later one: proof of the order."""
    for step in range(1, 26):
        made: dict[str, Any] = {}
        for fault in (fault for later, fault in FAULTS.items() if later >= step):
            for part, changes in fault.items():
                made[part] = {**made.get(part, {}), **changes}
        changes, signers = made.pop("client", {}), made.pop("signers", {})
        data = build(**made, **signers)
        if step <= 2:
            data = put(data, 6, bytes([data[6] ^ 1]))
        if step == 1:
            data = put(data, 5, b"\1")
        yield step, "and every later step fails too", data, changes


ERRORS = (
    "ANSWER_MALFORMED",
    "ANSWER_UNREADABLE",
    "ANSWER_MALFORMED",
    "REQUEST_HASH_MISMATCH",
    "SKU_MISMATCH",
    "CMID_MISMATCH",
    "HARDWARE_MISMATCH",
    "ROOT_UNKNOWN",
    "ISSUER_SIGNATURE",
    "ISSUER_RIGHTS",
    "ISSUER_DATES",
    "CERTIFICATE_SIGNATURE",
    "CERTIFICATE_KIND",
    "CERTIFICATE_DATES",
    "FAMILY_NOT_CERTIFIED",
    "GENERATION_NOT_CERTIFIED",
    "CERTIFICATE_REVOKED",
    "HEADER_HOST_MISMATCH",
    "BATCH_SIGNATURE",
    "NOT_INCLUDED",
    "COUNT_OUT_OF_BOUNDS",
    "THRESHOLD_OUT_OF_BOUNDS",
    "VALIDITY_OUT_OF_BOUNDS",
    "ANSWER_TIME",
    "CLOCK_SET_BACK",
)


def refusals() -> list[dict[str, Any]]:
    """Answers that must be refused, with the step and the error's name."""
    return [
        {"step": step, "error": ERRORS[step - 1], "what": what, **client(), **changes, "answer": data.hex()}
        for part in (malformed, opened, chained, proven, bounded, ordered)
        for step, what, data, changes in part()
    ]
