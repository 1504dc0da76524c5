"""The durability proofs (docs/durability.md): ``python -m tests.durability --kills 1000 --cuts 10000 --order 10000``.

An interrupted run goes on where it was. The last line on stdout is one JSON object; exit code 0 only if nothing was
lost, no answer left before its commit and every planted bug was caught.
"""

import argparse
import json
import random
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.durability.checker import CheckerProcess
from tests.durability.controls import CONTROLS, find_planted, is_caught
from tests.durability.cuts import cut_power
from tests.durability.host import HostFailed
from tests.durability.kills import FLEETS, kill_often
from tests.durability.progress import FINDINGS, ROOT, Progress, State, hash_code
from tests.durability.staging import Script, record
from tests.durability.trace import BrokenTrace, build_shim
from tests.hosts import make_realm

FOLDER: Final = ROOT / ".durability"
MEMORY: Final = Path("/dev/shm")
KILLS_A_ROUND: Final = 20
KILLED_OPTIONS: Final = ("--workers", "2", "--segment-size", "1MiB")
CUTS_A_RECORDING: Final = 100
BROKEN_TRACES: Final = 3


class Run:
    """One run of the proofs, step by step."""

    def __init__(self, progress: Progress, shim: Path, checker: CheckerProcess, scratch: Path) -> None:
        self._progress = progress
        self._state = progress.state
        self._shim = shim
        self._checker = checker
        self._scratch = scratch
        self._realm = make_realm(scratch / "realm")

    def plant_controls(self) -> None:
        """Each planted bug, unless it was planted already."""
        for name, control in CONTROLS.items():
            if name not in self._state.controls:
                self._progress.show(f"control {name}")
                folder = FOLDER / f"control-{name}"
                found = find_planted(control, folder, self._shim, self._checker, self._draw(name))
                shutil.rmtree(folder)
                self._state.controls[name] = is_caught(control, found)
                if not self._state.controls[name]:
                    self._state.texts.append(f"control {name} was not caught: {found}")
                self._progress.save(f"control {name}")

    def kill(self) -> None:
        """Rounds of kills, until there are enough."""
        state = self._state
        while state.kills < state.targets[0]:
            number = state.kill_rounds
            self._progress.show(f"kill round {number}")
            kills = min(KILLS_A_ROUND, state.targets[0] - state.kills)
            round_ = kill_often(
                FOLDER / "kills", kills, self._checker, self._draw(f"kills {number}"), FLEETS[number % len(FLEETS)],
                options=KILLED_OPTIONS,
            )  # fmt: skip
            state.kills += round_.kills
            state.kill_rounds += 1
            state.acknowledged += round_.answers
            self._note(round_.lost, [f"kill round {number}: {text}" for text in round_.texts], FOLDER / "kills")
            self._progress.save(f"kill round {number}")

    def cut(self) -> None:
        """Recordings, their order checked and cut, until there are enough cuts and answers."""
        state = self._state
        while state.cuts < state.targets[1] or state.answers_checked < state.targets[2]:
            number = state.recordings
            self._progress.show(f"recording {number}")
            folder = FOLDER / f"recording-{number}"
            try:
                self._cut_recording(folder, self._draw(f"recording {number}"))
            except HostFailed as error:
                # Without a host there is nothing to cut: the run ends here, short of its targets.
                self._note(1, [f"recording {number}: no recovery: {error}"], folder)
                return
            state.recordings += 1
            self._progress.save(f"recording {number}")

    def _cut_recording(self, folder: Path, draw: random.Random) -> None:
        state = self._state
        script = Script.draw(draw)
        for attempt in range(BROKEN_TRACES + 1):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                recording = record(folder, self._shim, script, draw)
                break
            except BrokenTrace:
                if attempt == BROKEN_TRACES:
                    raise
        order = self._checker.ask(check="order", recording=folder)
        counting = self._checker.ask(check="counting", recording=folder)
        cuts = min(CUTS_A_RECORDING, state.targets[1] - state.cuts)
        tally = cut_power(recording, self._realm, script, cuts, self._checker, self._scratch, draw)
        state.cuts += tally.cuts
        state.continued += tally.continued
        state.answers_checked += order["answers"]
        state.answers_before_commit += order["count"]
        texts = [f"{folder.name}: {text}" for text in [*order["texts"], *counting["texts"]]] + tally.findings.texts
        self._note(tally.findings.count + counting["count"], texts, folder)
        shutil.rmtree(folder, ignore_errors=True)

    def _note(self, lost: int, texts: list[str], folder: Path) -> None:
        """Add what is wrong, and keep the folder that shows it."""
        self._state.lost += lost
        self._state.texts += texts
        if texts:
            shutil.copytree(folder, FOLDER / FINDINGS / f"{folder.name}-{len(self._state.texts)}", dirs_exist_ok=True)

    def _draw(self, step: str) -> random.Random:
        """Random numbers of a step's own, the same however often the run is interrupted."""
        return random.Random(f"{self._state.seed} {step}")


def main() -> int:
    """Run the proofs; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.durability")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--order", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="to repeat a run that found something")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    state = State(
        targets=(arguments.kills, arguments.cuts, arguments.order),
        code=hash_code(),
        seed=secrets.randbits(32) if arguments.seed is None else arguments.seed,
    )
    progress = Progress(FOLDER, state)
    with (
        CheckerProcess() as checker,
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else FOLDER, prefix="kms-fast-cuts-") as scratch,
    ):
        run = Run(progress, build_shim(FOLDER), checker, Path(scratch))
        run.plant_controls()
        run.kill()
        run.cut()
    progress.end()
    state = progress.state
    for text in state.texts:
        print(text, file=sys.stderr)
    figures = state.figures(len(CONTROLS))
    print(json.dumps(figures))
    return 0 if state.lost == state.answers_before_commit == 0 and figures["controls_caught"] else 1


if __name__ == "__main__":
    # However it is told to stop, its hosts stop with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)
