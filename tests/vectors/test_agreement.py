"""Reference and core give the same verdict on answers with several things wrong, drawn at random from fixed seeds."""

import random
from typing import Any

import pytest

from tests.reference.answer import open_leaf, seal_leaf
from tests.vectors.answers import ERRORS, FAULTS, client, put
from tests.vectors.judges import core_judge, reference_judge
from tests.vectors.world import KEYS, REQUEST, build

KEY = KEYS.answer_key(REQUEST)


def compare(answer: bytes, changes: dict[str, Any]) -> int | str:
    """The verdict of both."""
    known = client() | changes
    verdict = reference_judge(known)(answer)
    assert core_judge(known)(answer) == verdict
    return verdict


def test_random_faults_together() -> None:
    draw, seen = random.Random(1), set()
    for _ in range(400):
        made: dict[str, Any] = {}
        for step in draw.sample(sorted(FAULTS), draw.randint(1, 4)):
            for part, changes in FAULTS[step].items():
                made[part] = {**made.get(part, {}), **changes}
        known, signers = made.pop("client", {}), made.pop("signers", {})
        size = draw.randint(1, 12)
        seen.add(compare(build(size=size, index=draw.randrange(size), **made, **signers), known))
    assert seen == set(ERRORS[2:])


def mutate(draw: random.Random, answer: bytes) -> bytes:
    """A few bytes changed, or a piece cut out or put in."""
    for _ in range(draw.randint(1, 3)):
        at, size = draw.randrange(len(answer)), draw.choice([1, 1, 1, 2, 12, 32])
        match draw.randrange(8):
            case 0:
                answer = answer[:at] + answer[at + size :]
            case 1:
                answer = answer[:at] + draw.randbytes(size) + answer[at:]
            case _:
                answer = put(answer, at, draw.randbytes(min(size, len(answer) - at)))
    return answer


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_changed(seed: int) -> None:
    draw = random.Random(seed)
    plain = build(size=9, index=seed)
    for _ in range(500):
        answer = mutate(draw, plain)
        assert (compare(answer, {}) == 0) == (answer == plain)


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_changed_under_a_seal_made_anew(seed: int) -> None:
    draw = random.Random(seed)
    plain = build(size=9, index=seed)
    header = 140 + 32 * plain[4]
    leaf = open_leaf(KEY, plain[6:140], plain[header : header + 116])
    assert leaf
    for _ in range(500):
        changed = bytearray(put(plain, 22, leaf))
        for at in draw.choices(range(22, len(changed)), k=draw.randint(1, 2)):
            changed[at] = draw.randrange(256)
        opened = bytes(changed)
        answer = put(opened, 6, seal_leaf(KEY, opened[22:140], opened[header : header + 116]))
        assert (compare(answer, {}) == 0) == (answer == plain)
