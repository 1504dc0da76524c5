"""The quick start of README.md works as it is written, but for the port."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KEY = re.compile(r"\b[0-9A-Z]{5}(?:-[0-9A-Z]{5}){4}\b")


def read_commands() -> list[list[str]]:
    block = re.search(
        r"## Quick start.*?```console\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert block is not None
    return [shlex.split(line[2:], comments=True) for line in block[1].splitlines() if line.startswith("$ ")]


@pytest.fixture
def servers() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for server in started:
        server.terminate()
        assert server.wait(timeout=20) == 0


def test_quick_start(tmp_path: Path, servers: list[subprocess.Popen[str]]) -> None:
    export, *commands = read_commands()
    assert export[0] == "export"
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **dict(word.split("=", 1) for word in export[1:])}
    words = {"127.0.0.1:1688": "127.0.0.1:0"}
    shown: dict[str, str] = {}
    for command in commands:
        program, *args = [words.get(word, word) for word in command]
        assert program == "kms-fast"
        process = [sys.executable, "-m", "kms_fast", *args]
        if args[-1] == "&":
            server = subprocess.Popen(process[:-1], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environ)
            servers.append(server)
            assert server.stdout is not None
            words["127.0.0.1"] = server.stdout.readline().removeprefix("listening on ").strip()
            continue
        done = subprocess.run(
            process, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environ, check=False
        )
        assert done.returncode == 0, done.stderr
        shown[" ".join(args[:2])] = done.stdout
        if found := KEY.search(done.stdout):
            words["HOSTKEY" if "host-key" in args else "SETUPKEY"] = found[0]
    assert "Example Runner is activated until" in shown["client activate"]
    assert "licensed" in shown["client status"]
    assert "The ledger is whole" in shown["ledger verify"]
