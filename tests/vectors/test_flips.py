"""Every single flipped bit of an answer is refused with the error that its place predicts."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.reference.answer import open_leaf, seal_leaf
from tests.vectors.flips import HEADER, SIZE
from tests.vectors.generate import load
from tests.vectors.judges import JUDGES, Judge, read_client
from tests.vectors.world import KEYS

VECTOR = load("flips")
ANSWER = bytes.fromhex(VECTOR["answer"])
KEY = KEYS.answer_key(read_client(VECTOR)["request"])
TAG_BITS = range(8 * 6, 8 * 22)


@pytest.fixture(params=JUDGES)
def make_judge(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], Judge]:
    """A judge of answers: once the reference, once the core."""
    return JUDGES[request.param]


def flip(data: bytes, bit: int) -> bytes:
    at, mask = bit // 8, 1 << bit % 8
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def with_leaf(answer: bytes, tag_and_leaf: bytes) -> bytes:
    return answer[:6] + tag_and_leaf + answer[140:]


def seal_anew(opened: bytes) -> bytes:
    """The answer whose leaf lies open at bytes 22 to 139, sealed under the header it now has."""
    return with_leaf(opened, seal_leaf(KEY, opened[22:140], opened[HEADER : HEADER + 116]))


def predicted(table: str) -> Iterator[tuple[int, str]]:
    for first, end, error in VECTOR[table]:
        for bit in range(first, end):
            yield bit, error


@pytest.mark.parametrize(("table", "left_out"), [("as_sent", range(0)), ("sealed_anew", TAG_BITS)])
def test_tables_cover_every_bit_once(table: str, left_out: range) -> None:
    assert len(ANSWER) == SIZE
    assert [bit for bit, _ in predicted(table)] == [bit for bit in range(8 * SIZE) if bit not in left_out]


def test_every_bit_flipped_as_sent(make_judge: Callable[[dict[str, Any]], Judge]) -> None:
    judge = make_judge(VECTOR)
    assert judge(ANSWER) == 0
    wrong = [(bit, error, given) for bit, error in predicted("as_sent") if (given := judge(flip(ANSWER, bit))) != error]
    assert wrong == []


def test_every_bit_flipped_and_sealed_anew(make_judge: Callable[[dict[str, Any]], Judge]) -> None:
    judge = make_judge(VECTOR)
    leaf = open_leaf(KEY, ANSWER[6:140], ANSWER[HEADER : HEADER + 116])
    assert leaf
    opened = with_leaf(ANSWER, bytes(16) + leaf)
    assert seal_anew(opened) == ANSWER
    wrong = [
        (bit, error, given)
        for bit, error in predicted("sealed_anew")
        if (given := judge(seal_anew(flip(opened, bit)))) != error
    ]
    assert wrong == []
