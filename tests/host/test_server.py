"""A running host's life: draining, storage that fails, clocks and dates. On real processes."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from kms_fast.model.policy import DAY_MS, MINUTE_MS
from tests.host.local_server import LocalServer
from tests.hosts import RunningHost, make_realm, run_cli, serve
from tests.reference import rpc
from tests.reference.answer import Answer, Header
from tests.reference.rpc import Connection
from tests.system.asker import Asker
from tests.tracing import traced

SERVER_BUSY, HOST_CLOCK, HOST_CERTIFICATE_DATES = 0xE04B0003, 0xE04B0004, 0xE04B0005


def log_of(host: RunningHost) -> str:
    return (host.realm.home.parent / "serve.log").read_text()


def failure_lines(host: RunningHost) -> list[str]:
    """The lines that tell an administrator which ledger could not be written."""
    log = log_of(host)
    assert "Traceback" not in log
    return [line for line in log.splitlines() if "could not be written" in line]


def fill_to_cap(connection: Connection, asker: Asker) -> None:
    """Two machines, the cap of a family with threshold 1: from now on only the ledger is written."""
    for one in (asker.ask(), asker.ask()):
        asker.check(one, connection.call(one.request)[0])


def wait_for(condition: Callable[[], bool]) -> None:
    """Until something that is bound to happen has."""
    end_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.01)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_failed_commit_is_not_answered_and_its_worker_starts_anew(
    strace: str, tmp_path: Path, call: str, error: str
) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    with serve(realm) as host:
        with Connection(host.address) as connection:
            connection.bind()
            fill_to_cap(connection, asker)
            with traced(strace, host, "-e", f"trace={call}", "-e", f"inject={call}:error={error}"):
                lost = asker.ask()
                with pytest.raises(OSError, match=r"closed|reset"):
                    connection.call(lost.request)
        # The same bytes again, as a client that got no answer sends them.
        with Connection(host.address) as connection:
            connection.bind()
            verified = asker.check(lost, connection.call(lost.request)[0])
        assert (verified.header.segment, verified.header.number) == (2, 1)
        (line,) = failure_lines(host)
        assert f"{realm.home}/host/ledger/segment-00000001.kfl" in line
        assert "starts again" in line
        assert host.stop() == 0
    assert run_cli("ledger", "verify", home=realm.home)[1]["ok"]


def test_a_commit_that_fails_while_draining_is_told(strace: str, tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    with serve(realm) as host, Connection(host.address) as connection:
        connection.bind()
        fill_to_cap(connection, asker)
        slow = "inject=fdatasync:error=EIO:delay_enter=500000"
        with traced(strace, host, "-e", "trace=fdatasync,pwrite64", "-e", slow) as log:
            connection.send(rpc.build_request(asker.ask().request, 7))
            wait_for(lambda: "pwrite64" in log.read_text())
            host.process.send_signal(signal.SIGTERM)
            assert host.process.wait(30) == 1
        (line,) = failure_lines(host)
        assert line.startswith("error: ")


def read_order(log: str) -> str:
    """P for a ledger record written, S for it synced, W for a write to a client, in the order of their end."""
    order, begun = "", dict[str, str]()
    for line in log.splitlines():
        thread, _, rest = line.partition(" ")
        if "unfinished ..." in rest:
            begun[thread] = rest
            if "pwrite64(" not in rest and "fdatasync(" not in rest and is_socket(rest):
                order += "W"
            continue
        call = begun.pop(thread, "") + rest if "resumed>" in rest else rest
        if ".kfl>" in call and "= -1" not in call:
            order += "P" if "pwrite64(" in call else "S" if "fdatasync(" in call else ""
        elif is_socket(call) and "resumed>" not in call:
            order += "W"
    return order


def is_socket(call: str) -> bool:
    return "<TCP" in call or "<socket:" in call


def test_the_reader_of_order_sees_an_early_answer() -> None:
    """The negative control: an answer that leaves while its batch is being synced."""
    begin = '11 pwrite64(9</l/segment-1.kfl>, "", 452, 4096) = 452\n11 fdatasync(9</l/segment-1.kfl> <unfinished ...>\n'
    sent, synced = '10 write(14<TCP:[1->2]>, "", 9) = 9\n', "11 <... fdatasync resumed>) = 0\n"
    assert read_order(begin + synced + sent) == "PSW"
    assert read_order(begin + sent + synced) == "PWS"


def test_no_answer_leaves_before_its_batch_is_synced(strace: str, tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    calls = "trace=pwrite64,fdatasync,write,writev,sendto,sendmsg"
    with serve(realm) as host, Connection(host.address) as connection:
        connection.bind()
        fill_to_cap(connection, asker)
        # A slow sync: whoever did not wait for it would be seen.
        with traced(strace, host, "-yy", "-e", calls, "-e", "inject=fdatasync:delay_enter=20000") as log:
            for _ in range(20):
                one = asker.ask()
                asker.check(one, connection.call(one.request)[0])
    assert read_order(log.read_text()) == "PSW" * 20


def test_a_full_disk_is_busy_until_there_is_room(mount: Callable[[str], Path], tmp_path: Path) -> None:
    folder = mount("size=72m")
    realm = make_realm(tmp_path)
    shutil.move(realm.home, folder / "home")
    realm = replace(realm, home=folder / "home")
    asker = Asker.of(realm, "desktop")
    filler = folder / "filler"
    request = asker.ask().request
    with serve(realm, "--low-water", "0B") as host, Connection(host.address) as connection:
        connection.bind()
        fill_to_cap(connection, asker)
        filler.write_bytes(bytes(4 << 20))
        # 64 MiB are allocated already: they have to be used up first.
        results: set[int] = set()
        while SERVER_BUSY not in results:
            results |= {result for _, result in connection.call_many([request] * 8192)}
        assert connection.call(request) == (None, SERVER_BUSY)
        subprocess.run(["mount", "-o", "remount,size=256m", folder], check=True, timeout=30)
        one = asker.ask()
        asker.check(one, connection.call(one.request)[0])
        assert host.stop() == 0
        log = log_of(host)
    assert log.count("requests are answered SERVER_BUSY") == 1
    assert "No space left" in log
    assert "no longer answered SERVER_BUSY" in log
    assert run_cli("ledger", "verify", home=realm.home)[1]["ok"]


def test_below_low_water_the_host_is_busy(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    with serve(realm, "--low-water", "1024TiB") as host, Connection(host.address) as connection:
        connection.bind()
        wait_for(lambda: "is almost full" in log_of(host))
        assert connection.call(asker.ask().request) == (None, SERVER_BUSY)


def test_counts_that_cannot_be_stored_are_busy(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    with serve(realm) as host, Connection(host.address) as connection:
        connection.bind()
        other = apsw.Connection(str(realm.home / "host" / "counts.db"))
        other.execute("BEGIN IMMEDIATE")
        assert connection.call(asker.ask().request) == (None, SERVER_BUSY)
        other.execute("ROLLBACK")
        fill_to_cap(connection, asker)
        # At its cap the family does not need the store.
        other.execute("BEGIN IMMEDIATE")
        one = asker.ask()
        asker.check(one, connection.call(one.request)[0])
        other.execute("ROLLBACK")
        other.close()
        assert f"{realm.home}/host/counts.db, and did not end in time." in log_of(host)


def call_later(local: LocalServer, asker: Asker, offsets_ms: list[int]) -> list[tuple[bytes | None, int]]:
    """The outcome of one call at each of these shifts of the host's clock."""

    def talk(address: tuple[str, int]) -> list[tuple[bytes | None, int]]:
        outcomes = []
        with Connection(address) as connection:
            connection.bind()
            for local.clock.offset_ms in offsets_ms:
                outcomes.append(connection.call(asker.ask().request))
        return outcomes

    result: list[tuple[bytes | None, int]] = local.run(talk)
    return result


def header_time(answer: bytes | None) -> int:
    assert answer is not None
    return Header.parse(Answer.parse(answer).header).time


def test_a_clock_set_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Up to five minutes its time stands still; further back it does not sign; when it is right again, it does."""
    realm = make_realm(tmp_path)
    outcomes = call_later(
        LocalServer(realm), Asker.of(realm, "desktop"), [0, -4 * MINUTE_MS, -6 * MINUTE_MS, -60 * MINUTE_MS, 0]
    )
    assert [result for _, result in outcomes] == [0, 0, HOST_CLOCK, HOST_CLOCK, 0]
    assert header_time(outcomes[0][0]) == header_time(outcomes[1][0]) <= header_time(outcomes[4][0])
    assert caplog.text.count("requests are answered HOST_CLOCK") == 1


def test_a_clock_set_back_between_two_runs(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    assert call_later(LocalServer(realm), asker, [0])[0][1] == 0
    assert call_later(LocalServer(realm), asker, [-6 * MINUTE_MS])[0][1] == HOST_CLOCK


def test_a_certificate_that_expires_while_the_host_runs(tmp_path: Path) -> None:
    realm = make_realm(tmp_path, days=1)
    outcomes = call_later(LocalServer(realm), Asker.of(realm, "desktop"), [0, -2 * DAY_MS, 2 * DAY_MS])
    assert [result for _, result in outcomes] == [0, HOST_CLOCK, HOST_CERTIFICATE_DATES]


def test_a_certificate_that_is_not_valid_yet(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    outcomes = call_later(LocalServer(realm), Asker.of(realm, "desktop"), [-3 * DAY_MS, 0])
    assert [result for _, result in outcomes] == [HOST_CERTIFICATE_DATES, 0]
