"""Opening listening sockets."""

import logging
import resource
import socket
from collections.abc import Sequence

import pytest

from kms_fast.errors import KmsFastError
from kms_fast.host import listener
from kms_fast.host.listener import allow_connections, open_sockets


def open_and_close(*addresses: str, beside: Sequence[str] = ()) -> list[tuple[str, int]]:
    (sockets,) = open_sockets(addresses, list_beside=lambda: beside)
    names = [opened.getsockname()[:2] for opened in sockets]
    for opened in sockets:
        opened.close()
    return names


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "TAKEN_S", 0.1)


@pytest.fixture
def no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(family: int, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *rest)

    real = socket.socket
    monkeypatch.setattr(listener.socket, "socket", make)


def test_each_address_gets_a_socket() -> None:
    (first, one), (second, other) = open_and_close("127.0.0.1:0", "localhost:0")
    assert (first, second) == ("127.0.0.1", "127.0.0.1") or second == "::1"
    assert one != other != 0


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("no-such-host.invalid:1688", "CONFIGURATION_INVALID"),
        ("192.0.2.1:1688", "CONFIGURATION_INVALID"),
        ("a" * 64 + ":1688", "CONFIGURATION_INVALID"),
        ("a..b:1688", "CONFIGURATION_INVALID"),
    ],
)
def test_an_address_that_is_not_ours(address: str, name: str) -> None:
    with pytest.raises(KmsFastError, match=r"listen") as caught:
        open_sockets([address])
    assert caught.value.result.name == name
    assert caught.value.details["address"] == address


def test_a_used_port_closes_the_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as used, socket.create_server(("127.0.0.1", 0)) as free:
        port, free_port = used.getsockname()[1], free.getsockname()[1]
        free.close()
        with pytest.raises(KmsFastError, match=str(port)) as caught:
            open_sockets([f"127.0.0.1:{free_port}", f"127.0.0.1:{port}"])
        assert caught.value.result.name == "ADDRESS_IN_USE"
        assert open_and_close(f"127.0.0.1:{free_port}") == [("127.0.0.1", free_port)]


@pytest.mark.parametrize(
    ("first", "second"),
    [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1"), ("[::1]", "[::]")],
)
def test_only_hosts_of_the_same_home_share_a_port(first: str, second: str) -> None:
    # Free on every address: what is free on one may be the near end of a connection from another.
    ((_, port),) = open_and_close("[::]:0" if first == "[::1]" else "0.0.0.0:0")
    ((opened,),) = open_sockets([f"{first}:{port}"])
    with opened:
        assert open_and_close(f"{second}:{port}", beside=[f"{first}:{port}"])[0][1] == port
        for beside in ([], ["127.0.0.2:1", f"127.0.0.2:{port + 1}"]):
            with pytest.raises(KmsFastError, match=str(port)) as caught:
                open_sockets([f"{second}:{port}"], list_beside=lambda beside=beside: beside)
            assert caught.value.result.name == "ADDRESS_IN_USE"


@pytest.mark.parametrize("addresses", [("0.0.0.0", "[::]"), ("[::]", "0.0.0.0"), ("127.0.0.1", "[::]")])
def test_one_port_of_ipv4_and_ipv6(addresses: tuple[str, ...]) -> None:
    """As by default; where [::] is IPv4's too unless a socket says otherwise, which is how Linux comes."""
    ((_, port),) = open_and_close("0.0.0.0:0")
    names = open_and_close(*(f"{address}:{port}" for address in addresses))
    assert [name for name, _ in names] == [address.strip("[]") for address in addresses]


def test_a_host_of_the_same_home_shares_what_it_listens_on_alone() -> None:
    """It has IPv4, another home's host IPv6."""
    ((_, port),) = open_and_close("0.0.0.0:0")
    ((mine,),), ((other,),) = open_sockets([f"0.0.0.0:{port}"]), open_sockets([f"[::]:{port}"])
    with mine, other, pytest.raises(KmsFastError, match=r"\[::\]") as caught:
        open_sockets([f"0.0.0.0:{port}", f"[::]:{port}"], list_beside=lambda: [f"0.0.0.0:{port}"])
    assert caught.value.result.name == "ADDRESS_IN_USE"


def test_a_host_of_the_same_home_that_shares_nothing() -> None:
    """Another user's, or one whose service manager listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(KmsFastError, match=r"beside the host of this home .* another user") as caught:
            open_sockets([address], list_beside=lambda: [address])
    assert caught.value.result.name == "ADDRESS_IN_USE"


def test_a_port_that_is_given_up_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by workers whose supervisor was killed."""
    monkeypatch.setattr(listener, "TAKEN_S", 30.0)
    ((opened,),) = open_sockets(["127.0.0.1:0"])
    port = opened.getsockname()[1]
    looks = 0

    def look() -> list[str]:
        nonlocal looks
        looks += 1
        if looks == 3:
            opened.close()
        return []

    ((mine,),) = open_sockets([f"127.0.0.1:{port}"], list_beside=look)
    with mine:
        assert (mine.getsockname()[1], looks) == (port, 3)


def test_a_port_that_is_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(listener.socket, "socket", Forbidden)
    with pytest.raises(KmsFastError, match="may not listen") as caught:
        open_sockets(["127.0.0.1:80"])
    assert caught.value.result.name == "NOT_ALLOWED"


@pytest.mark.usefixtures("no_ipv6")
def test_without_ipv6_the_other_addresses_serve(caplog: pytest.LogCaptureFixture) -> None:
    for addresses in (("127.0.0.1:0", "[::]:0"), ("[::]:0", "127.0.0.1:0")):
        assert [name for name, _ in open_and_close(*addresses)] == ["127.0.0.1"]
    assert "not listening on [::]:0" in caplog.text


@pytest.mark.usefixtures("no_ipv6")
@pytest.mark.parametrize("number", [1, 2])
def test_without_ipv6_no_address_is_left(number: int) -> None:
    with pytest.raises(KmsFastError, match="not supported"):
        open_sockets(["[::1]:0"] * number)


def test_the_limit_of_open_files_is_raised(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: raised.append(limits))
    with caplog.at_level(logging.WARNING):
        allow_connections(4000)
        assert not caplog.records
        allow_connections(20_000)
    assert raised == [(4096, 4096)] * 2
    assert "4096 files" in caplog.text
    assert "max_connections (20000)" in caplog.text
