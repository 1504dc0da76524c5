"""What commands print: streams, JSON, escapes, progress."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from rich.table import Table

from kms_fast.cli import output
from kms_fast.cli.output import Output
from kms_fast.errors import KmsFastError

VALUE = {
    "cmid": UUID(int=7),
    "hash": b"\x01\xff",
    "path": Path("/x"),
    "granted": True,
    "none": None,
    "list": [1, 2],
    "empty": [],
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_result(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).result(VALUE, "text for people")
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "cmid": "00000000-0000-0000-0000-000000000007",
        "hash": "01ff",
        "path": "/x",
        "granted": True,
        "none": None,
        "list": [1, 2],
        "empty": [],
    }


def test_a_result_may_say_that_it_is_not_ok(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).result({"ok": False, "wrong": 1})
    assert json.loads(capsys.readouterr().out) == {"ok": False, "wrong": 1}


def test_text_result_lists_fields(capsys: pytest.CaptureFixture[str]) -> None:
    Output().result({**VALUE, "counts": [{"family_name": "desktop", "count": 3}]})
    assert capsys.readouterr().out.splitlines() == [
        "cmid     00000000-0000-0000-0000-000000000007",
        "hash     01ff",
        "path     /x",
        "granted  yes",
        "none     -",
        "list     1, 2",
        "empty    -",
        "counts",
        "  family name  desktop",
        "  count        3",
    ]


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "listening on [::1]:1688 [bold] :smile: " + "x" * 300
    Output().result({}, text)
    assert capsys.readouterr().out == text + "\n"


def test_a_table_has_no_colour_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    output.stdout_console.cache_clear()
    table = Table("name", title="[red]t[/red]")
    table.add_row("[::1]:1688")
    Output().result({}, table)
    assert "\x1b" not in capsys.readouterr().out


def test_controls_cannot_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Output().result({}, "a\x1b[2Jb\x9b\tc")
    Output().error(KmsFastError("bad name \x1b]0;x\x07"))
    shown = capsys.readouterr()
    assert shown.out == "a\\x1b[2Jb\\x9b\tc\n"
    assert shown.err.startswith("error: bad name \\x1b]0;x\\x07. ")


def test_progress_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.progress("50 %")
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    out.progress("50 %")
    out.result("done")
    assert terminal.getvalue() == "\r\x1b[K50 %\r\x1b[K"
    assert capsys.readouterr().out == "done\n"


def test_lines_are_objects_under_json(capsys: pytest.CaptureFixture[str]) -> None:
    event = {"event": "listening", "port": 1}
    Output(as_json=True).line(event, "listening on port 1")
    Output().line(event, "listening on port 1")
    Output().line(event)
    assert capsys.readouterr().out.splitlines() == [json.dumps(event), "listening on port 1", json.dumps(event)]


@pytest.mark.parametrize(
    ("platform", "euid", "environ", "home"),
    [
        ("linux", 0, {"XDG_DATA_HOME": "/data"}, "/var/lib/kms-fast"),
        ("linux", 1000, {"XDG_DATA_HOME": "/data"}, "/data/kms-fast"),
        ("linux", 1000, {"HOME": "/home/u", "XDG_DATA_HOME": ""}, "/home/u/.local/share/kms-fast"),
        ("darwin", 501, {"HOME": "/Users/u"}, "/Users/u/Library/Application Support/kms-fast"),
    ],
)
def test_default_home(
    platform: str, euid: int, environ: dict[str, str], home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr("os.geteuid", lambda: euid)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert output.default_home() == Path(home)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("no_color", [True, False])
def test_no_color(no_color: bool) -> None:
    """On a terminal what is drawn has colours, under NO_COLOR none."""
    code = (
        "from rich.text import Text; from kms_fast.cli.output import stdout_console; "
        "stdout_console().print(Text('x', style='red'))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color"} | ({"NO_COLOR": "1"} if no_color else {})
    ours, its = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stdout=its, env=environment, check=True, timeout=60)
    os.close(its)
    drawn = os.read(ours, 1000)
    os.close(ours)
    assert b"x" in drawn
    assert (b"\x1b[" in drawn) is not no_color
