"""The activation service's sockets: who sends slowly, or nothing, or comes with too many."""

import asyncio
import json
import logging
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from kms_fast.publisher import web
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.service import ActivationService, Reply
from tests.activation_services import make_tls
from tests.publishing import PASSPHRASE


@pytest.fixture
def service(publisher: Publisher) -> ActivationService:
    return ActivationService(publisher, publisher.read_issuer_key(PASSPHRASE), peer_per_hour=60, key_per_hour=60)


@asynccontextmanager
async def open_pages(service: ActivationService) -> AsyncIterator[tuple[str, int]]:
    pages = web.ActivationPages(service, None)
    yield await pages.open("127.0.0.1:0")
    await pages.close()


async def send(address: tuple[str, int], data: bytes, trust: ssl.SSLContext | None = None) -> bytes:
    """Send this and wait for whatever comes until the end."""
    server_hostname = "localhost" if trust else None
    reader, writer = await asyncio.open_connection(*address, ssl=trust, server_hostname=server_hostname)
    writer.write(data)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_body_that_does_not_come(service: ActivationService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "BODY_LIMIT_S", 0.2)
    async with open_pages(service) as address:
        answer = await send(address, b"POST /v1/host-requests HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"OFFLINE_DATA_MALFORMED" in answer


@pytest.mark.parametrize("data", [b"", b"POST /v1/host-requests HTTP/1.1\r\nHost:"])
async def test_a_head_that_does_not_come(
    service: ActivationService, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(web, "CONNECTION_LIMIT_S", 0.2)
    async with open_pages(service) as address:
        assert await send(address, data) == b""


@pytest.mark.parametrize("with_tls", [False, True])
async def test_more_connections_than_it_takes(
    service: ActivationService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, with_tls: bool
) -> None:
    """A connection counts from the first moment on, before it is known to speak TLS, and until it has ended."""
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 2)
    trust = None
    pages = web.ActivationPages(service, None)
    if with_tls:
        make_tls(tmp_path)
        pages.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        pages.tls.load_cert_chain(tmp_path / "tls.pem", tmp_path / "tls.key")
        trust = ssl.create_default_context(cafile=str(tmp_path / "tls-ca.pem"))
    address = await pages.open("127.0.0.1:0")

    async def ask() -> bytes:
        try:
            return await send(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", trust)
        except (ConnectionError, ssl.SSLError):
            return b""

    silent = [await asyncio.open_connection(*address) for _ in range(2)]
    assert await ask() == b""
    for _, writer in silent:
        writer.close()
        await writer.wait_closed()
    while not (await ask()).startswith(b"HTTP/1.1 200 OK"):
        await asyncio.sleep(0.01)
    await pages.close()


async def test_no_descriptor_for_a_connection_is_told_once_and_so_is_its_end(
    service: ActivationService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(web, "ACCEPT_PAUSE_S", 0.05)
    monkeypatch.setattr(web, "ACCEPT_WELL_S", 0.0)
    caplog.set_level(logging.INFO)
    loop = asyncio.get_running_loop()
    async with open_pages(service) as address:
        with few_descriptors() as use_up, socket.socket() as client:
            client.setblocking(False)
            with use_up():
                await loop.sock_connect(client, address)
                while not caplog.records:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.3)  # in which it tries several times
                assert [record.getMessage().partition(".")[0] for record in caplog.records] == [
                    "no connection is accepted: Too many open files"
                ]
            await loop.sock_sendall(client, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in await loop.sock_recv(client, 1000)
    assert [record.getMessage() for record in caplog.records[1:]] == ["connections are accepted again"]


@contextmanager
def few_descriptors() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """A limit near to what is open; call what it gives to use up what is left of it until the block ends."""

    @contextmanager
    def use_up() -> Iterator[None]:
        taken = []
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        try:
            yield
        finally:
            for descriptor in taken:
                os.close(descriptor)

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files + 32, limits[1]))
    try:
        yield use_up
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_a_connection_that_ended_leaves_nothing(service: ActivationService) -> None:
    async with open_pages(service) as address:
        before = asyncio.all_tasks()
        assert (await send(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET / HTTP/1.1\r\n:\r\n\r\n"])
async def test_what_is_not_http_is_answered_like_all_the_rest(service: ActivationService, data: bytes) -> None:
    async with open_pages(service) as address:
        head, _, body = (await send(address, data)).partition(b"\r\n\r\n")
    assert (head.split(b" ")[1], json.loads(body)["name"]) == (b"400", "OFFLINE_DATA_MALFORMED")
    assert b"Server: kms_fast\r\n" in head


@pytest.mark.parametrize(
    ("lines", "peer"),
    [
        (["10.9.9.9, 192.0.2.7"], "192.0.2.7"),
        (["10.9.9.9", "192.0.2.7"], "192.0.2.7"),
        (["10.9.9.9", "10.9.9.8, 192.0.2.7:4711"], "192.0.2.7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["2001:db8::7"], "2001:db8::7"),
        ([""], "127.0.0.1"),
        ([], "127.0.0.1"),
    ],
)
async def test_the_peer_is_whom_the_proxy_saw(
    service: ActivationService, monkeypatch: pytest.MonkeyPatch, lines: list[str], peer: str
) -> None:
    """Whoever asks may write a line of its own; the proxy's is the last."""
    asked = []

    def answer(data: bytes, peer: str, **_: float) -> Reply:
        asked.append(peer)
        return Reply(200, b"{}")

    monkeypatch.setattr(service, "answer_host_request", answer)
    head = "".join(f"X-Forwarded-For: {line}\r\n" for line in lines).encode()
    async with open_pages(service) as address:
        await send(address, b"POST /v1/host-requests HTTP/1.1\r\nHost: x\r\n" + head + b"Content-Length: 0\r\n\r\n")
    assert asked == [peer]
