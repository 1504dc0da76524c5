"""The publisher's activation service as who asks sees it: HTTPS, through the proxy that the environment names."""

import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from kms_fast.errors import ConfigurationError, KmsFastError, read_refusal
from kms_fast.files import MAX_READ_BYTES
from kms_fast.model.activation_url import check_activation_url
from kms_fast.model.machine_activation import SERVICE_PATH

CONNECT_LIMIT_S = 10.0
ANSWER_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class ActivationClient:
    """Asks the activation service behind ``url``; ``ca`` names a file of authorities beside the system's trust store.

    Its methods raise `KmsFastError`: PUBLISHER_UNREACHABLE, TLS_NOT_TRUSTED, NO_ACTIVATION_SERVICE, or what the
    publisher said.
    """

    url: str
    ca: Path | None = None

    def __post_init__(self) -> None:
        if not self.url:
            raise ConfigurationError(
                "The publisher file names no activation service: give its address (--url), or go by files.",
                name="PUBLISHER_UNREACHABLE",
            )
        try:
            check_activation_url(self.url)
        except ValueError as error:
            raise ConfigurationError(f"{error}.") from None

    async def certify(self, request: bytes) -> bytes:
        """The host answer to a host request."""
        async with self._open("POST", "/v1/host-requests", data=request) as response:
            return await self._read(response)

    async def activate_machine(self, request: bytes) -> bytes:
        """The activation that a machine request asks for."""
        async with self._open("POST", SERVICE_PATH, data=request) as response:
            return await self._read(response)

    async def fetch_publisher_file(self) -> bytes:
        """``publisher.json`` as the publisher gives it out now."""
        async with self._open("GET", "/v1/publisher.json") as response:
            return await self._read(response)

    @asynccontextmanager
    async def _open(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        url = self.url.rstrip("/") + path
        limits = aiohttp.ClientTimeout(total=ANSWER_LIMIT_S, sock_connect=CONNECT_LIMIT_S)
        connector = aiohttp.TCPConnector(ssl=self._make_trust(), force_close=True)
        session = aiohttp.ClientSession(connector=connector, timeout=limits, trust_env=True)
        try:
            async with session, session.request(method, url, allow_redirects=False, **options) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise _explain(error, url) from None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        chunks, size = [], 0
        async for chunk in response.content.iter_chunked(1 << 16):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_READ_BYTES:
                raise KmsFastError(
                    f"{response.url} answers with more than {MAX_READ_BYTES >> 20} MiB.", name="NO_ACTIVATION_SERVICE"
                )
        data = b"".join(chunks)
        if response.status != 200:
            raise _explain_status(response, data)
        return data

    def _make_trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.ca is not None:
            try:
                context.load_verify_locations(self.ca)
            except ssl.SSLError:
                raise ConfigurationError(f"{self.ca} holds no certificate of an authority (PEM).") from None
            except OSError as error:
                error.filename = os.fspath(self.ca)
                raise
        return context


def _explain_status(response: aiohttp.ClientResponse, data: bytes) -> KmsFastError:
    """What a service said when it did not do what it was asked: its own refusal, or HTTP's."""
    try:
        return read_refusal(data)
    except ValueError:
        where = response.headers.get("Location")
        redirected = f", and leads to {where[:200]}" if where else ""
        return KmsFastError(
            f"{response.url} answered {response.status} {response.reason}{redirected}.",
            name="NO_ACTIVATION_SERVICE",
            status=response.status,
        )


def _explain(error: Exception, url: str) -> KmsFastError:
    host = urlsplit(url).hostname
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", None) or str(error.certificate_error)
        return KmsFastError(
            f"The TLS certificate of {host} is not trusted: {reason.rstrip('.')}.", name="TLS_NOT_TRUSTED", url=url
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return KmsFastError(f"{url} does not speak TLS: {_describe_os_error(error)}.", name="TLS_NOT_TRUSTED", url=url)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        what = f"The proxy {error.host}:{error.port} cannot be reached: {_describe_os_error(error)}"
    elif isinstance(error, aiohttp.ClientHttpProxyError):
        what = f"The proxy answered {error.status} {error.message} when it was asked for {host}"
    elif isinstance(error, aiohttp.ClientConnectorDNSError):
        what = f"The name {error.host} does not resolve: {_describe_os_error(error)}"
    elif isinstance(error, aiohttp.ClientConnectorError):
        what = f"{error.host}:{error.port} cannot be reached: {_describe_os_error(error)}"
    elif isinstance(error, TimeoutError):
        what = f"{url} did not answer in time"
    else:
        what = f"{url}: {str(error) or type(error).__name__}"
    return KmsFastError(f"{what}.", name="PUBLISHER_UNREACHABLE", url=url)


def _describe_os_error(error: aiohttp.ClientConnectorError) -> str:
    # asyncio's own text is about its call, not about what is wrong. An error that tells of several has no number.
    cause = error.os_error
    if cause.errno and not isinstance(cause, socket.gaierror):
        return os.strerror(cause.errno)
    return cause.strerror or str(cause)
