"""Leaves, headers and answers as values; that they agree with the vectors is asserted in tests/vectors."""

import hashlib
from dataclasses import replace
from uuid import UUID

import pytest

from kms_fast.errors import ConfigurationError
from kms_fast.model.lease import Answer, BatchHeader, Leaf
from tests.vectors.generate import load

LEAF = bytes.fromhex(load("leaves")["vectors"][0]["leaf"])
ANSWER = bytes.fromhex(load("answers")["vectors"][0]["answer"])


def test_a_leaf_is_read_back() -> None:
    leaf = Leaf.parse(LEAF)
    assert leaf.to_bytes() == LEAF
    assert leaf.hash == hashlib.sha256(b"\0" + LEAF).digest()
    assert (leaf.machine, leaf.sku) == (UUID(bytes=LEAF[56:72]), UUID(bytes=LEAF[40:56]))
    assert replace(leaf, count=leaf.count + 1).to_bytes() != LEAF


def test_an_answer_is_taken_apart() -> None:
    answer = Answer.parse(ANSWER)
    start = 140 + 32 * len(answer.path)
    assert answer.header.to_bytes() == ANSWER[start : start + 116]
    assert answer.header.hash == hashlib.sha256(ANSWER[start : start + 116]).digest()
    assert answer.host_certificate.to_bytes() + answer.issuer_certificate.to_bytes() == ANSWER[start + 180 :]


@pytest.mark.parametrize("damaged", [b"", LEAF[:-1], LEAF + b"\0", b"\2" + LEAF[1:], LEAF[:3] + b"\1" + LEAF[4:]])
def test_damaged_leaves_are_refused(damaged: bytes) -> None:
    with pytest.raises(ConfigurationError):
        Leaf.parse(damaged)


@pytest.mark.parametrize(
    "damaged", [b"", ANSWER[:100], ANSWER[:-1], b"\2" + ANSWER[1:], ANSWER[:4] + b"\x0b" + ANSWER[5:], ANSWER[:300]]
)
def test_damaged_answers_are_refused(damaged: bytes) -> None:
    with pytest.raises(ConfigurationError):
        Answer.parse(damaged)


def test_a_damaged_header_is_refused() -> None:
    for damaged in (bytes(116), b"\1\1"):
        with pytest.raises(ConfigurationError):
            BatchHeader.parse(damaged)
