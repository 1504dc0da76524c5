"""Ctrl-C in the moment a process is started: the process is ended all the same."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kms_fast.load.proof import prove_ledger
from kms_fast.load.server import ServerProcess


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started, each with a Ctrl-C before its starter had it."""
    processes: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def interrupted(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        processes.append(start(*arguments, **options))
        os.kill(os.getpid(), signal.SIGINT)
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    return processes


def test_a_server_does_not_outlive_the_ctrl_c_at_its_start(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        ServerProcess(tmp_path, tmp_path / "log")
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_the_proofs_processes_do_not_outlive_the_ctrl_c_at_their_start(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        prove_ledger(tmp_path, tmp_path / "record")
    assert [process.returncode for process in started] == [-signal.SIGKILL] * 2
