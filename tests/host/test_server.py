"""A running host's life: draining, storage that fails, clocks and dates. On real processes."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from tests.hosts import RunningHost, make_realm, serve
from tests.reference import rpc
from tests.reference.rpc import Connection
from tests.system.asker import Asker

SERVER_BUSY = 0xE04B0003


def log_of(host: RunningHost) -> str:
    return (host.realm.home.parent / "serve.log").read_text()


def error_lines(host: RunningHost) -> list[str]:
    """The first words of the lines that tell an administrator why the host ended."""
    log = log_of(host)
    assert "Traceback" not in log
    return [line[: line.index(" written")] for line in log.splitlines() if line.startswith("error: ")]


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


@contextmanager
def traced(program: str, host: RunningHost, *options: str) -> Iterator[Path]:
    """strace on every thread of the host while the block runs; gives its log, complete after the block."""
    log = host.realm.home.parent / "strace.log"
    command = [program, "-f", "-p", str(host.process.pid), "-o", str(log), *options]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr
        line = tracer.stderr.readline()
        if "attached" not in line:
            raise PermissionError(line)
        yield log
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(30)


@pytest.fixture
def strace(require_tool: Callable[[str], str], unavailable: Callable[[str], NoReturn]) -> str:
    program = require_tool("strace")
    if subprocess.run([program, "-qq", "-e", "trace=none", "true"], capture_output=True, timeout=30).returncode:
        unavailable("this system does not let strace trace")
    return program


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_a_failed_commit_is_not_answered_and_ends_the_host(strace: str, tmp_path: Path, call: str, error: str) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    with serve(realm) as host, Connection(host.address) as connection:
        connection.bind()
        fill_to_cap(connection, asker)
        with traced(strace, host, "-e", f"trace={call}", "-e", f"inject={call}:error={error}"):
            with pytest.raises(OSError, match=r"closed|reset"):
                connection.call(asker.ask().request)
            assert host.process.wait(30) == 1
        assert error_lines(host) == [f"error: The ledger {realm.home}/host/ledger/segment-00000001.kfl could not be"]


def test_a_commit_that_fails_while_draining_ends_the_host(strace: str, tmp_path: Path) -> None:
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
        assert len(error_lines(host)) == 1
