"""Workers that die, hang and reload under a real supervisor, and what it tells administrators and service managers."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from kms_fast.host.segment import list_segments
from kms_fast.model import signing
from kms_fast.model.certificate import DAY_MS, CertifiedFamily, issue_host_certificate
from kms_fast.store.sqlite_inventory import SqliteInventory
from tests.hosts import DESKTOP, Realm, RunningHost, find_children, make_key, make_realm, run_cli, serve
from tests.reference.rpc import Connection
from tests.reference.verify import Verified
from tests.system.asker import Asker, now_ms


def log_of(host: RunningHost) -> str:
    return (host.realm.home.parent / "serve.log").read_text()


def wait_for(condition: Callable[[], bool]) -> None:
    """Until something that is bound to happen has."""
    end_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def activate(connection: Connection, asker: Asker) -> Verified:
    """One new machine is granted."""
    asked = asker.ask()
    verified = asker.check(asked, connection.call(asked.request)[0])
    assert verified.leaf.result == 0
    return verified


def renew(realm: Realm, serial: int, *, days: int = 100) -> None:
    """Install another certificate for the host's key."""
    path = realm.home / "host" / "host.cert"
    certificate = issue_host_certificate(
        realm.issuer_key,
        realm.issuer,
        public_key=signing.public_bytes(make_key("host")),
        serial=serial,
        not_before_ms=now_ms() - DAY_MS,
        not_after_ms=now_ms() + days * DAY_MS,
        families=[CertifiedFamily(DESKTOP, 3, 1, 259_200)],
    )
    path.write_bytes(certificate.to_bytes() + realm.issuer.to_bytes())


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return make_realm(tmp_path)


def connect_to_each(host: RunningHost, asker: Asker) -> dict[int, Connection]:
    """A connection to each worker, by the segment that its answers are in."""
    found: dict[int, Connection] = {}
    for _ in range(200):
        connection = Connection(host.address)
        connection.bind()
        segment = activate(connection, asker).header.segment
        if segment in found:
            connection.socket.close()
        found.setdefault(segment, connection)
        if len(found) == len(host.worker_pids()):
            break
    return found


def test_workers_share_the_address_and_have_a_segment_each(realm: Realm) -> None:
    asker = Asker.of(realm, "desktop")
    with serve(realm, "--workers", "3") as host:
        assert len(host.worker_pids()) == 3
        connections = connect_to_each(host, asker)
        assert sorted(connections) == [1, 2, 3]
        for connection in connections.values():
            connection.socket.close()
        assert host.stop() == 0
    verdict = run_cli("ledger", "verify", home=realm.home)[1]
    assert (verdict["ok"], verdict["segments"]) == (True, 3)


def test_a_killed_worker_is_replaced_and_the_others_serve_on(realm: Realm) -> None:
    asker = Asker.of(realm, "desktop")
    with serve(realm, "--workers", "2") as host:
        before = host.worker_pids()
        connections = connect_to_each(host, asker)
        os.kill(before[0], signal.SIGKILL)
        alive = {}
        for segment, connection in connections.items():
            try:
                alive[segment] = activate(connection, asker)
            except OSError:
                continue
        assert len(alive) == 1
        wait_for(lambda: len(set(host.worker_pids()) - set(before)) == 1)
        assert sorted({1, 2, 3} - set(connect_to_each(host, asker)))[0] in (1, 2)
        assert "ended by signal 9. It starts again" in log_of(host)
        assert host.stop() == 0
    assert run_cli("ledger", "verify", home=realm.home)[1]["ok"]


def test_connections_wait_for_a_worker_that_starts_again(realm: Realm) -> None:
    """The socket is the supervisor's: whoever connects while nobody accepts is served by the next worker."""
    asker = Asker.of(realm, "desktop")
    with serve(realm) as host:
        (worker,) = host.worker_pids()
        os.kill(worker, signal.SIGKILL)
        with Connection(host.address) as connection:
            connection.bind()
            assert activate(connection, asker).header.segment == 2


def test_a_worker_that_was_told_to_end_drains_and_is_replaced(realm: Realm) -> None:
    with serve(realm) as host:
        (worker,) = host.worker_pids()
        os.kill(worker, signal.SIGTERM)
        wait_for(lambda: host.worker_pids() not in ([worker], []))
        assert "ended" not in log_of(host)
        assert host.stop() == 0


def test_a_crash_loop_ends_the_host(realm: Realm) -> None:
    with serve(realm) as host:
        (worker,) = host.worker_pids()
        (realm.home / "host" / "ledger" / "segment-00000001.kfl").write_bytes(b"")
        os.kill(worker, signal.SIGKILL)
        assert host.process.wait(60) == 1
        *_, last = log_of(host).splitlines()
        assert last.startswith("error: ")
        assert "segment-00000001.kfl" in last
        assert log_of(host).count("It starts again") == 4


def test_without_the_supervisor_its_children_end(realm: Realm) -> None:
    with serve(realm, "--workers", "2") as host:
        children = find_children(host.process.pid, "kms_fast.cli")
        assert len(children) == 3
        host.process.kill()
        host.process.wait(30)
        wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_a_worker_that_does_not_drain_in_time_is_ended(realm: Realm) -> None:
    with serve(realm, "--timeout-graceful-shutdown", "1s") as host:
        (worker,) = host.worker_pids()
        os.kill(worker, signal.SIGSTOP)
        assert host.stop() == 1
        assert "not drained within 1 s" in log_of(host)
        assert not Path(f"/proc/{worker}").exists()


def test_a_reload_swaps_the_certificate_under_open_connections(realm: Realm) -> None:
    asker = Asker.of(realm, "desktop")
    with serve(realm, "--workers", "2") as host:
        connections = connect_to_each(host, asker).values()
        assert {activate(connection, asker).header.serial for connection in connections} == {1}
        renew(realm, 2)
        code, told, _ = run_cli("host", "reload", home=realm.home)
        assert (code, told["pids"]) == (0, [host.process.pid])
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


def test_a_new_host_beside_the_old_takes_over(realm: Realm) -> None:
    asker = Asker.of(realm, "desktop")
    with serve(realm) as old:
        listen = f"127.0.0.1:{old.address[1]}"
        with serve(realm, listen=listen) as new:
            assert new.address == old.address
            assert f"another host of this user listens on {listen} too" in log_of(new)
            assert old.stop() == 0
            for _ in range(20):
                with Connection(new.address) as connection:
                    connection.bind()
                    activate(connection, asker)
            assert new.stop() == 0
    assert run_cli("ledger", "verify", home=realm.home)[1]["records"] == 20


def fetch(address: str, page: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://{address}/{page}", timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_health_pages(realm: Realm) -> None:
    with serve(realm, "--workers", "2", "--web", "127.0.0.1:0", "--timeout-graceful-shutdown", "3s") as host:
        address = log_of(host).partition("http://")[2].partition("/")[0]
        # The recorder is not waited for: a host serves without it.
        wait_for(lambda: fetch(address, "readyz")[1]["recorder_ready"])
        assert fetch(address, "readyz") == (200, {
            "ready": True, "draining": False, "workers": 2, "workers_ready": 2, "recorder_ready": True,
        })  # fmt: skip
        worker = host.worker_pids()[0]
        os.kill(worker, signal.SIGSTOP)
        host.process.send_signal(signal.SIGTERM)
        wait_for(lambda: fetch(address, "readyz")[0] == 503)
        status, told = fetch(address, "healthz")
        assert (status, told["draining"]) == (200, True)
        os.kill(worker, signal.SIGCONT)
        assert host.process.wait(30) == 0


def test_health_pages_on_a_used_port(realm: Realm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        web = f"127.0.0.1:{used.getsockname()[1]}"
        code, told, _ = run_cli("serve", "--listen", "127.0.0.1:0", "--web", web, home=realm.home)
    assert (code, told["name"]) == (1, "ADDRESS_IN_USE")
    assert web in told["message"]


def test_the_service_manager_is_told(realm: Realm, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        with serve(realm, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as host:
            assert manager.recv(4096) == b"READY=1"
            host.process.send_signal(signal.SIGHUP)
            reloading = manager.recv(4096).split(b"\n")
            assert reloading[0] == b"RELOADING=1"
            assert reloading[1].startswith(b"MONOTONIC_USEC=")
            assert manager.recv(4096) == b"READY=1"
            assert host.stop() == 0
            assert manager.recv(4096) == b"STOPPING=1"


def test_sockets_of_a_service_manager(realm: Realm) -> None:
    """As systemd does it: descriptor 3 listens, LISTEN_PID is the process itself."""
    asker = Asker.of(realm, "desktop")
    start = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
        "os.execv(sys.executable, [sys.executable, '-m', 'kms_fast', 'serve', '--workers', '2', '--home', sys.argv[2]])"
    )
    with socket.create_server(("127.0.0.1", 0)) as given:
        process = subprocess.Popen(
            [sys.executable, "-c", start, str(given.fileno()), str(realm.home)],
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[given.fileno()],
        )
        try:
            assert process.stdout
            address = given.getsockname()
            assert process.stdout.readline() == f"listening on 127.0.0.1:{address[1]}\n"
            with Connection(address) as connection:
                connection.bind()
                activate(connection, asker)
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.communicate(timeout=30)


def test_a_descriptor_that_does_not_listen(realm: Realm) -> None:
    start = (
        "import os, sys, socket; s = socket.socket(); os.dup2(s.fileno(), 3); "
        "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
        "os.execv(sys.executable, [sys.executable, '-m', 'kms_fast', 'serve', '--home', sys.argv[1], '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", start, str(realm.home)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, json.loads(done.stdout)["name"]) == (1, "CONFIGURATION_INVALID")
    assert "descriptor 3" in done.stdout


def test_a_full_segment_is_continued_by_the_next(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    from kms_fast.host import server
    from kms_fast.model.settings import HostSettings
    from tests.host.local_server import LocalServer

    monkeypatch.setattr(server, "WATCH_S", 0.5)
    asker, folder = Asker.of(realm, "desktop"), realm.home / "host" / "ledger"
    local = LocalServer(realm, settings=HostSettings(segment_size_bytes=1 << 20))

    def talk(address: tuple[str, int]) -> None:
        with Connection(address) as connection:
            connection.bind()
            request = asker.ask().request
            for segment in (2, 3):
                for _ in range(22):
                    connection.call_many([request] * 200)
                # A full segment has one successor, however long that waits for its first batch.
                time.sleep(1.5)
                assert len(list_segments(folder)) == segment
                assert activate(connection, asker).header.segment == segment

    local.run(talk)
    verdict = run_cli("ledger", "verify", home=realm.home)[1]
    assert (verdict["ok"], verdict["segments"]) == (True, 3)
    assert all(path.stat().st_size < 3 << 20 for path in list_segments(folder)), "closed segments hold what they need"


def test_a_segment_of_yesterday_is_continued_by_the_next_when_records_are_dropped(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kms_fast.host import server
    from kms_fast.model.settings import HostSettings
    from tests.host.local_server import LocalServer

    monkeypatch.setattr(server, "WATCH_S", 0.1)
    asker, folder = Asker.of(realm, "desktop"), realm.home / "host" / "ledger"

    def run(settings: HostSettings) -> int:
        local = LocalServer(realm, settings=settings)

        def talk(address: tuple[str, int]) -> None:
            with Connection(address) as connection:
                connection.bind()
                activate(connection, asker)
                local.clock.offset_ms = server.SEGMENT_AGE_MS - 60_000
                time.sleep(0.5)
                before = len(list_segments(folder))
                local.clock.offset_ms = server.SEGMENT_AGE_MS
                time.sleep(1.0)
                return len(list_segments(folder)) - before

        return local.run(talk)

    assert run(HostSettings()) == 0
    assert run(HostSettings(keep_records_s=90 * 86_400)) == 1


def test_told_to_end_while_it_starts(realm: Realm) -> None:
    """Nobody is told that it listens, and nothing is left behind."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kms_fast", "serve", "--home", str(realm.home), "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: bool(find_children(process.pid, "kms_fast.cli.worker")))
    process.terminate()
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) in ((0, ""), (1, ""))
    assert not list((realm.home / "host").glob("serve-*.json"))


def test_a_worker_that_fails_while_the_others_drain(realm: Realm) -> None:
    """The others come to their end, and so does the recorder, before it is told."""
    asker = Asker.of(realm, "desktop")
    with serve(realm, "--workers", "2", "--timeout-graceful-shutdown", "5s") as host:
        for connection in connect_to_each(host, asker).values():
            activate(connection, asker)
            connection.socket.close()
        stuck, _ = host.worker_pids()
        os.kill(stuck, signal.SIGSTOP)
        host.process.terminate()
        os.kill(stuck, signal.SIGKILL)
        assert host.process.wait(60) == 1
    verdict = run_cli("ledger", "verify", home=realm.home)[1]
    assert verdict["ok"]
    assert asyncio.run(count_recorded(realm)) == verdict["records"]


async def count_recorded(realm: Realm) -> int:
    inventory = SqliteInventory(realm.home / "host" / "inventory.db")
    summary = await inventory.summarize(now_ms())
    await inventory.close()
    return sum(summary.results.values())


def test_a_host_that_dies_of_a_reload_is_told(realm: Realm, tmp_path: Path) -> None:
    with serve(realm) as host:
        host.process.send_signal(signal.SIGSTOP)
        reload = subprocess.Popen(
            [sys.executable, "-m", "kms_fast", "host", "reload", "--home", str(realm.home), "--json"],
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(1)
        host.process.kill()
        told = json.loads(reload.communicate(timeout=60)[0])
        assert (reload.returncode, told["name"]) == (1, "PROCESS_FAILED")
