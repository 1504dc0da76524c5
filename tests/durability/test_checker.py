"""The checker knows nothing of kms_fast, finds nothing where nothing is wrong, and sees what somebody changed."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.durability.checker import CheckerProcess
from tests.durability.claims import (
    Findings,
    LedgerIndex,
    check_acknowledged,
    check_counts_grow,
    check_told,
    read_acknowledged,
)
from tests.durability.conversation import Trust
from tests.durability.recording import Recording
from tests.durability.staging import END
from tests.reference.ledger import ENTRY_SIZE, Segment, check_ledger

EVERYTHING = 1 << 62


def test_it_holds_nothing_of_kms_fast() -> None:
    program = (
        "import sys, tests.durability.checker; print([name for name in sys.modules if name.startswith('kms_fast')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("check", ["order", "counting"])
def test_an_unplanted_host_answers_in_order(checker: CheckerProcess, recording: Recording, check: str) -> None:
    answer = checker.ask(check=check, recording=recording.folder)
    assert (answer["count"], answer["texts"]) == (0, [])
    assert answer["answers"] > 100


@pytest.fixture
def home(recording: Recording, tmp_path: Path) -> Path:
    """A copy of the home as the recorded host left it."""
    shutil.copytree(recording.folder / END, tmp_path / "home" / "host")
    return tmp_path / "home"


def ask(checker: CheckerProcess, recording: Recording, home: Path) -> dict[str, Any]:
    """What is wrong with the home after everything in the recording was answered."""
    return checker.ask(check="cut", recording=recording.folder, place=EVERYTHING, home=home, record=None)


def newest_segment(home: Path) -> Path:
    return sorted((home / "host" / "ledger").glob("*.kfl"))[-1]


def test_the_end_of_a_recording_is_right(checker: CheckerProcess, recording: Recording, home: Path) -> None:
    answer = ask(checker, recording, home)
    assert (answer["count"], answer["texts"]) == (0, [])


def test_a_cut_off_record_is_seen(checker: CheckerProcess, recording: Recording, home: Path) -> None:
    segment = newest_segment(home)
    segment.write_bytes(segment.read_bytes()[:-ENTRY_SIZE])
    assert "was answered and is not in the ledger" in ask(checker, recording, home)["texts"][0]


@pytest.mark.parametrize("number", [1, 2])
def test_a_segment_that_is_gone_is_seen(checker: CheckerProcess, recording: Recording, home: Path, number: int) -> None:
    (home / "host" / "ledger" / f"segment-{number:08d}.kfl").unlink()
    assert ask(checker, recording, home)["count"] > 0


def test_a_changed_signature_is_seen(checker: CheckerProcess, recording: Recording, home: Path) -> None:
    segment = newest_segment(home)
    data = bytearray(segment.read_bytes())
    data[data.index(b"KFL1") + 4 + 116] ^= 1
    segment.write_bytes(data)
    assert "signature of batch 1" in ask(checker, recording, home)["texts"][0]


def test_a_machine_that_is_no_longer_counted_is_seen(checker: CheckerProcess, recording: Recording, home: Path) -> None:
    with closing(sqlite3.connect(home / "host" / "counts.db")) as database, database:
        database.execute("DELETE FROM counts WHERE rowid = (SELECT min(rowid) FROM counts)")
    answer = ask(checker, recording, home)
    assert answer["count"] == 1
    assert "is not in the store" in answer["texts"][0]


@pytest.fixture(scope="module")
def segments(recording: Recording) -> list[Segment]:
    """The ledger at the end of the recording."""
    trust = Trust.read(recording.trust_path)
    return check_ledger(recording.folder / END / "ledger", trust.roots, trust.publisher_id)


def test_a_leaf_that_is_not_what_was_told_is_seen(recording: Recording, segments: list[Segment]) -> None:
    findings = Findings()
    answer = recording.conversation().told[0]
    check_told([answer._replace(leaf_bytes=answer.leaf_bytes[:-1] + b"?")], LedgerIndex(segments), findings)
    assert "not what its client was told" in findings.texts[0]


def test_a_request_that_was_signed_twice_is_seen(recording: Recording, segments: list[Segment]) -> None:
    findings = Findings()
    ledger = LedgerIndex([*segments, segments[-1]])
    check_told([recording.conversation().told[-1]], ledger, findings)
    assert "more than once" in findings.texts[0]


def test_an_acknowledged_line_is_compared_with_the_ledger(recording: Recording, segments: list[Segment]) -> None:
    lines = read_acknowledged(recording.folder / "record.jsonl")
    ledger = LedgerIndex(segments)
    wrong = [
        lines[0]._replace(cmid=bytes(16)),
        lines[0]._replace(request_hash=bytes(32)),
        lines[0]._replace(index=999),
        lines[0]._replace(segment=9),
    ]
    for line in wrong:
        findings = Findings()
        check_acknowledged([line], ledger, findings)
        assert findings.count == 1
    findings = Findings()
    check_acknowledged(lines, ledger, findings)
    assert findings.count == 0


def test_a_count_that_goes_back_is_seen(segments: list[Segment]) -> None:
    findings = Findings()
    check_counts_grow(segments, findings)
    assert findings.count == 0
    first, *_ = segments
    records = list(first.records)
    check_counts_grow([first._replace(records=(records[-1], *records[:-1]))], findings)
    assert "a count went back" in findings.texts[0]
