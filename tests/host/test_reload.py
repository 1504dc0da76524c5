"""Reloads of a real host: certificate, catalog and settings, and what keeps the old."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.running import activate, connect_to_each, log_of, renew, wait_for
from tests.hosts import Realm, run_cli, serve
from tests.reference.rpc import Connection
from tests.system.asker import Asker


def test_a_reload_swaps_the_certificate_under_open_connections(realm: Realm) -> None:
    asker = Asker.of(realm, "desktop")
    with serve(realm, "--workers", "2") as host:
        connections = connect_to_each(host, asker).values()
        assert {activate(connection, asker).header.serial for connection in connections} == {1}
        renew(realm, 2)
        code, told, _ = run_cli("host", "reload", home=realm.home)
        assert (code, told["pids"]) == (0, [host.process.pid])
        assert "reloaded: certificate 2, catalog 1, publisher file 1" in log_of(host)
        for connection in connections:
            verified = activate(connection, asker)
            assert (verified.header.serial, verified.leaf.current_count) == (2, 2)
        assert host.stop() == 0
    verdict = run_cli("ledger", "verify", home=realm.home)[1]
    assert (verdict["ok"], verdict["segments"]) == (True, 4)


def test_a_reload_takes_up_settings(realm: Realm, tmp_path: Path) -> None:
    asker, config = Asker.of(realm, "desktop"), tmp_path / "host.toml"
    config.write_text('renewal_interval = "2d"\n')
    with serve(realm, "--config", str(config)) as host, Connection(host.address) as connection:
        connection.bind()
        assert activate(connection, asker).leaf.renewal_interval == 2 * 1440
        config.write_text('renewal_interval = "3d"\nworkers = 7\n')
        assert run_cli("host", "reload", home=realm.home)[0] == 0
        assert activate(connection, asker).leaf.renewal_interval == 3 * 1440
        assert "workers changes with the next start only" in log_of(host)
        assert len(host.worker_pids()) == 1


def test_settings_that_fight_the_catalog_are_told(realm: Realm, tmp_path: Path) -> None:
    """The catalog's machines renew every 7 days."""
    config = tmp_path / "host.toml"
    config.write_text('retention = "15d"\n')
    with serve(realm, "--config", str(config)) as host:
        assert "every 7d and misses one renewal is forgotten" in log_of(host)
        assert "half the retention of 15d. Change retention," in log_of(host)
        config.write_text('retention = "14d"\n')
        assert run_cli("host", "reload", home=realm.home)[0] == 0
        assert "half the retention of 14d" in log_of(host)


@pytest.mark.parametrize("wrong", ["host.cert", "catalog.json", "config", "expired"])
def test_an_invalid_reload_keeps_the_old(realm: Realm, tmp_path: Path, wrong: str) -> None:
    asker, config = Asker.of(realm, "desktop"), tmp_path / "host.toml"
    config.write_text("")
    with serve(realm, "--config", str(config)) as host, Connection(host.address) as connection:
        connection.bind()
        if wrong == "config":
            config.write_text("lissten = 3\n")
        elif wrong == "expired":
            renew(realm, 2, days=0)
        else:
            (realm.home / "host" / wrong).write_bytes(b"damaged")
        code, told, _ = run_cli("host", "reload", home=realm.home)
        assert (code, told["ok"]) == (1, False)
        assert told["cure"]
        assert "not reloaded: " in log_of(host)
        assert "Traceback" not in log_of(host)
        assert activate(connection, asker).header.serial == 1
        assert host.stop() == 0


def test_reloading_what_does_not_run(realm: Realm) -> None:
    code, told, _ = run_cli("host", "reload", home=realm.home)
    assert (code, told["name"]) == (1, "HOST_NOT_RUNNING")
    # What a host that was killed left behind is no host.
    with serve(realm) as host:
        host.process.kill()
        host.process.wait(30)
    assert list((realm.home / "host").glob("serve-*.json"))
    assert run_cli("host", "reload", home=realm.home)[1]["name"] == "HOST_NOT_RUNNING"
    assert not list((realm.home / "host").glob("serve-*.json"))


def is_pending(pid: int, number: int) -> bool:
    """Whether a signal waits for a process (proc(5), ShdPnd)."""
    status = Path(f"/proc/{pid}/status").read_text()
    pending = next(line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(pending, 16) >> (number - 1) & 1)


def test_a_host_that_dies_of_a_reload_is_told(realm: Realm, tmp_path: Path) -> None:
    with serve(realm) as host:
        host.process.send_signal(signal.SIGSTOP)
        reload = subprocess.Popen(
            [sys.executable, "-m", "kms_fast", "host", "reload", "--home", str(realm.home), "--json"],
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: is_pending(host.process.pid, signal.SIGHUP))
        host.process.kill()
        told = json.loads(reload.communicate(timeout=60)[0])
        assert (reload.returncode, told["name"]) == (1, "PROCESS_FAILED")
