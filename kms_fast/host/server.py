"""A running host: sockets, connections, the batcher, and the small jobs beside them. One process, one event loop."""

import asyncio
import gc
import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final

from kms_fast import _core
from kms_fast.errors import BY_NAME, KmsFastError
from kms_fast.host.admission import build_table
from kms_fast.host.batcher import Batcher
from kms_fast.host.enrolment import Installation
from kms_fast.host.ledger import Ledger
from kms_fast.host.listener import BACKLOG
from kms_fast.model.settings import HostSettings
from kms_fast.store import Counts

logger = logging.getLogger(__name__)

FLUSH_S: Final = 10.0
LAST_ANSWERS_S: Final = 5.0
SWEEPS_PER_IDLE_TIMEOUT: Final = 4
MAX_FOREIGN_LOGGED: Final = 1_000


def wall_clock_ms() -> int:
    """Milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


class Server:
    """Serves on sockets until told to stop.

    ``run`` returns when drained (TERM) and raises `KmsFastError` when a commit failed; ``KeyboardInterrupt`` on INT.
    """

    def __init__(
        self,
        *,
        installation: Installation,
        settings: HostSettings,
        ledger: Ledger,
        counts: Counts,
        sockets: Sequence[socket.socket],
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._settings = settings
        self._installation = installation
        self._ledger = ledger
        self._counts = counts
        self._sockets = sockets
        self._clock_ms = clock_ms
        self._stop: asyncio.Event
        self._failed: asyncio.Future[None]
        self._foreign: set[tuple[bytes, bytes]] = set()
        self.host: _core.Host

    async def run(self, on_listening: Callable[[str, int], None]) -> None:
        """Serve until TERM; tell each address and port once connections are accepted."""
        loop = asyncio.get_running_loop()
        self._stop, self._failed = asyncio.Event(), loop.create_future()
        loop.set_exception_handler(self._handle_exception)
        batcher = await self._make_batcher()
        servers = []
        jobs = [asyncio.create_task(self._sweep()), asyncio.create_task(self._watch(batcher))]
        try:
            loop.add_signal_handler(signal.SIGTERM, self._stop.set)
            loop.add_signal_handler(signal.SIGINT, self._end, KeyboardInterrupt())
            for opened in self._sockets:
                address, port = opened.getsockname()[:2]
                factory = self._make_connection_factory(port)
                servers.append(await loop.create_server(factory, sock=opened, backlog=BACKLOG))
                on_listening(address, port)
            # What exists now lives as long as the process: the collector need not look at it again.
            gc.freeze()
            jobs.append(asyncio.create_task(self._drain(servers, batcher)))
            # The drain ends by itself; everything else does so only by an error, at any time.
            ended, _ = await asyncio.wait({*jobs, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            for one in ended:
                one.result()
        finally:
            for job in jobs:
                job.cancel()
            batcher.close()
            await self._counts.close()
        self._ledger.close()

    async def _drain(self, servers: Sequence[asyncio.Server], batcher: Batcher) -> None:
        """When told to stop: take nothing new, answer what waits, and give the answers some time to leave."""
        await self._stop.wait()
        logger.info("draining %d connections", len(self.host.connections))
        for server in servers:
            server.close()
        self.host.refusal = BY_NAME["SERVER_BUSY"].code
        try:
            await batcher.drain()
        except KmsFastError as error:
            logger.error("%s", error)
        self.host.close_connections()
        loop = asyncio.get_running_loop()
        end_s = loop.time() + LAST_ANSWERS_S
        while self.host.connections and loop.time() < end_s:
            await asyncio.sleep(0.01)

    async def _make_batcher(self) -> Batcher:
        settings = self._settings
        table, families = build_table(self._installation, settings)
        now_ms = self._clock_ms()
        for number, family in zip(families, table.families, strict=True):
            family.load(await self._counts.load(number, now_ms, cap=family.cap, retention_ms=family.retention_ms))
        batcher = Batcher(
            ledger=self._ledger,
            counts=self._counts,
            sign=self._installation.private_key.sign,
            clock_ms=self._clock_ms,
            family_numbers=families,
            spacing_s=settings.batch_spacing_ms / 1000,
            on_failure=self._end,
        )
        self.host = _core.Host(
            settings.max_waiting, settings.max_connections, settings.record_names, batcher.wake, self._log_foreign
        )
        self.host.use_table(table)
        batcher.start(self.host)
        return batcher

    def _make_connection_factory(self, port: int) -> Callable[[], _core.Connection]:
        host, port_name = self.host, str(port)
        return lambda: _core.Connection(host, port_name)

    def _end(self, outcome: BaseException) -> None:
        """Raise this from `run`, also in the middle of a drain."""
        if not self._failed.done():
            self._failed.set_exception(outcome)

    def _handle_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A bug of ours: in a connection it costs that connection, anywhere else the process, which must not answer
        any more.
        """
        error = context.get("exception")
        logger.error("%s", context["message"], exc_info=error)
        if "transport" not in context and "protocol" not in context:
            self._end(error or RuntimeError(context["message"]))

    async def _sweep(self) -> None:
        """Close idle connections."""
        while True:
            await asyncio.sleep(self._settings.idle_timeout_s / SWEEPS_PER_IDLE_TIMEOUT)
            self.host.sweep()

    async def _watch(self, batcher: Batcher) -> None:
        """Every 10 s: store the newest machines of families at their cap, and look after the ledger's disk."""
        while True:
            try:
                await batcher.flush_counts()
            except KmsFastError as error:
                logger.error("%s", error)
            self._check_disk()
            await asyncio.sleep(FLUSH_S)

    def _check_disk(self) -> None:
        if self._stop.is_set():
            return
        disk = os.statvfs(self._ledger.path.parent)
        low = disk.f_bavail * disk.f_frsize < self._settings.low_water_bytes
        busy = BY_NAME["SERVER_BUSY"].code
        if low and self.host.refusal == 0:
            logger.error("the disk of %s is almost full: requests are answered SERVER_BUSY", self._ledger.path.parent)
            self.host.refusal = busy
        elif not low and self.host.refusal == busy:
            logger.info("the disk of %s has room again", self._ledger.path.parent)
            self.host.refusal = 0

    def _log_foreign(self, interface: bytes, peer: bytes) -> None:
        """One line for each machine and interface: such clients belong to a host of their own product."""
        if (interface, peer[:16]) in self._foreign or len(self._foreign) >= MAX_FOREIGN_LOGGED:
            return
        self._foreign.add((interface, peer[:16]))
        logger.warning(
            "a client at %s asked for RPC interface %s, which this host does not serve; "
            "clients of other products belong to the licensed host of that product",
            _core.unpack_peer(peer),
            uuid.UUID(bytes_le=interface),
        )
