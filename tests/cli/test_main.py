"""The root of the command line: help, exit codes, failures as text and as JSON."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from kms_fast.cli import main
from kms_fast.errors import KmsFastError, Refused
from kms_fast.results import BY_NAME, RESULTS


def run_process(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kms_fast", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Put an exception in; ``kms-fast version`` then raises it."""
    errors: list[BaseException] = []

    @click.command
    @click.option("--json", is_flag=True)
    def command(json: bool) -> None:
        raise errors.pop()

    version = importlib.import_module("kms_fast.cli.version")
    monkeypatch.setattr(version, "command", command)
    return errors


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from kms_fast.cli.main import run; run(['--help']); "
        "print([m for m in sys.modules if m in ('rich', 'uvloop', 'kms_fast._core', 'kms_fast.cli.version')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert out.splitlines()[-1] == "[]"
    for name in main.COMMANDS:
        assert f"\n  {name} " in out


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_loads_and_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: kms-fast {name}")


def test_version_names_back_ends() -> None:
    done = run_process("version", "--json", env={**os.environ, "KMS_FAST_NO_AESNI": "1", "KMS_FAST_NO_SHANI": "1"})
    assert done.returncode == 0
    assert json.loads(done.stdout)["backend"] == {"aes": "cryptography", "sha256": "c"}


@pytest.mark.parametrize("args", [["no-such"], ["version", "--no-such"], ["version", "extra"], ["config", "no-such"]])
def test_usage_error(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(args) == 2
    assert main.run([*args, "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    failure = json.loads(shown.out)
    assert (failure["ok"], failure["name"]) == (False, "COMMAND_INVALID")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["serve", "--workers", "banana"], "--workers banana: expected a whole number from 1 to 256"),
        (["config", "validate", "--keep-records", "1h"], "--keep-records 1h: expected at least 1d"),
        (["lab", "--connections", "many"], "'--connections': 'many' is not a valid integer; expected from 1 to 60000"),
        (["lab", "--connections", "0"], "'--connections': 0 is not in the range 1<=x<=60000"),
        (["lab", "--seconds", "x"], "'--seconds': 'x' is not a valid float; expected more than 0"),
        (["lab", "--store", "s3cret:x"], "'--store': not a PostgreSQL URL"),
        (["client", "set-host", "kms:99999"], "'HOST': The host 'kms:99999' cannot be read: '99999' is not a port"),
    ],
)
def test_a_wrong_value_names_its_flag_and_what_is_allowed(
    args: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = [] if args[0] in ("lab", "config") else ["--home", str(tmp_path)]
    assert main.run([*args, *home, "--json"]) == 2
    failure = json.loads(capsys.readouterr().out)
    assert said in failure["message"]
    assert failure["name"] == "COMMAND_INVALID"


@pytest.mark.parametrize(
    "args",
    [
        ["load", "127.0.0.1", "--key", "K", "--publisher", "FILE"],
        ["client", "install-key", "K", "--publisher", "FILE", "--home", "HOME"],
        ["host", "apply", "FILE", "--home", "HOME"],
        ["config", "validate", "--config", "FILE"],
    ],
)
def test_a_missing_file_is_no_mistyped_command(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"FILE": str(tmp_path / "missing"), "HOME": str(tmp_path)}
    assert main.run([*(places.get(arg, arg) for arg in args), "--json"]) == 1
    failure = json.loads(capsys.readouterr().out)
    assert (failure["name"], failure["message"]) == ("STORAGE_FAILED", f"{places['FILE']}: No such file or directory")


def test_bare_command_prints_help_and_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([]) == 2
    assert main.run(["config"]) == 2
    assert "Usage: kms-fast config" in capsys.readouterr().err


def test_failure_is_one_line_and_one_object(failing: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    error = Refused("Seen 3 machines of 25", name="COUNT_TOO_LOW", count=3, threshold=25)
    failing += [error, error]
    assert main.run(["version"]) == 1
    assert main.run(["version", "--json"]) == 1
    shown = capsys.readouterr()
    row = BY_NAME["COUNT_TOO_LOW"]
    assert shown.err == f"error: Seen 3 machines of 25. {row.meaning} {row.cure} (0xC004F038 COUNT_TOO_LOW)\n"
    assert json.loads(shown.out) == {
        "ok": False,
        "code": "0xC004F038",
        "name": "COUNT_TOO_LOW",
        "message": "Seen 3 machines of 25",
        "meaning": row.meaning,
        "cure": row.cure,
        "signed": True,
        "details": {"count": 3, "threshold": 25},
    }


def test_interrupt(failing: list[BaseException], capsys: pytest.CaptureFixture[str]) -> None:
    failing.append(KeyboardInterrupt())
    assert main.run(["version", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["name"] == "INTERRUPTED"


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (PermissionError(13, "Permission denied", "/etc/shadow"), "NOT_ALLOWED"),
        (FileNotFoundError(2, "No such file or directory", "/nowhere"), "STORAGE_FAILED"),
        (OSError(28, "No space left on device"), "STORAGE_FAILED"),
    ],
)
def test_file_errors_are_no_tracebacks(
    error: OSError, name: str, failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(error)
    assert main.run(["version", "--json"]) == 1
    failure = json.loads(capsys.readouterr().out)
    assert failure["name"] == name
    assert str(error.strerror) in failure["message"]


def test_other_os_errors_are_bugs_and_stay_visible(failing: list[BaseException]) -> None:
    failing.append(ConnectionResetError(104, "Connection reset by peer"))
    with pytest.raises(ConnectionResetError):
        main.run(["version"])


def test_reader_that_went_away() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "kms_fast", "explain"]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_disk_behind_stdout() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "kms_fast", "explain"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "STORAGE_FAILED" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_short_output_to_a_full_disk_fails_once() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "kms_fast", "explain", "ACTIVATED"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    shell = f'"$0" -m kms_fast explain ACTIVATED {closed} && ! "$0" -m kms_fast explain NO_SUCH {closed}'
    done = subprocess.run(["sh", "-c", shell, sys.executable], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["completion", shell]) == 0
    assert "_KMS_FAST_COMPLETE" in capsys.readouterr().out


def test_completion_of_a_command() -> None:
    asked = {"_KMS_FAST_COMPLETE": "bash_complete", "COMP_WORDS": "kms-fast ver", "COMP_CWORD": "1"}
    assert run_process(env={**os.environ, **asked}).stdout.splitlines() == ["plain,version"]


@pytest.mark.parametrize(
    "text", ["0xC004F038", "c004f038", "-1073418184", "3221549112", "count_too_low", "Count-Too-Low"]
)
def test_explain_takes_a_code_in_each_form(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["explain", "--json", text]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "COUNT_TOO_LOW"


def test_explain_lists_all_and_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["explain", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["results"]) == len(RESULTS)
    assert main.run(["explain", "clocks"]) == 2
    assert "CLOCKS_DIFFER" in capsys.readouterr().err


def test_a_row_for_every_result_used() -> None:
    with pytest.raises(KeyError):
        KmsFastError("no such row", name="NO_SUCH_ROW")
