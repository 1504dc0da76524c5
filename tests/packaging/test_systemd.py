"""The units and folders as systemd reads them."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from kms_fast.model.settings import HostSettings
from tests.test_docs import complain

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
SERVICES = ["kms-fast.service", "kms-fast-client.service", "kms-fast-publisher.service"]
MOST_EXPOSURE = 1.5
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd runs on Linux")


def read_unit(path: Path) -> dict[str, list[str]]:
    """Every line of a setting, by its name."""
    settings: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE):
        settings.setdefault(name, []).append(value)
    return settings


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """The units, with the command where this machine has it."""
    program = Path(sys.executable).with_name("kms-fast")
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/local/bin/kms-fast", str(program))
        (tmp_path / unit.name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("unit", [*SERVICES, "kms-fast.socket"])
def test_systemd_accepts_a_unit(unit: str, copies: Path, require_tool: Callable[[str], str]) -> None:
    done = run(require_tool("systemd-analyze"), "verify", "--man=no", copies / unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_wrong_unit_is_found(copies: Path, require_tool: Callable[[str], str]) -> None:
    unit = copies / "kms-fast.service"
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystem=very"))
    assert "protect system" in run(require_tool("systemd-analyze"), "verify", "--man=no", unit).stderr


@pytest.mark.parametrize("unit", SERVICES)
def test_exposure_of_a_service(unit: str, require_tool: Callable[[str], str]) -> None:
    analyze = [require_tool("systemd-analyze"), "security", "--offline=true", "--no-pager"]
    done = run(*analyze, f"--threshold={MOST_EXPOSURE * 10:.0f}", UNITS / unit)
    assert done.returncode == 0, done.stdout
    stated = re.search(r"Overall exposure level for .*?: ([\d.]+)", done.stdout)
    assert stated is not None
    assert float(stated[1]) <= MOST_EXPOSURE


def test_user_and_folders(
    tmp_path: Path, require_tool: Callable[[str], str], unavailable: Callable[..., NoReturn]
) -> None:
    """In a system of their own, twice: what is there already stays."""
    if os.geteuid() != 0:
        unavailable("folders that belong to other users are for root to make")
    users, folders = require_tool("systemd-sysusers"), require_tool("systemd-tmpfiles")
    (tmp_path / "etc").mkdir()
    for _ in range(2):
        for program, options, name in ((users, [], "sysusers"), (folders, ["--create"], "tmpfiles")):
            done = run(program, f"--root={tmp_path}", *options, UNITS / f"kms-fast.{name}")
            assert done.returncode == 0, done.stderr
        (tmp_path / "var/lib/kms-fast/host/kms-fast.toml").touch()
    accounts = (tmp_path / "etc/passwd").read_text()

    def find_account(name: str) -> tuple[int, int]:
        account = re.search(rf"^{name}:x:(\d+):(\d+):.*:/var/lib/kms-fast:(.*)$", accounts, re.MULTILINE)
        assert account is not None
        assert account[3].endswith("nologin")
        return int(account[1]), int(account[2])

    user, group = find_account("kms-fast")
    expected = {
        "var/lib/kms-fast": (0o755, 0, 0),
        "var/lib/kms-fast/host": (0o700, user, group),
        "var/lib/kms-fast/client": (0o700, 0, 0),
        "var/lib/kms-fast/publisher": (0o700, *find_account("kms-fast-publisher")),
        "var/log/kms-fast": (0o750, user, group),
    }
    found = {name: (tmp_path / name).stat() for name in expected}
    assert {name: (one.st_mode & 0o7777, one.st_uid, one.st_gid) for name, one in found.items()} == expected


@pytest.mark.parametrize("service", SERVICES)
def test_commands_of_a_unit_exist(service: str) -> None:
    unit = read_unit(UNITS / service)
    lines = [unit[name][0] for name in ("ExecStart", "ExecReload")]
    own = [line.removeprefix("/usr/local/bin/") for line in lines if line != "/bin/kill -HUP $MAINPID"]
    assert [complaint for line in own if (complaint := complain(line))] == []


def test_room_for_the_connections_of_a_worker() -> None:
    unit = read_unit(UNITS / "kms-fast.service")
    assert int(unit["LimitNOFILE"][0]) > HostSettings().max_connections + 1000
    assert int(unit["TimeoutStopSec"][0]) > 2 * HostSettings().timeout_graceful_shutdown_s


def test_ports_of_the_socket_unit() -> None:
    assert tuple(read_unit(UNITS / "kms-fast.socket")["ListenStream"]) == HostSettings().listen
