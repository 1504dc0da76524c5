"""Where the passphrase of the publisher's keys comes from."""

import io
import stat
from pathlib import Path

import click
import pytest

from kms_fast.cli.passphrase import Passphrase
from kms_fast.errors import ConfigurationError


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KMS_FAST_PASSPHRASE", raising=False)


def test_a_passphrase_file_gives_its_first_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMS_FAST_PASSPHRASE", "another")
    path = tmp_path / "file"
    path.write_bytes("wörds with spaces \r\nmore\n".encode())
    assert Passphrase(path, None).read() == "wörds with spaces ".encode()
    path.write_bytes(b"")
    assert Passphrase(path, None).read() == b""


def test_a_missing_key_file_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "lab.key"
    with pytest.raises(FileNotFoundError):
        Passphrase(None, path).read()
    chosen = Passphrase(None, path).choose()
    assert len(chosen) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert chosen == Passphrase(None, path).choose() == Passphrase(None, path).read()


def test_the_variable_comes_before_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMS_FAST_PASSPHRASE", "from the environment")
    assert Passphrase(None, None).read() == Passphrase(None, None).choose() == b"from the environment"
    # It is that of the keys there are, and so not that of those that are encrypted anew.
    monkeypatch.setattr("sys.stdin", io.StringIO("typed\n"))
    with pytest.raises(ConfigurationError, match=r"No new .*use --new-passphrase-file or --new-key-file\."):
        Passphrase(None, None, new=True).choose()


def test_without_a_terminal_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("typed\n"))
    with pytest.raises(
        ConfigurationError, match=r"use --passphrase-file, --key-file or KMS_FAST_PASSPHRASE\."
    ) as caught:
        Passphrase(None, None).read()
    assert caught.value.result.name == "PASSPHRASE_MISSING"


def test_on_a_terminal_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def prompt(text: str, **options: object) -> str:
        asked.append((text, options["hide_input"], options["confirmation_prompt"]))
        return "typed"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "prompt", prompt)
    new = Passphrase(None, None, new=True)
    assert [Passphrase(None, None).read(), Passphrase(None, None).choose(), new.choose()] == [b"typed"] * 3
    assert asked == [
        ("Passphrase of the publisher's keys", True, False),
        ("Passphrase of the publisher's keys", True, True),
        ("New passphrase of the publisher's keys", True, True),
    ]


def test_one_of_two_files(tmp_path: Path) -> None:
    for new, options in ((False, "--passphrase-file or --key-file"), (True, "--new-passphrase-file or --new-key-file")):
        with pytest.raises(click.UsageError, match=f"Give {options}, not both"):
            Passphrase(tmp_path, tmp_path, new=new)
