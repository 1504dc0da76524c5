"""How far a run of the proofs is: kept in a file after each step, so that an interrupted run goes on, and shown."""

import hashlib
import shutil
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).parents[2]
SHOW_EVERY_S: Final = 10.0
FINDINGS: Final = "findings"


class State(msgspec.Struct, kw_only=True):
    """``targets``: kills, cuts and answers to reach. ``code``: a hash of the code that is proved, and of the proofs."""

    targets: tuple[int, int, int]
    code: str
    seed: int
    kills: int = 0
    kill_rounds: int = 0
    cuts: int = 0
    continued: int = 0
    recordings: int = 0
    answers_checked: int = 0
    acknowledged: int = 0
    lost: int = 0
    answers_before_commit: int = 0
    controls: dict[str, bool] = {}
    texts: list[str] = []

    def figures(self, planted: int) -> dict[str, int | bool]:
        """The last line of a run; ``planted``: how many controls there are."""
        return {
            "kills": self.kills,
            "cuts": self.cuts,
            "answers_checked": self.answers_checked,
            "lost": self.lost,
            "answers_before_commit": self.answers_before_commit,
            "controls_caught": len(self.controls) == planted and all(self.controls.values()),
            "acknowledged_under_kills": self.acknowledged,
            "cuts_continued": self.continued,
        }


def hash_code() -> str:
    """A short name for the code as it is."""
    digest = hashlib.sha256()
    for folder in ("kms_fast", "tests"):
        for path in sorted((ROOT / folder).rglob("*.p[yx]*")):
            if "__pycache__" not in path.parts:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Progress:
    """The state in ``folder``, and a line about it on stderr."""

    def __init__(self, folder: Path, state: State) -> None:
        """Go on from what is there if it has the same targets and code; else begin with ``state``."""
        self._path = folder / "state.json"
        self._shown_s = 0.0
        self.state = state
        if self._path.exists():
            found = msgspec.json.decode(self._path.read_bytes(), type=State)
            if (found.targets, found.code) == (state.targets, state.code):
                self.state = found

    def save(self, done: str) -> None:
        """Keep the state after a step."""
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(self.state))
        temporary.replace(self._path)
        self.show(done)

    def show(self, doing: str) -> None:
        """A line that a terminal shows in place, and a log every ten seconds."""
        state, now_s = self.state, time.monotonic()
        kills, cuts, answers = state.targets
        line = (
            f"kills {state.kills:,}/{kills:,}  cuts {state.cuts:,}/{cuts:,}  "
            f"answers {state.answers_checked:,}/{answers:,}  controls {len(state.controls)}  lost {state.lost}  {doing}"
        )
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        elif now_s >= self._shown_s + SHOW_EVERY_S:
            self._shown_s = now_s
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """A run that is over: the next one starts anew. What shows something wrong is kept, in ``findings``."""
        for path in self._path.parent.iterdir():
            if path.is_dir() and path.name != FINDINGS:
                shutil.rmtree(path)
        self._path.unlink()
        if sys.stderr.isatty():
            print(file=sys.stderr)
