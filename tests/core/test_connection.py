"""A host's side of a connection, what it reads and sends."""

import gc
import socket
import struct
from pathlib import Path

import pytest

from kms_fast import _core
from tests.batches import BatchMaker
from tests.hosts import make_realm
from tests.reference import rpc

SERVER_BUSY = 0xE04B0003
GET_REVOCATIONS = 2
FOREIGN = "6a2f3c1e-0000-4000-8000-0123456789ab"


def test_only_a_poller_makes_connections() -> None:
    with pytest.raises(TypeError, match="Poller"):
        _core.Connection()


def test_a_connection_that_nobody_holds_any_more_is_closed(tmp_path: Path) -> None:
    maker = BatchMaker(make_realm(tmp_path))
    client = maker.peer.socket
    del maker
    gc.collect()
    assert client.recv(1) == b""


def test_a_bug_costs_one_connection(tmp_path: Path) -> None:
    def fail(interface: bytes, peer: bytes) -> None:
        raise RuntimeError("planted")

    errors: list[BaseException] = []
    host = _core.Host(lambda: None, fail)
    host.use_limits(10, 10, True)
    poller = _core.Poller(host, errors.append)
    ours, client = socket.socketpair()
    ours.setblocking(False)
    poller.adopt(ours.detach(), "1688")
    client.sendall(rpc.build_bind([rpc.Context(interface=rpc.syntax(FOREIGN, 1, 0))]))
    poller.work()
    assert [str(error) for error in errors] == ["planted"]
    assert client.recv(1) == b""


def test_a_burst_of_queries_does_not_fill_the_memory(tmp_path: Path) -> None:
    """One read holds thousands of queries of 40 bytes, and a list may have 3,440."""
    maker = BatchMaker(make_realm(tmp_path, revoked=range(2, 402)))
    query = rpc.build_request(struct.pack("<BBHI", 1, 3, 0, 0), 1, GET_REVOCATIONS)
    maker.peer.send(query * 6_000)
    sent = maker.peer.receive()
    assert 64 << 10 < len(sent) < 512 << 10
    assert rpc.parse_response(rpc.Pdu.parse(sent[-36:])) == (None, SERVER_BUSY)
    # Once that is out, the next query is answered.
    maker.peer.send(query)
    assert len(maker.peer.receive()) > 3_440


def test_what_one_read_leaves_in_the_socket_is_read_in_the_next_round(tmp_path: Path) -> None:
    maker = BatchMaker(make_realm(tmp_path))
    query = rpc.build_request(struct.pack("<BBHI", 1, 3, 0, 0), 1, GET_REVOCATIONS)
    count = (160 << 10) // len(query)
    maker.peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    assert maker.peer.socket.send(query * count) == count * len(query)
    assert len(maker.peer.answers()) == count


def test_what_lies_behind_urgent_data_is_read(tmp_path: Path) -> None:
    """A read stops at its mark, which the poller has told of before."""
    maker = BatchMaker(make_realm(tmp_path))
    query = rpc.build_request(struct.pack("<BBHI", 1, 3, 0, 0), 1, GET_REVOCATIONS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=30)
        ours, _ = listener.accept()
    ours.setblocking(False)
    maker.poller.adopt(ours.detach(), "1688")
    with client:
        client.sendall(rpc.build_bind() + query)
        client.send(b"!", socket.MSG_OOB)
        client.sendall(query)
        for _ in range(3):
            maker.poller.work()
        pdus = [rpc.read_pdu(client) for _ in range(3)]
    assert None not in pdus
