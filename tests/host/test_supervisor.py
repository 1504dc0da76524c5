"""Workers that die, hang and drain under a real supervisor, and hosts beside each other."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from kms_fast.store.sqlite_inventory import SqliteInventory
from tests.host.running import activate, connect_to_each, log_of, wait_for
from tests.hosts import Realm, find_children, make_realm, run_cli, serve
from tests.reference.rpc import Connection
from tests.system.asker import Asker, now_ms


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
        (successor,) = set(host.worker_pids()) - set(before)
        wait_for(lambda: f" is back (process {successor})" in log_of(host))
        assert host.stop() == 0
        assert "INFO stopped: drained in " in log_of(host)
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


def test_a_new_host_beside_the_old_takes_over(realm: Realm) -> None:
    asker = Asker.of(realm, "desktop")
    with serve(realm) as old:
        listen = f"127.0.0.1:{old.address[1]}"
        with serve(realm, listen=listen) as new:
            assert new.address == old.address
            assert f"a host of this home listens on {listen} too" in log_of(new)
            assert old.stop() == 0
            for _ in range(20):
                with Connection(new.address) as connection:
                    connection.bind()
                    activate(connection, asker)
            assert new.stop() == 0
    assert run_cli("ledger", "verify", home=realm.home)[1]["records"] == 20


def test_a_host_of_another_home_keeps_its_address(realm: Realm, tmp_path: Path) -> None:
    """The same user could share the port, and then each client would meet one host or the other."""
    (tmp_path / "other").mkdir()
    other = make_realm(tmp_path / "other")
    with serve(realm) as host:
        port = host.address[1]
        for listen in (f"127.0.0.1:{port}", f"0.0.0.0:{port}"):
            code, told, _ = run_cli("serve", "--listen", listen, home=other.home)
            assert (code, told["name"]) == (1, "ADDRESS_IN_USE")
            assert f"Cannot listen on {listen}: the host of {realm.home} does already" in told["message"]
        assert host.stop() == 0
    with serve(other, listen=f"127.0.0.1:{port}") as successor:
        assert successor.stop() == 0


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
