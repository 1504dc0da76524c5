"""What a real host's connections do with clients that misbehave, and with many of them."""

import resource
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kms_fast.load.server import list_processes
from tests.hosts import RunningHost, make_realm, serve
from tests.reference import rpc
from tests.reference.rpc import Connection, Context
from tests.reference.verify import Asked
from tests.system.asker import Asker


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """A host of this module's own, that no test may stop."""
    with serve(make_realm(tmp_path_factory.mktemp("connections"))) as host:
        yield host


@pytest.fixture
def asker(host: RunningHost) -> Asker:
    return Asker.of(host.realm, "desktop")


def log_of(host: RunningHost) -> str:
    return (host.realm.home.parent / "serve.log").read_text()


def resident_kib(host: RunningHost) -> int:
    """Memory of the host's process."""
    status = Path(f"/proc/{host.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def test_a_client_that_does_not_read_gets_to_ask_no_more(host: RunningHost, asker: Asker) -> None:
    request, sent, total = asker.ask().request, 0, 60_000
    before_kib = resident_kib(host)
    with socket.create_connection(host.address, timeout=1) as client:
        client.sendall(rpc.build_bind())
        assert rpc.read_pdu(client) is not None
        # In bursts, so that some requests wait while the answers of others are written.
        burst = b"".join(rpc.build_request(request, call_id) for call_id in range(200))
        with suppress(TimeoutError):
            while sent < total * len(burst) // 200:
                sent += client.send(burst[sent % len(burst) :])
                time.sleep(0.0004)
        assert sent < total * len(burst) // 200
        assert resident_kib(host) - before_kib < 32 << 10
        # It is only held up: once it reads, it gets every answer.
        asked, received = sent // (len(burst) // 200), 0
        client.settimeout(30)
        while received < asked:
            assert rpc.read_pdu(client) is not None
            received += 1


def test_ten_thousand_requests_at_once(host: RunningHost, asker: Asker) -> None:
    asked = [asker.ask() for _ in range(100)]
    with Connection(host.address) as connection:
        connection.bind()
        for one in asked:
            connection.send(b"".join(rpc.build_request(one.request, call_id) for call_id in range(100)))
        answers = [rpc.parse_response(connection.receive()) for _ in range(10_000)]
    assert {result for _, result in answers} == {0}


def is_closed(client: socket.socket) -> bool:
    """Whether the host closes the connection, after whatever it still has to say."""
    with suppress(ConnectionResetError):
        while client.recv(65536):
            pass
    return True


def has_ended(client: socket.socket) -> bool:
    """Whether a connection that does not block was closed by the host."""
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


def connect(host: RunningHost) -> socket.socket:
    """A bound connection whose waits are bounded."""
    client = socket.create_connection(host.address, timeout=30)
    client.sendall(rpc.build_bind())
    assert rpc.read_pdu(client) is not None
    return client


def receive_leases(client: socket.socket, asker: Asker, asked: list[Asked]) -> None:
    """Every answer, whatever the order; the call ID is the place in ``asked``."""
    found = set()
    for _ in asked:
        pdu = rpc.read_pdu(client)
        assert pdu is not None
        assert asker.check(asked[pdu.call_id], rpc.parse_response(pdu)[0]).leaf.result == 0
        found.add(pdu.call_id)
    assert found == set(range(len(asked)))


def test_a_sender_of_single_bytes(host: RunningHost, asker: Asker) -> None:
    one = asker.ask()
    with socket.create_connection(host.address, timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in rpc.build_bind() + rpc.build_request(one.request, 0):
            client.sendall(bytes([octet]))
        assert rpc.read_pdu(client) is not None
        receive_leases(client, asker, [one])


def test_a_client_that_ends_its_side_gets_its_answers(host: RunningHost, asker: Asker) -> None:
    asked = [asker.ask() for _ in range(300)]
    with connect(host) as client:
        client.sendall(b"".join(rpc.build_request(one.request, n) for n, one in enumerate(asked)))
        client.shutdown(socket.SHUT_WR)
        receive_leases(client, asker, asked)
        assert client.recv(1) == b""


def test_a_client_that_ends_its_side_at_once(host: RunningHost) -> None:
    with connect(host) as client:
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def test_resets_in_the_middle_of_a_batch(host: RunningHost, asker: Asker) -> None:
    asked = [asker.ask() for _ in range(100)]
    for _ in range(10):
        others = [connect(host) for _ in range(20)]
        with connect(host) as client:
            client.sendall(b"".join(rpc.build_request(one.request, n) for n, one in enumerate(asked)))
            for other in others:
                other.sendall(rpc.build_request(asked[0].request, 1) * 20)
                # With SO_LINGER of 0 s closing resets the connection.
                other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                other.close()
            receive_leases(client, asker, asked)


GARBAGE = {
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
    "a TLS hello": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "zeros": bytes(5000),
    "a request without a bind": rpc.build_request(bytes(220), 1),
    "a length of 65,535": b"\5\0\x0b\3\x10\0\0\0\xff\xff\0\0\1\0\0\0" + bytes(100),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_closes_its_connection_only(host: RunningHost, asker: Asker, garbage: bytes) -> None:
    one, before_kib = asker.ask(), resident_kib(host)
    with connect(host) as neighbour:
        for _ in range(50):
            with socket.create_connection(host.address, timeout=30) as client:
                client.sendall(garbage)
                assert is_closed(client)
        neighbour.sendall(rpc.build_request(one.request, 0))
        receive_leases(neighbour, asker, [one])
    assert resident_kib(host) - before_kib < 8 << 10
    assert "Traceback" not in log_of(host)


def test_garbage_behind_requests_that_wait(host: RunningHost, asker: Asker) -> None:
    """Their answers may be written to a connection that is closing; that is no reason for a word in the log."""
    request = asker.ask().request
    for _ in range(5):
        with connect(host) as client:
            client.sendall(b"".join(rpc.build_request(request, n) for n in range(2000)))
            client.sendall(b"garbage!" * 10)
            time.sleep(0.02)
            assert is_closed(client)
    assert "ERROR" not in log_of(host)
    assert "Traceback" not in log_of(host)


def test_a_foreign_interface_is_told_once(tmp_path: Path) -> None:
    interface = "6a2f3c1e-0000-4000-8000-0123456789ab"
    with serve(make_realm(tmp_path)) as host:
        for _ in range(3):
            with Connection(host.address) as connection:
                assert connection.bind([Context(0, rpc.syntax(interface, 1, 0))]) == [(2, 1)]
                with pytest.raises(rpc.Refused):
                    connection.call(bytes(220))
        lines = [line for line in log_of(host).splitlines() if interface in line]
    assert len(lines) == 1
    assert "127.0.0.1" in lines[0]
    assert "licensed host of that product" in lines[0]


def test_past_the_limit_of_open_files_others_are_served(tmp_path: Path) -> None:
    with serve(make_realm(tmp_path)) as host:
        asker = Asker.of(host.realm, "desktop")
        for pid in list_processes(host.process.pid):
            if "kms_fast.cli.worker" in Path(f"/proc/{pid}/cmdline").read_text():
                open_files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_files + 5, open_files + 5))
        with connect(host) as first:
            clients = [socket.create_connection(host.address, timeout=30) for _ in range(20)]
            assert sum(is_closed(client) for client in clients[8:]) == 12
            one = asker.ask()
            first.sendall(rpc.build_request(one.request, 0))
            receive_leases(first, asker, [one])
            for client in clients:
                client.close()
        # Once there are descriptors again, whoever comes is served.
        with connect(host) as last:
            one = asker.ask()
            last.sendall(rpc.build_request(one.request, 0))
            receive_leases(last, asker, [one])


def test_two_thousand_connections(host: RunningHost, asker: Asker) -> None:
    asked = [asker.ask() for _ in range(100)]
    clients = [socket.create_connection(host.address, timeout=30) for _ in range(2000)]
    try:
        for client in clients:
            client.sendall(rpc.build_bind())
        for client in clients:
            assert rpc.read_pdu(client) is not None
        for number, client in enumerate(clients):
            client.sendall(rpc.build_request(asked[number % 100].request, 0))
        for number, client in enumerate(clients):
            receive_leases(client, asker, [asked[number % 100]])
    finally:
        for client in clients:
            client.close()


def test_one_more_than_max_connections_is_closed_at_once(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    with serve(realm, "--max-connections", "3") as host:
        clients = [connect(host) for _ in range(3)]
        with socket.create_connection(host.address, timeout=30) as late:
            assert is_closed(late)
        one = asker.ask()
        clients[0].sendall(rpc.build_request(one.request, 0))
        receive_leases(clients[0], asker, [one])
        clients.pop().close()
        # The host learns of the closed one in its own time.
        for _ in range(100):
            with suppress(OSError, AssertionError):
                clients.append(connect(host))
                break
            time.sleep(0.05)
        assert len(clients) == 3
        for client in clients:
            client.close()


def test_idle_connections_are_closed(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    with serve(realm, "--idle-timeout", "1s") as host:
        silent, half, busy = (connect(host) for _ in range(3))
        half.sendall(rpc.build_request(asker.ask().request, 1)[:100])
        for client in (silent, half):
            client.setblocking(False)
        open_clients = {silent, half}
        end_s = time.monotonic() + 30
        while open_clients:
            assert time.monotonic() < end_s
            one = asker.ask()
            busy.sendall(rpc.build_request(one.request, 0))
            receive_leases(busy, asker, [one])
            open_clients = {client for client in open_clients if not has_ended(client)}
            time.sleep(0.05)
        for client in (silent, half, busy):
            client.close()


def test_past_max_waiting_requests_are_answered_busy(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    with serve(realm, "--max-waiting", "10", "--batch-spacing", "500ms") as host, Connection(host.address) as client:
        client.bind()
        asked = [asker.ask() for _ in range(200)]
        answers = client.call_many([one.request for one in asked])
        results = [result for _, result in answers]
        assert 0 < results.count(0) < 200
        assert set(results) == {0, 0xE04B0003}
        for one, (answer, result) in zip(asked, answers, strict=True):
            if result == 0:
                asker.check(one, answer)
