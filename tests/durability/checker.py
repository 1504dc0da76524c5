"""The checker, a process of its own that holds nothing of kms_fast: ``python -m tests.durability.checker``.

It reads questions, one line of JSON each, and answers each with a line {"count": how much is wrong, "texts": […],
"answers": how many answers were looked at}.

    {"check": "order", "recording": FOLDER}                      was each answer's batch on disk before it left
    {"check": "counting", "recording": FOLDER}                   does each count say how many machines had asked
    {"check": "cut", "recording": FOLDER, "place": N, "home": FOLDER, "record": FILE or null}
                                                                 does the recovered home hold what was answered before
    {"check": "home", "trust": FILE, "record": FILE, "home": FOLDER, "below_cap": true or false}
                                                                 does the home hold what a load was told
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.durability import claims, stores
from tests.durability.claims import Findings, LedgerIndex
from tests.durability.conversation import Trust
from tests.durability.recording import Recording
from tests.reference.ledger import Segment, Wrong, check_ledger
from tests.reference.verify import Rejected


def read_segments(home: Path, trust: Trust, findings: Findings) -> list[Segment]:
    """The ledger of a home; none, and a finding, when it is wrong."""
    try:
        return check_ledger(home / "host" / "ledger", trust.roots, trust.publisher_id)
    except Wrong as error:
        findings.add(f"the ledger is wrong: {error}")
        return []


def check_order(question: dict[str, Any], recording: Recording, findings: Findings) -> int:
    """The order of syncs and answers in a trace; how many answers it has."""
    told = recording.conversation().told
    claims.check_order(told, claims.find_order(recording.disk()), findings)
    return len(told)


def check_counting(question: dict[str, Any], recording: Recording, findings: Findings) -> int:
    """The counts in a trace's answers; how many answers it has."""
    claims.check_counting(recording.conversation(), findings)
    return len(recording.conversation().told)


def check_cut(question: dict[str, Any], recording: Recording, findings: Findings) -> int:
    """A home after a power cut and its recovery, perhaps with a load since; how many answers had left before."""
    home, place = Path(question["home"]), question["place"]
    conversation = recording.conversation()
    segments = read_segments(home, Trust.read(recording.trust_path), findings)
    told = claims.before(conversation.told, place)
    ledger = LedgerIndex(segments)
    claims.check_told(told, ledger, findings)
    claims.check_counts_grow(segments, findings)
    inventory = home / "host" / "inventory.db"
    if question["record"] is None:
        stores.check_stored(conversation, place, stores.read_counts(home / "host" / "counts.db", findings), findings)
        stores.check_inventory(segments, inventory, findings, complete=False)
        return len(told)
    stores.check_inventory(segments, inventory, findings, complete=True)
    lines = claims.read_acknowledged(Path(question["record"]))
    claims.check_acknowledged(lines, ledger, findings)
    return len(told) + len(lines)


def check_home(question: dict[str, Any], findings: Findings) -> int:
    """A home and what a load was told; how many answers that were."""
    home = Path(question["home"])
    segments = read_segments(home, Trust.read(Path(question["trust"])), findings)
    lines = claims.read_acknowledged(Path(question["record"]))
    claims.check_acknowledged(lines, LedgerIndex(segments), findings)
    claims.check_counts_grow(segments, findings)
    if question["below_cap"]:
        stores.check_all_stored(segments, stores.read_counts(home / "host" / "counts.db", findings), findings)
    stores.check_inventory(segments, home / "host" / "inventory.db", findings, complete=True)
    return len(lines)


class Checker:
    """Answers questions; the newest recording is kept, since many cuts are made of one."""

    def __init__(self) -> None:
        self._recording: Recording | None = None

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """What is wrong."""
        findings = Findings()
        answers = 0
        try:
            if question["check"] == "home":
                answers = check_home(question, findings)
            else:
                check = {"order": check_order, "counting": check_counting, "cut": check_cut}[question["check"]]
                answers = check(question, self._find_recording(question["recording"]), findings)
        except Rejected as error:
            findings.add(f"a client rejects its answer: {error.name}")
        return {"count": findings.count, "texts": findings.texts, "answers": answers}

    def _find_recording(self, folder: str) -> Recording:
        if self._recording is None or self._recording.folder != Path(folder):
            self._recording = Recording(Path(folder))
        return self._recording


class CheckerProcess:
    """The process, from outside."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.durability.checker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0,
        )  # fmt: skip

    def __enter__(self) -> "CheckerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, **question: Any) -> dict[str, Any]:
        """Its answer. Raises RuntimeError when it died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question, default=str).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the checker died")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    """Answer until stdin ends."""
    checker = Checker()
    for line in sys.stdin:
        print(json.dumps(checker.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
