"""The verifier beyond the vectors: what it remembers, trees of every kind, times, and its back ends.

tests/vectors has answers that fail each of the 25 steps, and every bit flipped.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from kms_fast._core import CHECK_NAMES, Checked, SkuKeys, Verifier, _use_backend, backend
from kms_fast.errors import AnswerRejected
from kms_fast.model.signing import verify_message
from kms_fast.results import BY_NAME
from tests.reference.certificate import DAY_MS
from tests.reference.crypto import public_bytes
from tests.reference.host import CANNOT_SERVE, COUNT_TOO_LOW, make_key
from tests.reference.verify import CLOCKS_DIFFER, HOUR_MS
from tests.vectors.world import CMID, HARDWARE, HOST_KEY, KEYS, PUBLISHER, REQUEST, SKU, TIME, build

ANSWER = build()
REFUSAL = build(count=3)
CLOCK_REFUSAL = build(leaf={"result": CLOCKS_DIFFER, "validity": 0})
STRANGER = make_key("stranger")


def make_verifier(**changes: Any) -> Verifier:
    settings: dict[str, Any] = {
        "publisher_id": PUBLISHER.publisher_id,
        "roots": [public_bytes(STRANGER), PUBLISHER.root],
        "sku": SkuKeys(*KEYS),
        "family": SKU.family,
        "generation": SKU.generation,
        "verify_signature": verify_message,
    }
    return Verifier(**(settings | changes))


def check(answer: bytes, verifier: Verifier | None = None, **options: Any) -> Checked:
    return (verifier or make_verifier()).check(REQUEST, CMID, HARDWARE, answer, **{"now_ms": TIME} | options)


def failed_step(answer: bytes, verifier: Verifier | None = None, **options: Any) -> int:
    with pytest.raises(AnswerRejected) as caught:
        check(answer, verifier, **options)
    step = caught.value.details["step"]
    assert caught.value.result.name == CHECK_NAMES[step]
    return int(step)


def test_every_step_has_a_result() -> None:
    assert len(CHECK_NAMES) == 26
    assert all(name in BY_NAME for name in CHECK_NAMES)


def test_a_grant_passes_with_its_leaf_and_header() -> None:
    checked = check(ANSWER)
    assert checked.leaf_hash == hashlib.sha256(b"\0" + checked.leaf).digest()
    assert checked.leaf[8:40] == hashlib.sha256(REQUEST).digest()
    assert checked.header == ANSWER[140 + 32 * ANSWER[4] :][:116]
    assert checked.result == 0


def test_a_signed_refusal_passes_without_the_checks_of_a_grant() -> None:
    leaf = {"result": CANNOT_SERVE, "family_index": 255, "generation": 9, "validity": 0, "threshold": 0}
    assert check(build(leaf=leaf)).result == CANNOT_SERVE
    assert check(REFUSAL).result == COUNT_TOO_LOW


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 9, 255, 1000, 1024])
def test_every_tree_size_passes(size: int) -> None:
    verifier = make_verifier()
    for index in {0, size // 2, size - 1}:
        assert check(build(size=size, index=index), verifier).result == 0


def test_dates_are_inclusive() -> None:
    moment = {"not_before": TIME, "not_after": TIME}
    assert check(build(issuer=moment, certificate=moment)).result == 0
    assert check(build(issuer={"not_before": TIME - DAY_MS, "not_after": TIME + 730 * DAY_MS})).result == 0


@pytest.mark.parametrize("answer", [ANSWER, REFUSAL, CLOCK_REFUSAL])
def test_a_revoked_certificate_is_refused_also_when_remembered(answer: bytes) -> None:
    verifier = make_verifier(revoked=[1, 99])
    assert failed_step(answer, verifier) == 17
    assert failed_step(answer, verifier) == 17


def test_times_belong_to_acceptance() -> None:
    late: dict[str, Any] = {"now_ms": TIME + 100 * DAY_MS, "mark_ms": TIME + 90 * DAY_MS}
    assert failed_step(ANSWER, **late) == 24
    assert check(ANSWER, accept=False, **late).result == 0
    assert check(ANSWER, now_ms=TIME + 4 * HOUR_MS).result == 0
    assert failed_step(ANSWER, now_ms=TIME + 4 * HOUR_MS + 1) == 24


def test_a_clock_set_back_is_found_by_the_mark() -> None:
    assert check(ANSWER, mark_ms=TIME + 8 * HOUR_MS).result == 0
    assert failed_step(ANSWER, mark_ms=TIME + 8 * HOUR_MS + 1) == 25
    assert failed_step(ANSWER, now_ms=TIME - 1, mark_ms=TIME + 8 * HOUR_MS) == 25
    assert failed_step(REFUSAL, mark_ms=TIME + 8 * HOUR_MS + 1) == 25


def test_a_clock_refusal_is_exempt_from_the_times() -> None:
    assert check(CLOCK_REFUSAL, now_ms=TIME + DAY_MS, mark_ms=TIME + 9 * DAY_MS).result == CLOCKS_DIFFER


def counting_verifier() -> tuple[Verifier, list[bytes]]:
    """A verifier, and the messages whose signatures it had checked."""
    messages: list[bytes] = []

    def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
        messages.append(message)
        return verify_message(public_key, signature, message)

    return make_verifier(verify_signature=verify), messages


def test_signatures_are_checked_once_and_remembered() -> None:
    verifier, messages = counting_verifier()
    for _ in range(5):
        check(ANSWER, verifier)
    contexts = [message.split(b"\0")[0] for message in messages]
    assert contexts == [b"kms_fast 1 issuer certificate", b"kms_fast 1 host certificate", b"kms_fast 1 batch header"]
    check(build(header={"number": 2}), verifier)
    assert len(messages) == 4


def test_the_oldest_header_is_forgotten_and_checked_again() -> None:
    verifier, messages = counting_verifier()
    for number in range(65):
        check(build(header={"number": number}), verifier)
    before = len(messages)
    check(build(header={"number": 64}), verifier)
    check(build(header={"number": 1}), verifier)
    assert len(messages) == before
    check(build(header={"number": 0}), verifier)
    assert len(messages) == before + 1


def test_the_oldest_certificates_are_forgotten_and_checked_again() -> None:
    verifier, messages = counting_verifier()
    for serial in range(9):
        check(build(certificate={"serial": serial}), verifier)
    before = len(messages)
    check(build(certificate={"serial": 8}), verifier)
    assert len(messages) == before
    check(build(certificate={"serial": 0}), verifier)
    assert len(messages) == before + 2


def test_a_remembered_header_does_not_serve_another_host_key() -> None:
    verifier = make_verifier()
    check(ANSWER, verifier)
    assert failed_step(build(certificate={"public_key": public_bytes(STRANGER)}), verifier) == 19


def test_a_failed_check_is_not_remembered() -> None:
    verifier = make_verifier()
    for _ in range(2):
        assert failed_step(build(header_signer=STRANGER), verifier) == 19
        assert failed_step(build(certificate_signer=HOST_KEY), verifier) == 12


def test_remembered_certificates_are_still_held_to_their_dates() -> None:
    verifier = make_verifier()
    late = TIME + 300 * DAY_MS
    dates: dict[str, Any] = {
        "certificate": {"not_before": TIME, "not_after": late - 1},
        "issuer": {"not_before": TIME, "not_after": late + 9},
    }
    assert check(build(**dates), verifier).result == 0
    assert failed_step(build(**dates, time=late), verifier) == 14
    assert failed_step(build(**dates, time=late + 10), verifier) == 11


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
    with pytest.raises(ValueError, match="bytes"):
        call()


def test_the_fall_back_cipher_checks_the_same() -> None:
    native = backend()["aes"]
    _use_backend(aes="cryptography")
    try:
        assert check(ANSWER).result == 0
        assert failed_step(ANSWER[:6] + bytes(16) + ANSWER[22:]) == 2
    finally:
        _use_backend(aes=native)
