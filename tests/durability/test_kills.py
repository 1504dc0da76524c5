"""Hosts that are killed under load lose nothing they answered."""

import random
from pathlib import Path

import pytest

from tests.durability.checker import CheckerProcess
from tests.durability.kills import FLEETS, Fleet, kill_often


@pytest.mark.parametrize("fleet", FLEETS, ids=["at its cap", "below its cap"])
def test_nothing_is_lost(checker: CheckerProcess, tmp_path: Path, fleet: Fleet) -> None:
    round_ = kill_often(tmp_path / "kills", 3, checker, random.Random(1), fleet, options=["--workers", "2"])
    assert (round_.kills, round_.lost, round_.texts) == (3, 0, [])
    assert round_.answers > 100


def test_a_dropped_record_is_caught(checker: CheckerProcess, tmp_path: Path) -> None:
    """The negative control: a host that forgets every tenth batch."""
    round_ = kill_often(tmp_path / "kills", 1, checker, random.Random(1), FLEETS[0], plants=["dropped_record"])
    assert round_.lost > 0
    assert any("was acknowledged and is not in the ledger" in text for text in round_.texts)
