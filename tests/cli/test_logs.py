"""The log: to a file that is rotated under load, as text and JSON, and where it cannot be written."""

import grp
import json
import os
import pwd
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.host.running import log_of, wait_for
from tests.hosts import RunningHost, make_realm, run_cli, serve
from tests.reference import rpc
from tests.reference.rpc import Connection, Context

SAMPLE = Path(__file__).parents[2] / "packaging" / "logrotate" / "kms-fast"


def run_python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The objects of all lines of all files, rotated ones included; every one is whole."""
    return [json.loads(line) for path in folder.iterdir() for line in path.read_text().splitlines()]


def ask_foreign(host: RunningHost, interface: int) -> None:
    """What a host logs a line for."""
    with Connection(host.address) as connection:
        connection.bind([Context(0, rpc.syntax(str(uuid.UUID(int=interface)), 1, 0))])


@pytest.fixture
def rotate(tmp_path: Path, require_tool: Callable[[str], str]) -> Callable[[Path, str], None]:
    """Call it with a log's folder and more directives: logrotate with the sample, at once."""
    program = require_tool("logrotate")

    def rotate_now(folder: Path, more: str) -> None:
        owner = f"{pwd.getpwuid(os.geteuid()).pw_name} {grp.getgrgid(os.getegid()).gr_name}"
        text = SAMPLE.read_text().replace("kms-fast kms-fast", owner).replace("/var/log/kms-fast", str(folder))
        # So that each rotation's file keeps its name and its text.
        text = text.replace("    compress\n", "").replace("    delaycompress\n", more)
        config = tmp_path / "logrotate.conf"
        config.write_text(text)
        config.chmod(0o644)
        command = [program, "--force", "--state", tmp_path / "logrotate.state", config]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    return rotate_now


@pytest.mark.parametrize("way", ["", "    copytruncate\n"], ids=["moved", "emptied"])
def test_rotation_under_load(tmp_path: Path, rotate: Callable[[Path, str], None], way: str) -> None:
    """Workers write while logrotate works: no line is torn, and where the file is moved none is lost."""
    folder = tmp_path / "log"
    folder.mkdir()
    options = ["--workers", "3", "--log-format", "json", "--log-file", str(folder / "kms-fast.log")]
    with serve(make_realm(tmp_path), *options) as host, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask_foreign, host, number) for number in range(1, 601)]
        for at in (100, 250, 400):
            wait_for(lambda at=at: sum(one.done() for one in asked) >= at)  # type: ignore[misc]
            rotate(folder, way)
        for one in asked:
            one.result()
        assert host.stop() == 0
    assert len(list(folder.iterdir())) == 4
    lines = read_lines(folder)
    told = [line["fields"]["interface"] for line in lines if line.get("event") == "FOREIGN_CLIENT"]
    assert len(told) == len(set(told))
    if not way:
        assert len(told) == 600
        assert {line.get("process") for line in lines} >= {"worker 1", "worker 2", "worker 3", None}
    assert any(line.get("event") == "HOST_STOPPED" for line in json_lines(folder / "kms-fast.log"))
    assert log_of(host) == ""


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_long_lines_of_several_processes(tmp_path: Path) -> None:
    """Longer than any buffer, and the file is moved away all the while."""
    folder = tmp_path / "log"
    folder.mkdir()
    code = (
        "import sys; from kms_fast.cli.logs import start_logging; from kms_fast.messages import log\n"
        "start_logging('info', 'json', sys.argv[1], sys.argv[2])\n"
        "for number in range(200): log('STORE_BACK', store=str(number).ljust(30_000, '.'))\n"
    )
    writers = [run_python(code, folder / "log", f"writer {number}") for number in range(3)]
    moved = 0
    while any(writer.poll() is None for writer in writers):
        if (folder / "log").exists():
            (folder / "log").rename(folder / f"log.{moved}")
            moved += 1
    assert [writer.communicate()[1] for writer in writers] == [""] * 3
    lines = read_lines(folder)
    assert moved > 0
    assert len({(line["process"], line["fields"]["store"]) for line in lines}) == len(lines) == 600


def test_without_its_folder_the_log_goes_to_stderr_until_it_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    with serve(make_realm(tmp_path), "--log-file", str(folder / "log")) as host:
        shutil.rmtree(folder)
        ask_foreign(host, 1)
        wait_for(lambda: f"{uuid.UUID(int=1)}" in log_of(host))
        folder.mkdir()
        ask_foreign(host, 2)
        wait_for((folder / "log").exists)
        assert host.stop() == 0
    assert str(uuid.UUID(int=2)) in (folder / "log").read_text()
    assert str(uuid.UUID(int=2)) not in log_of(host)


def test_a_log_file_that_cannot_be_opened(tmp_path: Path) -> None:
    realm, config = make_realm(tmp_path), tmp_path / "host.toml"
    wrong = str(tmp_path / "none" / "log")
    code, told, _ = run_cli("serve", "--listen", "127.0.0.1:0", "--log-file", wrong, home=realm.home)
    assert (code, told["name"], told["details"]["file"]) == (1, "STORAGE_FAILED", wrong)
    config.write_text("")
    with serve(realm, "--config", str(config)) as host:
        config.write_text(f'log_file = "{wrong}"\n')
        code, told, _ = run_cli("host", "reload", home=realm.home)
        assert (code, told["name"]) == (1, "STORAGE_FAILED")
        assert "not reloaded: " in log_of(host)
        config.write_text(f'log_file = "{tmp_path / "new.log"}"\nlog_format = "json"\n')
        assert run_cli("host", "reload", home=realm.home)[0] == 0
        assert host.stop() == 0
    events = [(line.get("process"), line["event"]) for line in json_lines(tmp_path / "new.log")]
    assert {(None, "RELOADED"), ("worker 1", "DRAINING"), (None, "HOST_STOPPED")} <= set(events)


def test_an_error_in_a_line_of_json(tmp_path: Path) -> None:
    config = tmp_path / "host.toml"
    config.write_text('log_format = "json"\n')
    with serve(make_realm(tmp_path), "--config", str(config)) as host:
        config.write_text("lissten = 3\n")
        assert run_cli("host", "reload", home=host.realm.home)[0] == 1
        (line,) = [line for line in map(json.loads, log_of(host).splitlines()) if line["event"] == "RELOAD_REFUSED"]
    error = line["fields"]["error"]
    assert (error["name"], error["details"]["nearest"]) == ("CONFIGURATION_INVALID", "listen")
    assert line["message"] == f"not reloaded: {error['message']} {error['cure']}"


COMMAND = """
import click
from kms_fast.cli.logs import logging_options
from kms_fast.messages import log

@click.command()
@logging_options
def command():
    log("PRUNED", batches=2)
    log("STORE_BACK", store="a\\x1b[31mred")

command()
"""


def test_options_of_other_commands(tmp_path: Path) -> None:
    def run(*options: str, **environment: str) -> tuple[int, str]:
        command = [sys.executable, "-c", COMMAND, *options]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=60)
        return done.returncode, done.stderr

    code, text = run()
    assert code == 0
    assert "INFO dropped the records of 2 batches" in text
    assert "WARNING The store a\\x1b[31mred is back." in text, "control characters are shown, not sent"
    assert "dropped" not in run("--log-level", "warning")[1]
    (line,) = run("--log-level", "warning", KMS_FAST_LOG_FORMAT="json")[1].splitlines()
    assert json.loads(line)["fields"] == {"store": "a\x1b[31mred"}
    assert run("--log-file", str(tmp_path / "log"))[1] == ""
    assert len((tmp_path / "log").read_text().splitlines()) == 2
    assert run("--log-format", "xml")[0] == 2


def test_an_event_is_a_line_for_people_and_fields_for_programs() -> None:
    code = (
        "import sys; from kms_fast.cli.logs import start_logging; from kms_fast.messages import log\n"
        "from kms_fast.model.events import DnsPublished\n"
        "start_logging('info', sys.argv[1], None)\n"
        "log('DNS_PUBLISHED', event=DnsPublished(domain='corp.example'), record='R', server='S')\n"
    )
    text, line = (run_python(code, form).communicate(timeout=60)[1] for form in ("text", "json"))
    assert text.endswith(" INFO 12294 corp.example: published R at S\n")
    assert json.loads(line)["fields"] == {
        "event": {"id": 12294, "domain": "corp.example"},
        "record": "R",
        "server": "S",
    }
