"""The commands of docs/offline.md in each of the three ways: empty homes first, a served activation last."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scanning import find_drawings, photograph, scan

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "offline.md"
KEY = re.compile(r"\b[0-9A-Z]{5}(?:-[0-9A-Z]{5}){4}\b")


class Site:
    """Three machines that share nothing but what is handed over: publisher, host and client, each with a home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environ = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
        self.environ = {**environ, "PYTHONPATH": str(ROOT), "KMS_FAST_PASSPHRASE": "only an example"}

    def run(self, machine: str, *args: str, pasted: str = "") -> str:
        """What a ``kms-fast`` command on a machine prints."""
        done = subprocess.run(
            [sys.executable, "-m", "kms_fast", *args],
            env={**self.environ, "KMS_FAST_HOME": str(self.folder / machine)},
            cwd=self.folder,
            input=pasted,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def find_key(self, *args: str) -> str:
        """The key that a command of the publisher prints."""
        found = KEY.search(self.run("publisher", *args))
        assert found is not None
        return found[0]


def read_commands(heading: str) -> list[list[str]]:
    """The commands of a part of docs/offline.md."""
    part = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", part, re.DOTALL)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]


def exchange(site: Site, commands: list[list[str]], carry: Callable[[str], str], host_key: str) -> None:
    """Run commands of host and publisher in turn; ``carry`` makes what is pasted of what was shown."""
    assert [command[1] for command in commands] == ["request", "certify", "apply"]
    shown = ""
    for command in commands:
        args = [host_key if word == "HOSTKEY" else word for word in command]
        shown = site.run(args[0], *args, pasted=carry(shown) if "-" in args else "")


def quote(shown: str) -> str:
    """A block as a mail program sends it on."""
    return "Please see below.\r\n" + "".join(f"> {line}\r\n" for line in shown.splitlines())


@pytest.fixture
def photograph_all(require_tool: Callable[[str], str], tmp_path: Path) -> Callable[[str], str]:
    """What a phone sends on that was held before the terminal, the last code first."""
    zbarimg = require_tool("zbarimg")

    def carry(shown: str) -> str:
        drawings = find_drawings(shown)
        return "\n".join(scan(zbarimg, photograph(rows, tmp_path / "photo.pgm"))[0] for rows in reversed(drawings))

    return carry


@pytest.mark.parametrize("way", ["By file", "By text", "By QR code"])
def test_from_empty_homes_to_an_activation(tmp_path: Path, way: str, request: pytest.FixtureRequest) -> None:
    carry = request.getfixturevalue("photograph_all") if "QR" in way else quote
    site = Site(tmp_path)
    site.run("publisher", "publisher", "init", "Example Ltd")
    setup_key = site.find_key("publisher", "add-product", "Example Runner", "--family", "ci", "--threshold", "1")
    site.run("publisher", "publisher", "export", "--out", "publisher.json")
    host_key = site.find_key("publisher", "host-key")
    exchange(site, read_commands(way), carry, host_key)
    if "QR" in way:
        exchange(site, read_commands("The catalog file"), carry, host_key)
    server = subprocess.Popen(
        [sys.executable, "-m", "kms_fast", "serve", "--listen", "127.0.0.1:0"],
        env={**site.environ, "KMS_FAST_HOME": str(tmp_path / "host")},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().removeprefix("listening on ").strip()
        site.run("client", "client", "install-key", setup_key, "--publisher", "publisher.json")
        site.run("client", "client", "set-host", address)
        assert "Example Runner is activated until" in site.run("client", "client", "activate")
    finally:
        server.terminate()
        assert server.wait(timeout=20) == 0
