"""The activation service on the network: HTTP or HTTPS, one request a connection, bounded in time and size.

POST /v1/host-requests       a host request; the answer is a host answer, or a JSON error
POST /v1/machine-requests    a machine request; the answer is its activation, or a JSON error
GET /v1/publisher.json       the publisher file
GET /healthz                 that the service lives
"""

import asyncio
import errno
import hashlib
import re
import socket
import ssl
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler

from kms_fast.clock import wall_clock_ms
from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.messages import log
from kms_fast.model.machine_activation import SERVICE_PATH
from kms_fast.model.names import parse_listen_address
from kms_fast.publisher.service import MAX_REQUEST_BYTES, ActivationService, Reply, render_error

MAX_CONNECTIONS: Final = 1_000
HANDSHAKE_LIMIT_S: Final = 10.0
BODY_LIMIT_S: Final = 10.0
# A connection ends after so long whatever happens: a host that waits for an answer then asks again.
CONNECTION_LIMIT_S: Final = 30.0
DRAIN_LIMIT_S: Final = 20.0
# How long what is left of a refused request is read, so that its sender sees the answer and no reset.
LINGER_S: Final = 2.0
# How long it waits when there is no descriptor for one more connection; and how long there must have been enough before
# it says so, since each one that is freed is enough for the next connection.
ACCEPT_PAUSE_S: Final = 1.0
ACCEPT_WELL_S: Final = 10.0

_WITH_PORT: Final = re.compile(r"\[(?P<v6>[^]]+)\](:\d+)?|(?P<v4>[^:]+):\d+")
_Returned = TypeVar("_Returned")


class ActivationPages:
    """The service's pages, from `open` to `close`.

    ``tls``: of connections from now on; without it the pages are for a proxy on this machine, which names the peer in
    ``X-Forwarded-For``.
    """

    def __init__(self, service: ActivationService, tls: ssl.SSLContext | None) -> None:
        self._service = service
        self.tls = tls
        # The service's records take one caller at a time, and their syncs must not hold up the event loop.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="certify")
        app = web.Application(client_max_size=MAX_REQUEST_BYTES, middlewares=[self._count, _tell_errors])
        app.add_routes(
            [
                web.post("/v1/host-requests", partial(self._answer_request, service.answer_host_request)),
                web.post(SERVICE_PATH, partial(self._answer_request, service.answer_machine_request)),
                web.get("/v1/publisher.json", self._show_publisher_file),
                web.get("/healthz", self._show_health),
            ]
        )
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=DRAIN_LIMIT_S)
        self._listeners: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._answering = 0
        self._drained = asyncio.Event()

    async def open(self, address: str) -> tuple[str, int]:
        """Listen on ADDR:PORT; the address and port it became. Raises `KmsFastError`."""
        host, port = parse_listen_address(address)
        loop = asyncio.get_running_loop()
        await self._runner.setup()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for family, _, _, _, where in dict.fromkeys(found):
                listener = socket.create_server(where, family=family)
                listener.setblocking(False)
                self._listeners.append(listener)
        except OSError as error:
            await self.close()
            if error.errno == errno.EADDRINUSE:
                what = f"Cannot listen on {address}: another program does already."
                raise KmsFastError(what, name="ADDRESS_IN_USE", address=address) from error
            raise ConfigurationError(f"Cannot listen on {address}: {error.strerror}.") from error
        self._accepting = [loop.create_task(self._accept(listener)) for listener in self._listeners]
        shown: tuple[str, int] = self._listeners[0].getsockname()[:2]
        return shown

    async def describe(self) -> str:
        """What is in force, in words for a line of the log."""
        return await self._in_thread(self._service.describe)

    async def close(self) -> None:
        """Accept nobody any more, answer those who asked, and end."""
        await _cancel(self._accepting)
        for listener in self._listeners:
            listener.close()
        # aiohttp drops what is still to come of a request once it shuts down.
        self._drained.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_LIMIT_S):
                if self._answering:
                    await self._drained.wait()
        await self._runner.cleanup()
        await _cancel(self._connections)
        self._thread.shutdown()

    async def _accept(self, listener: socket.socket) -> None:
        # Not asyncio's server: that one tells of a connection only after its TLS handshake.
        loop = asyncio.get_running_loop()
        failed_s: float | None = None
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except ConnectionAbortedError:
                continue  # its peer left before
            except OSError as error:
                if failed_s is None:
                    log("ACCEPT_FAILED", reason=error.strerror)
                failed_s = loop.time()
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            if failed_s is not None and loop.time() - failed_s >= ACCEPT_WELL_S:
                log("ACCEPT_BACK")
                failed_s = None
            if len(self._connections) >= MAX_CONNECTIONS:
                accepted.close()
                continue
            task = loop.create_task(self._serve(accepted))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _serve(self, accepted: socket.socket) -> None:
        """Serve one connection, from its handshake until it ends or has lasted for too long."""
        assert self._runner.server is not None
        transport, connection = None, _Connection(self._runner.server)
        try:
            with suppress(OSError):
                async with asyncio.timeout(CONNECTION_LIMIT_S):
                    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                        lambda: connection,
                        accepted,
                        ssl=self.tls,
                        ssl_handshake_timeout=HANDSHAKE_LIMIT_S if self.tls else None,
                    )
                    await connection.ended.wait()
        finally:
            if transport is not None:
                transport.abort()

    @web.middleware
    async def _count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self._answering += 1
        try:
            return await handler(request)
        finally:
            self._answering -= 1
            if not self._answering:
                self._drained.set()

    async def _answer_request(self, answer: Callable[..., Reply], request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(BODY_LIMIT_S):
                data = await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout(text=f"The request did not come whole within {BODY_LIMIT_S:.0f} s.") from None
        peer, now_ms = self._find_peer(request), wall_clock_ms()
        reply = await self._in_thread(lambda: answer(data, peer, now_ms=now_ms, now_s=time.monotonic()))
        return _respond(reply)

    async def _show_publisher_file(self, request: web.Request) -> web.Response:
        peer = self._find_peer(request)
        reply = await self._in_thread(lambda: self._service.show_publisher_file(peer, now_s=time.monotonic()))
        if reply.status != 200:
            return _respond(reply)
        tag = hashlib.sha256(reply.body).hexdigest()
        if any(known.value == tag for known in request.if_none_match or ()):
            return web.Response(status=304, headers={"ETag": f'"{tag}"'})
        return _respond(reply, {"ETag": f'"{tag}"'})

    async def _show_health(self, request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    def _find_peer(self, request: web.Request) -> str:
        # A proxy may add to the line that came, or a line of its own.
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", ())) if self.tls is None else ""
        # The last one is what the proxy saw; whoever sent the request may have written those before.
        peer = forwarded.rpartition(",")[2].strip()
        if match := _WITH_PORT.fullmatch(peer):
            peer = match["v6"] or match["v4"]
        return peer[:64] or request.remote or ""

    async def _in_thread(self, call: Callable[[], _Returned]) -> _Returned:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


class _Connection(web.RequestHandler):
    """A connection as aiohttp handles it, that tells of its end, and answers what is not HTTP as all the rest."""

    __slots__ = ("ended",)

    def __init__(self, server: web.Server) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, access_log=None, lingering_time=LINGER_S)  # type: ignore[arg-type]
        self.ended = asyncio.Event()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.ended.set()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status != 400:
            return super().handle_error(request, status, exc, message)
        return _end(_respond(_refuse(400, "What was sent is not HTTP.", "OFFLINE_DATA_MALFORMED")))


async def _cancel(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _respond(reply: Reply, headers: dict[str, str] | None = None) -> web.Response:
    headers = dict(headers or {})
    if reply.retry_after_s is not None:
        headers["Retry-After"] = str(reply.retry_after_s)
    return web.Response(status=reply.status, body=reply.body, content_type="application/json", headers=headers)


def _refuse(status: int, what: str, name: str) -> Reply:
    return Reply(status, render_error(KmsFastError(what, name=name)))


def _end(response: web.StreamResponse) -> web.StreamResponse:
    """Every connection ends with its answer."""
    response.headers["Server"] = "kms_fast"
    response.force_close()
    return response


@web.middleware
async def _tell_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors of HTTP and of this program as JSON too."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        name = "OFFLINE_DATA_MALFORMED" if error.status in (408, 413) else "NO_ACTIVATION_SERVICE"
        what = error.text or error.reason
        if error.status == 413:
            what = f"The request is longer than the {MAX_REQUEST_BYTES:,} bytes that a host request may have."
        response = _respond(_refuse(error.status, what, name))
    except Exception as error:
        log("REQUEST_BUG", traceback=error)
        response = _respond(_refuse(500, "The publisher's activation service failed.", "PUBLISHER_FAILED"))
    return _end(response)
