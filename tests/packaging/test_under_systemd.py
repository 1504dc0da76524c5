"""A publisher, a host and a client as services of a real systemd, set up with the commands of docs/operation.md."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NoReturn

import pytest

from tests.host.running import wait_for
from tests.packaging.booted import CHECKOUT, INSTALLED, SYSTEMD, BootedSystem

HOME = "/var/lib/kms-fast"
ROUNDS = 3
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd runs on Linux")


def run_json(system: BootedSystem, command: str, *, user: str = "root") -> Any:
    """The object that ``kms-fast COMMAND --json`` prints; the home is the units'."""
    told = system.succeed(f"runuser -u {user} -- kms-fast {command} --home {HOME} --json")
    return json.loads(told.splitlines()[-1])


def activate(system: BootedSystem) -> None:
    """This machine's product is granted an activation."""
    assert run_json(system, "client activate")["state"] == 1


@pytest.fixture(scope="module")
def system(
    tmp_path_factory: pytest.TempPathFactory,
    require_tool: Callable[[str], str],
    unavailable: Callable[[str], NoReturn],
) -> Iterator[BootedSystem]:
    """Everything is installed and runs: the publisher's service, a certified host of two workers, a client."""
    for tool in ("unshare", "nsenter", "ip", "systemd-sysusers"):
        require_tool(tool)
    if os.geteuid() != 0 or not SYSTEMD.exists():
        unavailable("a system of its own needs root and systemd")
    with ExitStack() as stack:
        try:
            folder = tmp_path_factory.mktemp("system")
            booted = stack.enter_context(BootedSystem(folder, f"kms-fast-tests-{os.getpid()}"))
        except OSError as error:
            unavailable(f"a system of its own cannot be started here: {error}")
        install(booted)
        yield booted


def install(system: BootedSystem) -> None:
    """As an administrator does; the publisher comes from another home, without its root key."""
    documented = (CHECKOUT / "docs" / "operation.md").read_text().partition("\n## Under systemd\n")[2]
    commands = re.findall(r"^\$ (.*)$", documented.partition("```console\n")[2].partition("```")[0], re.MULTILINE)
    assert len(commands) == 4
    system.succeed(f"set -e; cd {INSTALLED}/code/packaging/systemd; " + "\n".join(commands))
    options = '--product "Example Runner" --family ci --threshold 1 --key-file issuer.pass --out /tmp/publisher.json'
    told = system.succeed(
        f'mkdir /srv/kms; cd /srv/kms; kms-fast publisher init "Example Ltd" --home . {options} --json'
    )
    made = json.loads(told)
    system.succeed(
        f"""set -e; cd /srv/kms
        install -d -m 755 /etc/kms-fast && install -m 600 issuer.pass /etc/kms-fast/issuer.pass
        rm publisher/root.key; mv publisher/* {HOME}/publisher/
        chown -R kms-fast-publisher: {HOME}/publisher
        systemctl enable --now kms-fast-publisher"""
    )
    options = f"--publisher /tmp/publisher.json --key {made['host_key']} --url http://127.0.0.1:8443"
    assert run_json(system, f"host activate {options}", user="kms-fast")["serial"] == 1
    run_json(system, "host configure --workers 2", user="kms-fast")
    system.succeed("systemctl enable --now kms-fast")
    options = f"--publisher /tmp/publisher.json --key {made['setup_key']} --host 127.0.0.1"
    assert run_json(system, f"client activate {options}")["state"] == 1
    system.succeed("systemctl enable --now kms-fast-client")
    for unit in ("kms-fast-publisher", "kms-fast", "kms-fast-client"):
        assert not re.search("WARNING|ERROR|Traceback|not permitted", system.journal(unit)), system.journal(unit)


def test_all_is_well(system: BootedSystem) -> None:
    findings = run_json(system, "doctor --activate")["checks"]
    assert {finding["about"].partition(" ")[0] for finding in findings} == {
        "host", "client", "hosts", "this", "activation",
    }  # fmt: skip
    assert {finding["verdict"] for finding in findings} <= {"ok", "skipped"}
    # The host's own user sees its half.
    assert run_json(system, "doctor", user="kms-fast")["ok"]
    assert run_json(system, "publisher status", user="kms-fast-publisher")["hosts"] == 1


@pytest.mark.parametrize("unit", ["kms-fast-publisher", "kms-fast", "kms-fast-client"])
def test_a_service_has_no_rights_that_it_does_not_need(system: BootedSystem, unit: str) -> None:
    pid = system.show(unit, "MainPID")
    status = system.succeed(f"cat /proc/{pid}/status")
    assert "Seccomp:\t2\n" in status
    assert "CapBnd:\t0000000000000000\n" in status
    # Of what it may write to, its own folders alone are on the disk.
    mounts = [line.split() for line in system.succeed(f"cat /proc/{pid}/mounts").splitlines()]
    assert next(options for _, place, _, options, *_ in mounts if place == "/").startswith("ro,")
    own = {f"{HOME}/{unit.removeprefix('kms-fast').removeprefix('-') or 'host'}"}
    logs = {"/var/log/kms-fast"} if unit == "kms-fast" else set()
    disk = {place for _, place, kind, options, *_ in mounts if kind == "overlay" and options.startswith("rw")}
    assert disk - {"/tmp", "/var/tmp"} == own | logs


def test_a_reload_tells_what_is_wrong(system: BootedSystem) -> None:
    for unit in ("kms-fast-publisher", "kms-fast", "kms-fast-client"):
        system.succeed(f"systemctl reload {unit}")
    path = f"{HOME}/host/kms-fast.toml"
    system.succeed(f"cp -p {path} {path}.good; echo 'workers = \"x\"' > {path}")
    assert system.run("systemctl reload kms-fast").returncode != 0
    assert "expected a whole number from 1 to 256. " in system.journal("kms-fast")
    assert system.show("kms-fast", "ActiveState") == "active"
    system.succeed(f"mv {path}.good {path}; systemctl reload kms-fast")
    activate(system)


def test_a_killed_host_comes_back(system: BootedSystem) -> None:
    pid = system.show("kms-fast", "MainPID")
    system.succeed(f"kill -9 {pid}")
    wait_for(lambda: system.show("kms-fast", "MainPID") not in (pid, "0"))
    wait_for(lambda: system.show("kms-fast", "ActiveState") == "active")
    activate(system)
    assert run_json(system, "ledger verify", user="kms-fast")["ok"]


def test_a_stop_is_a_drain(system: BootedSystem) -> None:
    system.succeed("systemctl stop kms-fast")
    assert system.show("kms-fast", "Result") == "success"
    assert "stopped: drained in " in system.journal("kms-fast")
    system.succeed("systemctl start kms-fast")
    activate(system)


def test_with_a_socket_unit_nobody_is_refused_while_the_host_restarts(system: BootedSystem) -> None:
    system.succeed("systemctl stop kms-fast; systemctl start kms-fast.socket kms-fast")
    for _ in range(ROUNDS):
        # Else five starts within ten seconds are too many.
        system.succeed("systemctl reset-failed kms-fast; systemctl restart --no-block kms-fast")
        activate(system)
    system.succeed("systemctl stop kms-fast.socket kms-fast; systemctl start kms-fast")
    activate(system)


def test_a_publisher_without_its_passphrase_says_so(system: BootedSystem) -> None:
    system.succeed("echo wrong > /etc/kms-fast/issuer.pass.wrong; cp /etc/kms-fast/issuer.pass /tmp/right")
    system.succeed("mv /etc/kms-fast/issuer.pass.wrong /etc/kms-fast/issuer.pass")
    assert system.run("systemctl restart kms-fast-publisher").returncode != 0
    assert "KEY_FILE_LOCKED" in system.journal("kms-fast-publisher")
    system.succeed("install -m 600 /tmp/right /etc/kms-fast/issuer.pass; systemctl restart kms-fast-publisher")
