"""What a service manager is told, and the sockets that it hands over."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kms_fast.systemd import notify
from tests.host.running import activate
from tests.hosts import Realm, serve
from tests.reference.rpc import Connection
from tests.system.asker import Asker


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


def test_a_service_manager_that_is_gone_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    for _ in range(2):
        notify("READY=1")
    [message] = caplog.messages
    assert "cannot be told: No such file or directory" in message


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
