"""What the interpreter sees of an activation on a kept-open connection: next to nothing, since batches carry it.

`sys.setprofile` tells every call of a Python function and every call that Python code makes of a compiled one, in the
thread of the event loop.
"""

import os
import selectors
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from kms_fast import _core
from tests.host.local_server import LocalServer
from tests.hosts import make_realm
from tests.reference import rpc
from tests.system.asker import Asker

MACHINES = 100
ROUNDS = 20
PER_BATCH = 30


class PythonPoller:
    """The negative control: sockets read in Python. A pair of sockets leads each connection's answers back here."""

    def __init__(self, host: _core.Host, on_error: Callable[[BaseException], None]) -> None:
        self._inner = INNER(host, on_error)
        self._selector = selectors.EpollSelector()
        self._selector.register(self._inner.fileno(), selectors.EVENT_READ, lambda _: self._inner.work())

    def fileno(self) -> int:
        return self._selector.fileno()

    def listen(self, fd: int, port: str) -> None:
        self._listener = socket.socket(fileno=os.dup(fd))
        self._selector.register(self._listener, selectors.EVENT_READ, lambda _: self._accept(port))

    def work(self) -> None:
        for key, _ in self._selector.select(0):
            key.data(key.fileobj)

    def stop_listening(self) -> None:
        self._selector.unregister(self._listener)
        self._listener.close()

    def _accept(self, port: str) -> None:
        client, _ = self._listener.accept()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        connection = self._inner.adopt(ours.detach(), port)
        self._selector.register(theirs, selectors.EVENT_READ, lambda _: client.sendall(theirs.recv(1 << 16)))
        self._selector.register(client, selectors.EVENT_READ, lambda _: self._read(client, connection))

    def _read(self, client: socket.socket, connection: _core.Connection) -> None:
        if data := client.recv(1 << 16):
            connection.receive_from_peer(data)
        else:
            self._selector.unregister(client)


INNER = _core.Poller


def count_calls(folder: Path) -> tuple[int, int, int]:
    """Calls seen, activations and batches, in rounds in which each of many kept-open connections asks once."""
    folder.mkdir()
    realm = make_realm(folder)
    asker = Asker.of(realm, "desktop")
    local = LocalServer(realm)
    calls = 0
    counting = False

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += counting and event in ("call", "c_call")

    def talk(address: tuple[str, int]) -> int:
        nonlocal counting
        asked = [asker.ask() for _ in range(MACHINES)]
        connections = [socket.create_connection(address, timeout=30) for _ in asked]
        for connection in connections:
            connection.sendall(rpc.build_bind())
            assert rpc.read_pdu(connection) is not None
        batches = set()
        for number in range(ROUNDS + 1):
            # The first round takes the family to its cap, past which no batch needs the store.
            counting = number > 0
            for one, connection in zip(asked, connections, strict=True):
                connection.sendall(rpc.build_request(one.request, number))
            for one, connection in zip(asked, connections, strict=True):
                pdu = rpc.read_pdu(connection)
                assert pdu is not None
                if counting:
                    verified = asker.check(one, rpc.parse_response(pdu)[0])
                    batches.add(verified.header.number)
        counting = False
        for connection in connections:
            connection.close()
        return len(batches)

    sys.setprofile(profile)
    try:
        batches = local.run(talk)
    finally:
        sys.setprofile(None)
    return calls, MACHINES * ROUNDS, batches


@pytest.mark.usefixtures("untraced")
def test_an_activation_costs_no_call_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, activations, batches = count_calls(tmp_path / "compiled")
    assert calls > 0
    assert batches < activations / 4, "rounds made no batches worth the name"
    assert calls <= PER_BATCH * batches
    # The negative control: the counter sees what reading in Python costs.
    monkeypatch.setattr(_core, "Poller", PythonPoller)
    seen, activations, batches = count_calls(tmp_path / "python")
    assert seen - PER_BATCH * batches > 2 * activations
