"""What a real host's connections do with clients that misbehave, and with many of them."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.hosts import RunningHost, make_realm, serve
from tests.reference import rpc
from tests.reference.rpc import Connection
from tests.system.asker import Asker


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """A host of this module's own, that no test may stop."""
    with serve(make_realm(tmp_path_factory.mktemp("connections"))) as host:
        yield host


@pytest.fixture
def asker(host: RunningHost) -> Asker:
    return Asker.of(host.realm, "desktop")


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
