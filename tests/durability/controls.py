"""The negative controls: bugs planted into a real host, each of which the same checks must find."""

import random
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.durability.checker import CheckerProcess
from tests.durability.cuts import cut_power
from tests.durability.recording import Recording
from tests.durability.staging import Script, record
from tests.hosts import make_realm

CUTS: Final = 40


@dataclass(frozen=True)
class Control:
    """A bug, and by which check it must be found with which words."""

    script: Script
    found_by: Mapping[str, str]


_SCRIPT = Script(machines=40, connections=4, activations=200, lives=("drain",))

CONTROLS: Final[dict[str, Control]] = {
    "ledger_not_synced": Control(
        replace(_SCRIPT, pretend=".kfl"), {"order": "answered before it was on disk", "cut": "lost: batch"}
    ),
    "recorded_before_sync": Control(
        replace(_SCRIPT, pretend=".kfl", lives=("drain", "drain")), {"cut": "in the inventory and not in the ledger"}
    ),
    "recorded_twice": Control(
        replace(_SCRIPT, plants=("recorded_twice",), lives=("drain", "drain")),
        {"cut": r"has \[\d+, \d+\] activations and refusals in the inventory, \[\d+, \d+\] in the ledger"},
    ),
    "early_answer": Control(
        replace(_SCRIPT, plants=("early_answer",)), {"order": "answered before it was on disk", "cut": "lost: batch"}
    ),
    "dropped_record": Control(
        replace(_SCRIPT, plants=("dropped_record",)), {"order": "answered before it was on disk", "cut": "lost: batch"}
    ),
    "doubled_record": Control(
        replace(_SCRIPT, plants=("doubled_record",)), {"cut": "the ledger is wrong: batch .* does not follow"}
    ),
    "double_count": Control(replace(_SCRIPT, plants=("double_count",)), {"counting": "miscounted"}),
    "synchronous_normal": Control(replace(_SCRIPT, plants=("synchronous_normal",)), {"cut": "lost: machine"}),
    "synchronous_off": Control(replace(_SCRIPT, plants=("synchronous_off",)), {"cut": "lost: machine"}),
}


def find_planted(
    control: Control, folder: Path, shim: Path, checker: CheckerProcess, draw: random.Random
) -> dict[str, list[str]]:
    """Plant a bug and check as always: what each of the checks that must find it says."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    recording = record(folder, shim, control.script, draw)
    return {check: _ask(check, recording, control.script, checker, draw) for check in control.found_by}


def is_caught(control: Control, found: Mapping[str, Sequence[str]]) -> bool:
    """Whether each check that must find the bug did, in its words."""
    return all(any(re.search(words, text) for text in found[check]) for check, words in control.found_by.items())


def _ask(check: str, recording: Recording, script: Script, checker: CheckerProcess, draw: random.Random) -> list[str]:
    if check != "cut":
        answer: dict[str, Any] = checker.ask(check=check, recording=recording.folder)
        texts: list[str] = answer["texts"]
        return texts
    realm = make_realm(recording.folder / "realm")
    tally = cut_power(recording, realm, script, CUTS, checker, recording.folder, draw, continued=0)
    return tally.findings.texts
