"""What the interpreter sees of an activation on a kept-open connection: next to nothing, since batches carry it.

`sys.setprofile` tells every call of a Python function and every call that Python code makes of a compiled one, in the
thread of the event loop.
"""

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from kms_fast import _core
from kms_fast.host.server import Server
from tests.host.local_server import LocalServer
from tests.hosts import make_realm
from tests.reference import rpc
from tests.system.asker import Asker

MACHINES = 100
ROUNDS = 20
PER_ACTIVATION = 2  # the loop's callback and one write
PER_BATCH = 30


class PythonProtocol(asyncio.Protocol):
    """The negative control: the same connection behind callbacks written in Python."""

    def __init__(self, connection: _core.Connection) -> None:
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        # What one request might cost in a server that is not compiled.
        kind, size = data[2], int.from_bytes(data[8:10], "little")
        assert (kind, size) == (data[2], len(data))
        self._connection.data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._connection.connection_lost(error)


class PythonServer(Server):
    """A server of such connections."""

    def _make_connection_factory(self, port: int) -> Callable[[], Any]:
        make = super()._make_connection_factory(port)
        return lambda: PythonProtocol(make())


def count_calls(folder: Path, make_server: type[Server]) -> tuple[int, int, int]:
    """Calls seen, activations and batches, in rounds in which each of many kept-open connections asks once."""
    folder.mkdir()
    realm = make_realm(folder)
    asker = Asker.of(realm, "desktop")
    local = LocalServer(realm, make_server=make_server)
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
def test_an_activation_costs_at_most_its_callback_and_one_write(tmp_path: Path) -> None:
    calls, activations, batches = count_calls(tmp_path / "compiled", Server)
    assert calls > 0
    assert batches < activations / 4, "rounds made no batches worth the name"
    # Stronger than asked for: nothing is per activation, but for what the batch costs.
    assert calls <= PER_BATCH * batches
    assert calls <= PER_ACTIVATION * activations
    # The negative control: the counter sees what a protocol in Python costs.
    seen, activations, batches = count_calls(tmp_path / "python", PythonServer)
    assert seen - PER_BATCH * batches > PER_ACTIVATION * activations
