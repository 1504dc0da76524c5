"""The activation service's sockets: who sends slowly, or nothing, or comes with too many."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kms_fast.publisher import web
from kms_fast.publisher.service import ActivationService
from tests.publishing import PASSPHRASE, make_publisher
from tests.services import make_tls


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ActivationService]:
    publisher = make_publisher(tmp_path)
    yield ActivationService(publisher, publisher.read_issuer_key(PASSPHRASE), peer_per_hour=60, key_per_hour=60)
    publisher.close()


@asynccontextmanager
async def open_pages(service: ActivationService) -> AsyncIterator[tuple[str, int]]:
    pages = web.ActivationPages(service, None)
    yield await pages.open("127.0.0.1:0")
    await pages.close()


async def send(address: tuple[str, int], data: bytes) -> bytes:
    """Send this and wait for whatever comes until the end."""
    reader, writer = await asyncio.open_connection(*address)
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


async def test_more_connections_than_it_takes(service: ActivationService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 2)
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with open_pages(service) as address:
        idle = [await asyncio.open_connection(*address) for _ in range(2)]
        # Both may not have been accepted yet.
        while await send(address, ask):
            await asyncio.sleep(0.01)
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        while not (await send(address, ask)).startswith(b"HTTP/1.1 200 OK"):
            await asyncio.sleep(0.01)


async def test_more_tls_connections_than_it_takes(
    service: ActivationService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(web, "MAX_CONNECTIONS", 0)
    make_tls(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "tls.pem", tmp_path / "tls.key")
    pages = web.ActivationPages(service, tls)
    address = await pages.open("127.0.0.1:0")
    trust = ssl.create_default_context(cafile=str(tmp_path / "tls-ca.pem"))
    try:
        reader, writer = await asyncio.open_connection(*address, ssl=trust, server_hostname="localhost")
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.read() == b""
        writer.close()
    except (ConnectionError, ssl.SSLError):
        pass  # it ended before this side was done with the handshake
    finally:
        await pages.close()
