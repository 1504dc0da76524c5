"""``--report``: the file, and the command line that stands in the page."""

import shlex
from pathlib import Path

import pytest

from kms_fast.charts import Page
from kms_fast.cli.output import Output
from kms_fast.cli.report import check_report, describe_command, write_report

KEY = "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"
MASK = "XXXXX-XXXXX-XXXXX-XXXXX-XXXXX"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["load", "h", "--key", KEY, "--rate", "5"], ["load", "h", "--key", MASK, "--rate", "5"]),
        (["load", "h", f"--key={KEY}"], ["load", "h", f"--key={MASK}"]),
        (["load", "--key", KEY, "--key", KEY.lower(), "h"], ["load", "--key", MASK, "--key", MASK, "h"]),
        (["load", "--report", "a b'c.html"], ["load", "--report", "a b'c.html"]),
        (["lab", "--store", "postgresql://u:secret@h/d"], ["lab", "--store", "postgresql://u:***@h/d"]),
        (["lab", "--store=postgresql://u:secret@h/d"], ["lab", "--store=postgresql://u:***@h/d"]),
        ([], []),
    ],
)
def test_a_command_can_be_typed_again_without_its_secrets(arguments: list[str], shown: list[str]) -> None:
    assert shlex.split(describe_command(arguments)) == ["kms-fast", *shown]


def test_checking_a_file_leaves_all_as_it_is(tmp_path: Path) -> None:
    there, new = tmp_path / "there", tmp_path / "new"
    there.write_bytes(b"old")
    check_report(there)
    check_report(new)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"there": b"old"}


def test_a_file_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_report(tmp_path / "no" / "page.html")


def test_a_page_that_cannot_be_written_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not write_report(Path("/dev/full"), Page(title="x"), Output())
    assert "/dev/full: No space left on device" in capsys.readouterr().err
    assert write_report(tmp_path / "page.html", Page(title="x"), Output())
    assert b"<h1>x</h1>" in (tmp_path / "page.html").read_bytes()
    assert capsys.readouterr().err == ""
