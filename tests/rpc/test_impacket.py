"""A stock DCE/RPC client, unmodified, against a Session behind a socket."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.rpc.shell import serving


@pytest.fixture(scope="module")
def report(impacket_python: str) -> dict[str, Any]:
    client = Path(__file__).with_name("impacket_client.py")
    with serving() as server:
        run = subprocess.run([impacket_python, client, str(server.port)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    result: dict[str, Any] = json.loads(run.stdout)
    result["fragments sent"] = server.counters.pdus - server.counters.requests - server.counters.binds
    return result


def answered(argument: bytes, result: int = 0) -> dict[str, Any]:
    return {"length": len(argument), "answer": argument[::-1].hex(), "result": result}


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("activate", answered(bytes(range(220)))),
        ("again", answered(b"abc")),
        ("empty", {"length": 0, "answer": None, "result": 0xE04B0001}),
        ("revocations", answered(b"12345678", 2)),
        ("altered", answered(b"altered")),
        ("fragments", answered(bytes(range(256)) * 16)),
        ("several", answered(b"several")),
    ],
)
def test_call(report: dict[str, Any], name: str, outcome: dict[str, Any]) -> None:
    assert report[name] == outcome


def test_large_call_came_in_fragments(report: dict[str, Any]) -> None:
    assert report["fragments sent"] >= 40


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("release", "nca_s_op_rng_error"),
        ("alter_other", "abstract_syntax_not_supported"),
        ("other", "abstract_syntax_not_supported"),
        ("ndr64", "proposed_transfer_syntaxes_not_supported"),
        ("authenticated", "Authentication type not recognized"),
    ],
)
def test_refusal(report: dict[str, Any], name: str, reason: str) -> None:
    assert reason in (report[name] or "accepted")
