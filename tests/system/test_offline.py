"""The whole offline exchange by commands, in each of its three ways: empty homes first, a served activation last."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scanning import find_drawings, photograph, scan

ROOT = Path(__file__).parents[2]
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


Exchange = Callable[[Site, list[str]], None]


def by_file(site: Site, request: list[str]) -> None:
    site.run("host", *request, "--out", "host.request")
    site.run("publisher", "publisher", "certify", "host.request", "--out", "host.answer")
    site.run("host", "host", "apply", "host.answer")


def by_text(site: Site, request: list[str]) -> None:
    asked = site.run("host", *request, "--text", "-")
    mail = "".join(f"> {line}\r\n" for line in asked.splitlines())
    answered = site.run(
        "publisher", "publisher", "certify", "-", "--text", "-", "--catalog", "host.catalog", pasted=mail
    )
    site.run("host", "host", "apply", "-", "--catalog", "host.catalog", pasted=answered.replace("\n", " "))


@pytest.fixture
def by_code(require_tool: Callable[[str], str], tmp_path: Path) -> Exchange:
    zbarimg = require_tool("zbarimg")

    def photograph_all(shown: str) -> str:
        """What a phone sends on that was held before the terminal, the last code first."""
        drawings = find_drawings(shown)
        return "\n".join(scan(zbarimg, photograph(rows, tmp_path / "photo.pgm"))[0] for rows in reversed(drawings))

    def exchange(site: Site, request: list[str]) -> None:
        scanned = photograph_all(site.run("host", *request, "--qr"))
        certify = ["publisher", "certify", "-", "--qr", "--qr-png", "answer.png", "--catalog", "host.catalog"]
        shown = site.run("publisher", *certify, pasted=scanned)
        site.run("host", "host", "apply", "-", "--catalog", "host.catalog", pasted=photograph_all(shown))
        (answer,) = scan(zbarimg, site.folder / "answer.png")
        site.run("host", "host", "apply", "-", pasted=answer)

    return exchange


@pytest.mark.parametrize("way", ["file", "text", "code"])
def test_from_empty_homes_to_an_activation(tmp_path: Path, way: str, request: pytest.FixtureRequest) -> None:
    exchange: Exchange = (
        request.getfixturevalue("by_code") if way == "code" else {"file": by_file, "text": by_text}[way]
    )
    site = Site(tmp_path)
    site.run("publisher", "publisher", "init", "Example Ltd")
    setup_key = site.find_key("publisher", "add-product", "Example Runner", "--family", "ci", "--threshold", "1")
    site.run("publisher", "publisher", "export", "--out", "publisher.json")
    host_key = site.find_key("publisher", "host-key")
    exchange(site, ["host", "request", "--publisher", "publisher.json", "--key", host_key])
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
