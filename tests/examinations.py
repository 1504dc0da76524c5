"""Homes to examine with ``kms-fast doctor``, and what it found there by the name of its check."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from kms_fast.client.state import State
from tests.hosts import run_cli

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
Checks = dict[str, dict[str, Any]]


def examine(home: Path, *arguments: str) -> Checks:
    """Every finding by the name of its check; the exit code is what the verdicts say."""
    code, told, _ = run_cli("doctor", *arguments, home=home)
    failed = [finding["check"] for finding in told["checks"] if finding["verdict"] == "failed"]
    assert (code, told["ok"]) == ((1, False) if failed else (0, True))
    if failed:
        assert told["name"] == "CHECK_FAILED"
        assert told["message"].endswith(f"checks failed: {', '.join(failed)}.")
    assert all(finding["cure"] for finding in told["checks"] if finding["verdict"] in ("failed", "warning"))
    return {finding["check"]: finding for finding in told["checks"]}


def verdicts(checks: Checks) -> dict[str, str]:
    return {name: finding["verdict"] for name, finding in checks.items()}


def change_state(home: Path, change: Callable[[State], None]) -> None:
    path = home / "client" / "state.json"
    state = msgspec.json.decode(path.read_bytes(), type=State)
    change(state)
    path.write_bytes(msgspec.json.encode(state))
