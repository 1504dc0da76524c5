"""Each planted bug is caught by the checks that find nothing without it (test_cuts.py, test_checker.py)."""

import random
from pathlib import Path

import pytest

from tests.durability.checker import CheckerProcess
from tests.durability.controls import CONTROLS, find_planted, is_caught


@pytest.mark.parametrize("name", CONTROLS)
def test_a_planted_bug_is_caught(shim: Path, checker: CheckerProcess, tmp_path: Path, name: str) -> None:
    found = find_planted(CONTROLS[name], tmp_path / name, shim, checker, random.Random(1))
    assert is_caught(CONTROLS[name], found), found


def test_a_bug_is_not_caught_by_other_words() -> None:
    control = CONTROLS["ledger_not_synced"]
    assert not is_caught(control, {"order": ["batch 1/1 was answered before it was on disk"], "cut": ["no recovery"]})
    assert not is_caught(control, {"order": [], "cut": ["lost: batch 1/1 was answered"]})
