"""Both shells over real sockets: the same outcomes for the same hosts."""

import asyncio
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kms_fast.client import AsyncClient, Client, KmsFastError, Lease, LicenceState, aio, blocking
from kms_fast.client.exchange import HostExchange
from kms_fast.discovery.address import HostAddress
from kms_fast.results import BY_NAME
from tests.client.world import MACHINE, SETUP_KEYS, FakeClock, ScriptedHost, listening
from tests.hosts import Realm, RunningHost

BUSY = BY_NAME["SERVER_BUSY"]


@pytest.fixture(params=["blocking", "asyncio"])
def shell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(blocking, "ANSWER_S", 0.3)
    monkeypatch.setattr(aio, "ANSWER_S", 0.3)
    return str(request.param)


Activate = Callable[[str], Lease]


@pytest.fixture
def activate(shell: str, tmp_path: Path, realm: Realm, clock: FakeClock) -> Activate:
    """Asks one host by the shell under test."""
    options: dict[str, Any] = {"clock": clock, "read_machine": lambda: MACHINE}
    publisher = realm.publisher_json.read_bytes()

    def run(address: str) -> Lease:
        client = (Client if shell == "blocking" else AsyncClient)(home=tmp_path, publisher=publisher, **options)
        client.install_key(SETUP_KEYS["desktop"])
        client.set_host(address)
        return client.activate() if isinstance(client, Client) else asyncio.run(client.activate())

    return run


def text_of_failure(activate: Activate, address: str) -> str:
    with pytest.raises(KmsFastError) as caught:
        activate(address)
    (host,) = caught.value.details["hosts"]
    return str(host["text"])


def test_a_host_grants(activate: Activate, realm: Realm, clock: FakeClock) -> None:
    with listening(ScriptedHost(realm, clock)) as address:
        assert activate(address).leaf.count == 1


def test_a_host_on_ipv6_grants(activate: Activate, realm: Realm, clock: FakeClock) -> None:
    try:
        with listening(ScriptedHost(realm, clock), socket.AF_INET6) as address:
            assert address.startswith("[::1]:")
            assert activate(address).leaf.count == 1
    except OSError as error:
        pytest.skip(f"no IPv6 on loopback: {error}")


def test_a_name_is_resolved(activate: Activate, realm: Realm, clock: FakeClock) -> None:
    with listening(ScriptedHost(realm, clock)) as address:
        assert activate(f"localhost:{address.rpartition(':')[2]}").leaf.result == 0


@contextmanager
def silent_server(port: int = 0) -> Iterator[int]:
    """The port of an address, 127.0.0.2, that takes no connection and refuses none: its backlog is full."""
    if sys.platform != "linux":
        pytest.skip("127.0.0.2, and a full backlog that says nothing, are Linux's")
    with ExitStack() as opened:
        server = opened.enter_context(socket.create_server(("127.0.0.2", port), backlog=0))
        for _ in range(3):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        yield int(server.getsockname()[1])


def test_a_silent_address_of_a_name_leaves_time_for_the_next(
    activate: Activate, realm: Realm, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "CONNECT_S", 0.3)
    monkeypatch.setattr(aio, "CONNECT_S", 0.3)
    with listening(ScriptedHost(realm, clock)) as address:
        port = int(address.rpartition(":")[2])
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (name, port)) for name in ("127.0.0.2", "127.0.0.1")]
        with silent_server(port):
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            assert activate(f"kms.example.test:{port}").leaf.count == 1


def test_a_newer_revocation_list_is_fetched_on_the_connection(
    activate: Activate, realm: Realm, clock: FakeClock
) -> None:
    host = ScriptedHost(realm, clock, header={"revocation_list": 1})
    with listening(host) as address:
        assert activate(address).header.revocations_number == 1
    assert len(host.queries) == 1


def test_an_unsigned_code_is_told(activate: Activate, realm: Realm, clock: FakeClock) -> None:
    with listening(ScriptedHost(realm, clock, unsigned=BUSY.code)) as address:
        assert BUSY.meaning in text_of_failure(activate, address)


def test_a_closed_port_is_refused(activate: Activate) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    assert "refused" in text_of_failure(activate, address).lower()


def test_an_unknown_name_is_told(activate: Activate) -> None:
    assert "does not resolve" in text_of_failure(activate, "no-such-host.invalid")


def test_a_host_that_closes_is_told(activate: Activate) -> None:
    with listening(None) as address:
        text = text_of_failure(activate, address)
    assert "closed the connection" in text or "broke" in text


def test_a_host_that_says_nothing_is_given_up(activate: Activate) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = text_of_failure(activate, f"127.0.0.1:{server.getsockname()[1]}")
    assert "no answer within" in text


def test_another_protocol_is_told(activate: Activate) -> None:
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        assert "no kms_fast host" in text_of_failure(activate, address)


def test_no_connection_is_given_up_in_time(activate: Activate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "CONNECT_S", 0.1)
    monkeypatch.setattr(aio, "CONNECT_S", 0.1)
    with silent_server() as port:
        assert text_of_failure(activate, f"127.0.0.2:{port}") == "no connection within 0 s"


def test_a_record_that_names_no_host_is_told(shell: str, tmp_path: Path, realm: Realm, clock: FakeClock) -> None:
    client = Client(home=tmp_path, publisher=realm.publisher_json.read_bytes(), clock=clock)
    client.install_key(SETUP_KEYS["desktop"])
    exchange = HostExchange(HostAddress(r"\000" * 63 + ".example.com"), client.begin().inquiry)
    blocking.ask(exchange) if shell == "blocking" else asyncio.run(aio.ask(exchange))
    assert exchange.outcome is not None
    assert exchange.outcome.text == "its name is not one of a host"


def test_hosts_of_the_record_are_asked(
    shell: str, tmp_path: Path, realm: Realm, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"clock": clock, "read_machine": lambda: MACHINE}
    client = (Client if shell == "blocking" else AsyncClient)(
        home=tmp_path, publisher=realm.publisher_json.read_bytes(), domain="example.com", **options
    )
    client.install_key(SETUP_KEYS["desktop"])
    with listening(ScriptedHost(realm, clock)) as address:
        host = HostAddress("127.0.0.1", int(address.rpartition(":")[2]))
        asked: list[object] = []

        def find(service: object) -> list[HostAddress]:
            asked.append(service)
            return [host]

        async def find_async(service: object) -> list[HostAddress]:
            return find(service)

        monkeypatch.setattr(blocking, "find_hosts", find)
        monkeypatch.setattr(aio, "find_hosts_async", find_async)
        client.activate() if isinstance(client, Client) else asyncio.run(client.activate())
    assert str(asked[0]) == "Service(name='_kms-fast._tcp', domain='example.com')"
    assert client.status().cached_host == address


async def test_renew_asks_only_when_it_is_time(tmp_path: Path, real_host: RunningHost) -> None:
    publisher = real_host.realm.publisher_json.read_bytes()
    for client in (Client(home=tmp_path, publisher=publisher), AsyncClient(home=tmp_path / "aio", publisher=publisher)):
        client.install_key(SETUP_KEYS["desktop"])
        client.set_host("{}:{}".format(*real_host.address))
        for granted in (True, False):
            lease = client.renew() if isinstance(client, Client) else await client.renew()
            assert (lease is not None) == granted
        assert client.status().state is LicenceState.LICENSED
