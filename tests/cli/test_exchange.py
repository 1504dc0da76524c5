"""The offline exchange on the command line: what the commands write and take in each form, and what they refuse."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kms_fast.cli.main import run
from kms_fast.model.armour import read_armour
from kms_fast.model.compact import Kind, unpack_request
from tests.scanning import find_drawings

ROOT = Path(__file__).parents[2]
Command = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def host_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """A publisher with one product, exported; a host key of it."""
    monkeypatch.setenv("KMS_FAST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KMS_FAST_PASSPHRASE", "correct horse")
    monkeypatch.chdir(tmp_path)
    return make_publisher(capsys)


def make_publisher(capsys: pytest.CaptureFixture[str], *home: str) -> str:
    run(["publisher", "init", "Example", *home])
    run(["publisher", "add-product", "Runner", "--family", "ci", "--threshold", "1", *home])
    run(["publisher", "export", "--out", "publisher.json", *home])
    capsys.readouterr()
    assert run(["publisher", "host-key", "--json", *home]) == 0
    return str(json.loads(capsys.readouterr().out)["host_key"])


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command with ``--json`` and what it reads from stdin; what it says, of success or failure."""

    def run_json(*args: str, pasted: str = "") -> dict[str, Any]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pasted.encode())))
        code = run([*args, "--json"])
        captured = capsys.readouterr()
        told: dict[str, Any] = json.loads(captured.out)
        assert (code, told["ok"]) in ((0, True), (1, False)), told
        assert "Traceback" not in captured.err
        return told

    return run_json


@pytest.fixture
def ask(host_key: str, command: Command) -> dict[str, Any]:
    """A first request, in every form."""
    forms = ("--out", "host.request", "--text", "-", "--qr", "--qr-png", "host.png", "--qr-svg", "host.svg")
    return command("host", "request", "--publisher", "publisher.json", "--key", host_key, *forms)


def test_all_forms_of_a_request_are_the_same_request(ask: dict[str, Any]) -> None:
    file = Path("host.request").read_bytes()
    for text in (ask["text"], " ".join(ask["qr_codes"])):
        assert unpack_request(read_armour(text, Kind.REQUEST)).to_json() == file
    assert Path("host.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in Path("host.svg").read_bytes()
    assert (ask["file"], ask["qr_png"], ask["qr_svg"]) == ("host.request", "host.png", "host.svg")


def test_certify_takes_each_form_and_knows_the_host_again(ask: dict[str, Any], command: Command) -> None:
    Path("host.txt").write_text(ask["text"], encoding="utf-8")
    Path("windows.txt").write_text(ask["text"].replace("\n", "\r\n"), encoding="utf-16")
    Path("marked.request").write_bytes(b"\xef\xbb\xbf" + Path("host.request").read_bytes())
    answers = [
        command("publisher", "certify", "host.request", "--out", "host.answer"),
        command("publisher", "certify", "host.txt", "--out", "host.answer"),
        command("publisher", "certify", "windows.txt", "--out", "host.answer"),
        command("publisher", "certify", "marked.request", "--out", "host.answer"),
        command("publisher", "certify", "-", "--out", "host.answer", pasted=ask["text"]),
        command("publisher", "certify", "-", "--out", "host.answer", pasted="\n".join(reversed(ask["qr_codes"]))),
        command("publisher", "certify", "-", "--out", "host.answer", pasted=Path("host.request").read_text()),
    ]
    assert [answer["renewal"] for answer in answers] == [False, True, True, True, True, True, True]
    assert len({answer["host_id"] for answer in answers}) == 1


def test_an_answer_as_text_names_what_the_host_lacks(ask: dict[str, Any], command: Command) -> None:
    answer = command("publisher", "certify", "host.request", "--text", "-", "--catalog", "host.catalog")
    missing = command("host", "apply", "-", pasted=answer["text"])
    assert (missing["name"], missing["details"]["missing"]) == ("CATALOG_FILE_NEEDED", "catalog")
    assert "kms-fast host apply --catalog" in missing["cure"]
    applied = command("host", "apply", "-", "--catalog", "host.catalog", pasted=answer["text"])
    assert (applied["serial"], applied["catalog"], applied["publisher_file"]) == (1, 1, 1)
    assert command("host", "status")["catalog"] == 1


def test_families_that_another_key_takes_away_are_named(command: Command) -> None:
    command("publisher", "add-product", "Builder", "--family", "build", "--threshold", "1")
    command("publisher", "export", "--out", "publisher.json")
    keys = [command("publisher", "host-key", "--family", family)["host_key"] for family in ("ci", "build")]
    lost = []
    for given in (keys[:1], keys[1:], keys):
        options = [text for key in given for text in ("--key", key)]
        command("host", "request", "--publisher", "publisher.json", *options, "--out", "host.request")
        command("publisher", "certify", "host.request", "--out", "host.answer")
        lost.append(command("host", "apply", "host.answer")["families_lost"])
    assert lost == [[], ["ci"], []]


def test_a_renewal_by_text_needs_no_catalog_file_until_the_catalog_changes(
    ask: dict[str, Any], command: Command, tmp_path: Path
) -> None:
    command("publisher", "certify", "host.request", "--out", "host.answer")
    command("host", "apply", "host.answer")
    asked = command("host", "request", "--text", "-")
    renewed = command("publisher", "certify", "-", "--text", "-", "--qr", pasted=asked["text"])
    assert command("host", "apply", "-", pasted=renewed["text"])["serial"] == 2
    assert command("host", "apply", "-", pasted="\n".join(renewed["qr_codes"]))["serial"] == 2

    command("publisher", "add-product", "Second", "--family", "ci")
    command("publisher", "export")
    changed = command("publisher", "certify", "host.request", "--text", "answer.txt", "--catalog", "host.catalog")
    assert (changed["catalog"], changed["publisher_file"]) == (2, 2)
    missing = command("host", "apply", "answer.txt")
    assert (missing["name"], missing["details"]) == ("CATALOG_FILE_NEEDED", {"missing": "publisher file", "number": 2})
    assert "there is only publisher file 1" in missing["message"]
    applied = command("host", "apply", "answer.txt", "--catalog", "host.catalog")
    assert (applied["serial"], applied["products"]) == (3, 2)
    assert command("host", "apply", "-", pasted=renewed["text"])["name"] == "VERSION_WENT_BACK"


def test_a_newer_publisher_file_may_come_by_itself(ask: dict[str, Any], command: Command, tmp_path: Path) -> None:
    command("publisher", "certify", "host.request", "--out", "host.answer")
    command("host", "apply", "host.answer")
    # It is in the publisher file, not in the catalog that hosts get.
    source = tmp_path / "home" / "publisher" / "catalog.toml"
    source.write_text(
        source.read_text().replace('activation_url = ""', 'activation_url = "https://activation.example"')
    )
    command("publisher", "export", "--out", "publisher.json")
    asked = command("host", "request", "--publisher", "publisher.json", "--text", "-")
    answer = command("publisher", "certify", "-", "--text", "-", pasted=asked["text"])
    assert (answer["catalog"], answer["publisher_file"]) == (1, 2)
    assert command("host", "apply", "-", pasted=answer["text"])["publisher_file"] == 2


def test_one_catalog_file_serves_all_hosts_of_a_key(
    ask: dict[str, Any], host_key: str, command: Command, tmp_path: Path
) -> None:
    command("publisher", "certify", "host.request", "--text", "-", "--catalog", "first.catalog")
    other = ("--home", str(tmp_path / "other host"))
    asked = command("host", "request", "--publisher", "publisher.json", "--key", host_key, "--text", "-", *other)
    answer = command("publisher", "certify", "-", "--text", "-", "--catalog", "second.catalog", pasted=asked["text"])
    assert Path("first.catalog").read_bytes() == Path("second.catalog").read_bytes()
    applied = command("host", "apply", "-", "--catalog", "first.catalog", *other, pasted=answer["text"])
    assert applied["serial"] == 2


def test_the_wrong_thing_in_the_wrong_place_is_named(
    ask: dict[str, Any], command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    answer = command("publisher", "certify", "host.request", "--text", "-", "--out", "host.answer")
    certify, apply = ("publisher", "certify", "-", "--text", "x"), ("host", "apply", "-")
    lines = ask["text"].splitlines(keepends=True)
    situations = [
        (certify, answer["text"], "This is a host answer, but a host request belongs here"),
        (certify, Path("host.answer").read_text(), "has format 'kms_fast host answer 1'"),
        (apply, ask["text"], "This is a host request, but a host answer belongs here"),
        (certify, "".join(lines[:4]), "line 4 of 8 is missing"),
        (certify, "".join(lines[4:]), "line that begins the host request is missing"),
        (certify, ask["text"] * 2, "more than one block"),
        (certify, ask["text"].replace(lines[3], f"{lines[3][:9]}U{lines[3][10:]}"), "line 3 is damaged"),
        (certify, "Please certify our host.", "no block and no code"),
        (certify, " \n", "nothing was read"),
        (apply, "x" * (1 << 20) + "y", "longer than any host answer"),
        (certify, "{" * (1 << 20) + "{", "longer than any host request"),
        (("publisher", "certify", "host.png", "--text", "x"), "", "This is a picture"),
        (("publisher", "certify", "host.svg", "--text", "x"), "", "This is a picture"),
        (("host", "apply", "host.png"), "", "This is a picture"),
        (("host", "apply", "-", "--catalog", "host.request"), answer["text"], "has format 'kms_fast host request 1'"),
    ]
    for args, pasted, problem in situations:
        failure = command(*args, pasted=pasted)
        assert (failure["name"], problem in failure["message"]) == ("OFFLINE_DATA_MALFORMED", True), failure["message"]
    assert not Path("x").exists()
    home = ("--home", str(tmp_path / "other"))
    make_publisher(capsys, *home)
    failure = command(*certify, *home, pasted=ask["text"])
    assert "meant for another publisher" in failure["message"]


@pytest.mark.parametrize(
    "args", [["host", "request"], ["publisher", "certify", "host.request"], ["publisher", "certify", "-", "--text"]]
)
def test_a_form_has_to_be_chosen(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(args) == 2
    assert "--text" in capsys.readouterr().err


def test_the_text_comes_first_and_the_codes_last(host_key: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["host", "request", "--publisher", "publisher.json", "--key", host_key]
    assert run([*args, "--text", "-", "--qr"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("-----BEGIN KMS-FAST HOST REQUEST ")
    assert "\nNext, at the publisher: kms-fast publisher certify - --text -\nCode 1 of " in shown
    assert len(find_drawings(shown)) == len(re.findall("^Code ", shown, re.MULTILINE))


def test_who_pastes_is_told_how_to_end(ask: dict[str, Any], tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    args = [sys.executable, "-m", "kms_fast", "publisher", "certify", "-", "--text", "answer.txt"]
    certify = subprocess.Popen(
        args,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert certify.stderr is not None
    prompt = certify.stderr.readline().decode()
    assert "Paste the host request" in prompt
    assert "Ctrl-D" in prompt
    os.write(controller, ask["text"].encode() + b"\n\x04")
    assert certify.wait(timeout=60) == 0, certify.stderr.read()
    os.close(controller)
    os.close(terminal)
    assert Path("answer.txt").read_text().startswith("-----BEGIN KMS-FAST HOST ANSWER ")


def test_a_terminal_shows_one_code_at_a_time(host_key: str) -> None:
    controller, terminal = pty.openpty()
    args = [sys.executable, "-m", "kms_fast", "host", "request", "--publisher", "publisher.json", "--key", host_key]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "LINES": "24"}
    asked = subprocess.Popen([*args, "--qr"], stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    shown = read_until(controller, "Press Enter for code 2 of 2.")
    assert ("Code 1 of 2" in shown, "Code 2 of 2" in shown) == (True, False)
    os.write(controller, b"\n")
    read_until(controller, "Code 2 of 2: ")
    # Linux says that the other side of a terminal is closed by an error.
    with suppress(OSError):
        while os.read(controller, 1 << 16):
            pass
    os.close(controller)
    assert asked.wait(60) == 0


def read_until(controller: int, end: str) -> str:
    shown = ""
    while end not in shown:
        shown += os.read(controller, 1 << 16).decode(errors="replace")
    return shown


def test_a_code_that_no_window_of_this_size_shows(
    host_key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "10")
    assert run(["host", "request", "--publisher", "publisher.json", "--key", host_key, "--qr"]) == 0
    told = capsys.readouterr()
    assert find_drawings(told.out) == []
    assert "30 columns and 10 rows. Make the window larger" in told.err
    assert "--qr-png" in told.err
