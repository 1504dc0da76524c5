"""Every check of docs/protocol.md, "What a client checks": each has an answer that fails it and no other before it."""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kms_fast._core import CHECK_NAMES, Checked, SkuKeys, Verifier, _use_backend, backend
from kms_fast.errors import BY_NAME, AnswerRejected
from tests import answers
from tests.answers import (
    CMID,
    DAY_MS,
    HARDWARE,
    HOUR_MS,
    ISSUER,
    NOW_MS,
    PUBLISHER_ID,
    ROOT,
    SKU_ID,
    Answer,
    Certificate,
    Header,
    Issuer,
    Leaf,
    public,
    verify_signature,
)

REQUEST_KEY, ANSWER_SECRET = bytes(range(32)), bytes(range(32, 64))
KEYS = SkuKeys(SKU_ID, REQUEST_KEY, ANSWER_SECRET)
REQUEST = KEYS.seal_request(CMID + bytes(80) + struct.pack("<QQ", NOW_MS, 0) + bytes(56), b"nonce-of-16-byte")
ANSWER = Answer(ANSWER_SECRET)
REFUSAL = replace(ANSWER, leaf=Leaf(result=0xC004F038, validity=0, count=3))
CLOCK_REFUSAL = replace(ANSWER, leaf=Leaf(result=0xC004F06C, validity=0))


def make_verifier(**changes: Any) -> Verifier:
    settings: dict[str, Any] = {
        "publisher_id": PUBLISHER_ID,
        "roots": [public(answers.HOST), public(ROOT)],
        "sku": KEYS,
        "family": 4,
        "generation": 3,
        "verify_signature": verify_signature,
    }
    return Verifier(**(settings | changes))


def check(answer: Answer | bytes, verifier: Verifier | None = None, **options: Any) -> Checked:
    data = answer if isinstance(answer, bytes) else answer.to_bytes(REQUEST)
    options = {"now_ms": NOW_MS} | options
    return (verifier or make_verifier()).check(REQUEST, CMID, HARDWARE, data, **options)


def failed_step(answer: Answer | bytes, verifier: Verifier | None = None, **options: Any) -> int:
    with pytest.raises(AnswerRejected) as caught:
        check(answer, verifier, **options)
    step = caught.value.details["step"]
    assert caught.value.result.name == CHECK_NAMES[step]
    return int(step)


def with_leaf(**changes: Any) -> Answer:
    return replace(ANSWER, leaf=Leaf(**changes))


def with_header(**changes: Any) -> Answer:
    return replace(ANSWER, header=Header(**changes))


def with_certificate(**changes: Any) -> Answer:
    return replace(ANSWER, certificate=Certificate(**changes))


def with_issuer(**changes: Any) -> Answer:
    return replace(ANSWER, issuer=Issuer(**changes))


def test_a_grant_passes_with_its_leaf_and_header() -> None:
    checked = check(ANSWER)
    assert checked.leaf == Leaf().to_bytes(REQUEST)
    assert checked.leaf_hash == hashlib.sha256(b"\0" + checked.leaf).digest()
    assert checked.header[:4] == b"\x01\x01\x05\x00"
    assert checked.result == 0


def test_a_signed_refusal_passes_without_the_checks_of_a_grant() -> None:
    leaf = Leaf(result=0xC004F042, family_index=255, generation=9, validity=0, count=0, threshold=0)
    assert check(replace(ANSWER, leaf=leaf)).result == 0xC004F042
    assert check(REFUSAL).result == 0xC004F038


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 9, 255, 1000, 1024])
def test_every_tree_size_passes(size: int) -> None:
    verifier = make_verifier()
    for index in {0, size // 2, size - 1}:
        assert check(replace(ANSWER, size=size, index=index), verifier).result == 0


FAILURES: list[tuple[int, Answer]] = [
    (1, replace(ANSWER, version=2)),
    (1, replace(ANSWER, message_type=1)),
    (1, replace(ANSWER, reserved=1)),
    (1, replace(ANSWER, path=[bytes(32)] * 11)),
    (1, with_header(version=2)),
    (1, with_header(header_type=2)),
    (1, with_certificate(version=2)),
    (1, with_certificate(reserved=1)),
    (1, with_certificate(families=())),
    (1, with_certificate(families=[(n, 3, 25, 259_200) for n in range(9)])),
    (1, with_certificate(family_count=3)),
    (1, with_issuer(version=2)),
    (2, Answer(bytes(32))),
    (3, with_leaf(version=2)),
    (3, with_leaf(leaf_type=2)),
    (3, with_leaf(reserved=1)),
    (4, with_leaf(request_hash=bytes(32))),
    (5, with_leaf(sku_id=bytes(16))),
    (6, with_leaf(cmid=bytes(16))),
    (7, with_leaf(hardware=bytes(16))),
    (8, with_issuer(root_id=bytes(8))),
    (9, with_issuer(key=ISSUER)),
    (9, with_issuer(root_id=hashlib.sha256(public(answers.HOST)).digest()[:8])),
    (10, with_issuer(kind=2)),
    (10, with_issuer(publisher_id=bytes(16))),
    (10, with_issuer(rights=6)),
    (10, with_issuer(rights=9)),
    (10, with_issuer(rights=0x8001)),
    (11, with_issuer(not_before=NOW_MS, not_after=NOW_MS - 1)),
    (11, with_issuer(not_before=NOW_MS, not_after=NOW_MS + 731 * DAY_MS + 1)),
    (11, with_issuer(not_before=NOW_MS + 1)),
    (11, with_issuer(not_after=NOW_MS - 1)),
    (12, with_certificate(issuer_serial=8)),
    (12, with_certificate(key=ROOT)),
    (13, with_certificate(kind=1)),
    (13, with_certificate(publisher_id=bytes(16))),
    (13, with_certificate(families=[(4, 3, 25, 9), (4, 3, 25, 259_200)])),
    (13, with_certificate(families=[(5, 3, 25, 9), (4, 3, 25, 259_200)])),
    (14, with_certificate(not_before=NOW_MS + 1)),
    (14, with_certificate(not_after=NOW_MS - 1)),
    (15, with_leaf(family_index=0)),
    (15, with_leaf(family_index=2)),
    (15, with_leaf(family_index=255)),
    (16, with_leaf(generation=2)),
    (16, with_certificate(families=[(2, 5, 5, 100_000), (4, 2, 25, 259_200)])),
    (18, with_header(host_id=bytes(16))),
    (18, with_header(serial=98)),
    (19, with_header(key=ISSUER)),
    (20, with_header(root=bytes(31) + b"\1")),
    (20, with_header(tree_size=0)),
    (20, with_header(tree_size=3)),
    (20, with_header(tree_size=1025)),
    (20, replace(ANSWER, path=[])),
    (20, replace(ANSWER, path=[bytes(32)] * 3)),
    (20, replace(ANSWER, path=[bytes(32)] * 4)),
    (21, with_leaf(count=24)),
    (22, with_leaf(count=24, threshold=24)),
    (23, with_leaf(validity=0)),
    (23, with_leaf(validity=259_201)),
    (23, replace(with_certificate(families=[(2, 5, 5, 9), (4, 3, 25, 2**32 - 1)]), leaf=Leaf(validity=525_601))),
    (24, with_header(time=NOW_MS - 4 * HOUR_MS - 1)),
    (24, with_header(time=NOW_MS + 4 * HOUR_MS + 1)),
]


@pytest.mark.parametrize(("step", "answer"), FAILURES)
def test_each_failure_is_found_at_its_step(step: int, answer: Answer) -> None:
    assert failed_step(answer) == step


def test_the_table_leaves_out_no_step() -> None:
    elsewhere = {17, 25}
    assert {step for step, _ in FAILURES} | elsewhere == set(range(1, 26))
    assert all(name in BY_NAME for name in CHECK_NAMES)


def test_missing_and_trailing_bytes_are_malformed() -> None:
    data = ANSWER.to_bytes(REQUEST)
    assert failed_step(data + b"\0") == 1
    for length in range(len(data)):
        assert failed_step(data[:length]) == 1


def test_no_flipped_bit_passes() -> None:
    data = ANSWER.to_bytes(REQUEST)
    verifier = make_verifier()
    check(data, verifier)
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            failed_step(bytes(flipped), verifier)


def test_dates_are_inclusive() -> None:
    edges = Issuer(not_before=NOW_MS, not_after=NOW_MS)
    check(replace(ANSWER, issuer=edges, certificate=Certificate(not_before=NOW_MS, not_after=NOW_MS)))
    check(with_issuer(not_before=NOW_MS - DAY_MS, not_after=NOW_MS + 730 * DAY_MS))


def test_a_pinned_customer_is_demanded() -> None:
    pinned = make_verifier(customer_id=5)
    assert failed_step(ANSWER, pinned) == 13
    assert check(with_certificate(customer_id=5), pinned).result == 0


@pytest.mark.parametrize("answer", [ANSWER, REFUSAL, CLOCK_REFUSAL])
def test_a_revoked_certificate_is_refused_also_when_remembered(answer: Answer) -> None:
    verifier = make_verifier(revoked=[1, 99])
    assert failed_step(answer, verifier) == 17
    assert failed_step(answer, verifier) == 17


def test_times_belong_to_acceptance() -> None:
    old: dict[str, Any] = {"now_ms": NOW_MS + 100 * DAY_MS, "mark_ms": NOW_MS + 90 * DAY_MS}
    assert failed_step(ANSWER, **old) == 24
    assert check(ANSWER, accept=False, **old).result == 0
    assert check(ANSWER, now_ms=NOW_MS + 4 * HOUR_MS).result == 0


def test_a_clock_set_back_is_found_by_the_mark() -> None:
    assert check(ANSWER, mark_ms=NOW_MS + 8 * HOUR_MS).result == 0
    assert failed_step(ANSWER, mark_ms=NOW_MS + 8 * HOUR_MS + 1) == 25
    assert failed_step(ANSWER, now_ms=NOW_MS - 1, mark_ms=NOW_MS + 8 * HOUR_MS) == 25
    assert failed_step(REFUSAL, mark_ms=NOW_MS + 8 * HOUR_MS + 1) == 25


def test_a_clock_refusal_is_exempt_from_the_times() -> None:
    checked = check(CLOCK_REFUSAL, now_ms=NOW_MS + DAY_MS, mark_ms=NOW_MS + 9 * DAY_MS)
    assert checked.result == 0xC004F06C


def counting_verifier() -> tuple[Verifier, list[bytes]]:
    messages: list[bytes] = []

    def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
        messages.append(message)
        return verify_signature(public_key, signature, message)

    return make_verifier(verify_signature=verify), messages


def test_signatures_are_checked_once_and_remembered() -> None:
    verifier, messages = counting_verifier()
    for _ in range(5):
        check(ANSWER, verifier)
    assert len(messages) == 3
    check(with_header(number=2), verifier)
    assert len(messages) == 4


def test_the_oldest_header_is_forgotten_and_checked_again() -> None:
    verifier, messages = counting_verifier()
    for number in range(65):
        check(with_header(number=number), verifier)
    before = len(messages)
    check(with_header(number=64), verifier)
    check(with_header(number=1), verifier)
    assert len(messages) == before
    check(with_header(number=0), verifier)
    assert len(messages) == before + 1


def test_a_remembered_header_does_not_serve_another_host_key() -> None:
    verifier = make_verifier()
    check(ANSWER, verifier)
    assert failed_step(with_certificate(host_key=public(ISSUER)), verifier) == 19


def test_a_failed_check_is_not_remembered() -> None:
    verifier = make_verifier()
    for _ in range(2):
        assert failed_step(with_header(key=ISSUER), verifier) == 19
        assert failed_step(with_certificate(key=ROOT), verifier) == 12


def test_remembered_certificates_are_still_held_to_their_dates() -> None:
    verifier = make_verifier()
    check(ANSWER, verifier)
    late = NOW_MS + 201 * DAY_MS
    assert failed_step(with_header(time=late), verifier, now_ms=late) == 14
    later = NOW_MS + 301 * DAY_MS
    assert failed_step(with_header(time=later), verifier, now_ms=later) == 11


@pytest.mark.parametrize(
    "call",
    [
        lambda: make_verifier(publisher_id=b""),
        lambda: make_verifier(roots=[b"short"]),
        lambda: make_verifier().check(b"", CMID, HARDWARE, b"", now_ms=0),
        lambda: make_verifier().check(REQUEST, b"", HARDWARE, b"", now_ms=0),
        lambda: make_verifier().check(REQUEST, CMID, b"", b"", now_ms=0),
    ],
)
def test_wrong_lengths_of_our_own_are_a_value_error(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"bytes|16"):
        call()


def test_the_fall_back_cipher_checks_the_same() -> None:
    native = backend()["aes"]
    _use_backend(aes="cryptography")
    try:
        assert check(ANSWER).result == 0
        assert failed_step(Answer(bytes(32))) == 2
    finally:
        _use_backend(aes=native)
