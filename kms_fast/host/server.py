"""One worker of a host: sockets, connections, the batcher and the small jobs beside them, in one event loop."""

import asyncio
import gc
import os
import socket
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kms_fast import _core
from kms_fast.clock import wall_clock_ms
from kms_fast.errors import KmsFastError
from kms_fast.host.batcher import Batcher
from kms_fast.host.child import Condition
from kms_fast.host.enrolment import Installation, read_installation, read_publisher
from kms_fast.host.epoch import Epoch, open_epoch
from kms_fast.host.ledger import Ledger
from kms_fast.messages import log
from kms_fast.model.quantities import format_quantity
from kms_fast.model.settings import HostSettings
from kms_fast.results import BY_NAME
from kms_fast.store import Counts

SEGMENT_AGE_MS: Final = 24 * 3600 * 1000
WATCH_S: Final = 10.0
LAST_REQUESTS_S: Final = 0.2
LAST_ANSWERS_S: Final = 5.0
SWEEPS_PER_IDLE_TIMEOUT: Final = 4
MAX_FOREIGN_LOGGED: Final = 1_000


class Server:
    """Serves on sockets until told to stop: one worker.

    ``folder`` is the host's, ``installation`` what was read there. ``on_condition`` is told whenever the `Condition`
    changes. ``run`` returns when drained and raises `KmsFastError` when a commit failed.
    """

    def __init__(
        self,
        *,
        folder: Path,
        installation: Installation,
        settings: HostSettings,
        counts: Counts,
        sockets: Sequence[socket.socket],
        clock_ms: Callable[[], int] = wall_clock_ms,
        on_condition: Callable[[Condition], None] = lambda condition: None,
    ) -> None:
        self._folder = folder
        self._installation = installation
        self._settings = settings
        self._counts = counts
        self._sockets = sockets
        self._clock_ms = clock_ms
        self._on_condition = on_condition
        self._condition = Condition()
        self._stop = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changing = asyncio.Lock()
        self._retiring: set[asyncio.Future[None]] = set()
        self._foreign: set[tuple[bytes, bytes]] = set()
        self._counts_wait = False
        self._busy: str | None = None
        self._revoked: str | None = None
        self._batcher: Batcher
        self.host: _core.Host

    async def run(self, on_listening: Callable[[], None]) -> None:
        """Serve until `stop`; tell once connections are accepted."""
        asyncio.get_running_loop().set_exception_handler(self._handle_exception)
        self._batcher, poller = await self._make_batcher()
        jobs = [asyncio.create_task(self._sweep()), asyncio.create_task(self._watch())]
        try:
            for opened in self._sockets:
                poller.listen(opened.fileno(), str(opened.getsockname()[1]))
            # What exists now lives as long as the process: the collector need not look at it again.
            gc.freeze()
            on_listening()
            jobs.append(asyncio.create_task(self._drain(poller)))
            # The drain ends by itself; everything else does so only by an error, at any time.
            ended, _ = await asyncio.wait({*jobs, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            for one in ended:
                one.result()
        finally:
            for job in jobs:
                job.cancel()
            self._batcher.close()
            await self._counts.close()
        for ledger in self._batcher.ledgers:
            ledger.close()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    def stop(self) -> None:
        """Let `run` drain and return."""
        self._stop.set()

    def end(self, outcome: BaseException) -> None:
        """Raise this from `run`, also in the middle of a drain."""
        if not self._failed.done():
            self._failed.set_exception(outcome)

    async def reload(self, settings: HostSettings) -> None:
        """Take up settings, certificate, catalog and key anew, from the next batch on; connections stay.

        Raises OSError or `KmsFastError`; then everything stays as it was.
        """
        try:
            installation = await asyncio.to_thread(read_installation, self._folder)
        except KmsFastError as error:
            if error.result.name == "CERTIFICATE_REVOKED":
                await self._stop_signing(error)
            raise
        installation.check_dates(self._clock_ms())
        await self._begin_epoch(installation, settings)
        self._revoked = None
        self._batcher.spacing_s = settings.batch_spacing_ms / 1000
        self.host.use_limits(settings.max_waiting, settings.max_connections, settings.record_names)

    async def _stop_signing(self, error: KmsFastError) -> None:
        """This host's own certificate is revoked: hand the revocations on, and answer requests that it has none."""
        self._revoked, self._busy = error.message, None
        try:
            publisher = await asyncio.to_thread(read_publisher, self._folder)
            await self._begin_epoch(replace(self._installation, publisher=publisher), self._settings)
        finally:
            self.host.refusal = BY_NAME["HOST_NOT_ACTIVATED"].code
            self._tell_condition()

    async def _begin_epoch(self, installation: Installation, settings: HostSettings) -> None:
        async with self._changing:
            self._batcher.adopt(await asyncio.to_thread(open_epoch, self._folder, installation, settings))
            self._installation, self._settings = installation, settings

    async def _make_batcher(self) -> tuple[Batcher, _core.Poller]:
        settings = self._settings
        epoch = open_epoch(self._folder, self._installation, settings)
        await self._load_counts(epoch)
        batcher = Batcher(
            epoch=epoch,
            counts=self._counts,
            clock_ms=self._clock_ms,
            spacing_s=settings.batch_spacing_ms / 1000,
            on_failure=self.end,
            on_retired=self._retire,
        )
        self.host = _core.Host(batcher.wake, self._log_foreign)
        self.host.use_limits(settings.max_waiting, settings.max_connections, settings.record_names)
        poller = _core.Poller(self.host, self._log_bug)
        batcher.start(self.host, poller)
        return batcher, poller

    async def _load_counts(self, epoch: Epoch) -> None:
        """Begin with what the store knows. Without it, families are below their cap and look there again."""
        now_ms = self._clock_ms()
        for number, family in epoch.families().items():
            try:
                rows = await self._counts.load(number, now_ms, cap=family.cap, retention_ms=family.retention_ms)
            except KmsFastError as error:
                log("COUNTS_NOT_LOADED", error=error)
                return
            family.load(rows)

    async def _drain(self, poller: _core.Poller) -> None:
        """When told to stop: accept nobody any more, answer what waits, and give the answers some time to leave."""
        await self._stop.wait()
        loop = asyncio.get_running_loop()
        log("DRAINING", connections=len(self.host.connections))
        # The kernel resets whoever waits on a socket that is closed, so nobody may.
        poller.stop_listening()
        for opened in self._sockets:
            opened.close()
        # Whoever is sent away comes back at once, and must not meet a worker that is about to do the same.
        await asyncio.sleep(LAST_REQUESTS_S)
        self.host.refusal = BY_NAME["SERVER_BUSY"].code
        try:
            await self._batcher.drain()
        except KmsFastError as error:
            log("DRAIN_FAILED", error=error)
        self.host.close_connections()
        end_s = loop.time() + LAST_ANSWERS_S
        while self.host.connections and loop.time() < end_s:
            await asyncio.sleep(0.01)

    def _retire(self, ledger: Ledger) -> None:
        """Close a segment that no batch will be written to any more; it syncs, so not in the event loop's thread."""
        closing = asyncio.get_running_loop().run_in_executor(None, ledger.close)
        self._retiring.add(closing)
        closing.add_done_callback(self._note_retired)

    def _note_retired(self, closing: asyncio.Future[None]) -> None:
        self._retiring.discard(closing)
        if error := closing.exception():
            log("SEGMENT_NOT_CLOSED", error=error)

    def _log_bug(self, error: BaseException) -> None:
        """A bug of ours that cost a connection."""
        log("CONNECTION_BUG", traceback=error)

    def _handle_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A bug of ours anywhere else costs the process, which must not answer any more."""
        error = context.get("exception")
        log("WORKER_BUG", reason=context["message"], traceback=error)
        self.end(error or RuntimeError(context["message"]))

    async def _sweep(self) -> None:
        """Close idle connections."""
        while True:
            await asyncio.sleep(self._settings.idle_timeout_s / SWEEPS_PER_IDLE_TIMEOUT)
            self.host.sweep()

    async def _watch(self) -> None:
        """Every 10 s: exchange counts of families at their cap with the store, look after the ledger's segment and
        disk, and tell when the condition is another one.
        """
        while True:
            await self._exchange_counts()
            await self._continue_segment()
            self._check_disk()
            self._tell_condition()
            await asyncio.sleep(WATCH_S)

    async def _exchange_counts(self) -> None:
        try:
            await self._batcher.flush_counts()
            await self._ask_store()
        except KmsFastError as error:
            if not self._counts_wait:
                log("COUNTS_WAIT", error=error)
            self._counts_wait = True
        else:
            self._counts_wait = False

    async def _ask_store(self) -> None:
        """See that the store answers, also when there is nothing to exchange. Raises what it says."""
        retention_ms = self._settings.retention_s * 1000
        for family in self._installation.catalog.families[:1]:
            await self._counts.load(family.number, self._clock_ms(), cap=family.cap, retention_ms=retention_ms)

    async def _continue_segment(self) -> None:
        # The next epoch would sign again.
        if self._revoked is not None or not self._is_segment_done() or self._stop.is_set():
            return
        try:
            await self._begin_epoch(self._installation, self._settings)
        except KmsFastError as error:
            log("SEGMENT_NOT_BEGUN", error=error)

    def _is_segment_done(self) -> bool:
        """Whether the next segment is due: this one is full, or a day old where records are dropped by age."""
        ledger, settings = self._batcher.ledgers[-1], self._settings
        if ledger.used_bytes >= settings.segment_size_bytes:
            return True
        if settings.keep_records_s is None or ledger.first_time_ms is None:
            return False
        return self._clock_ms() - ledger.first_time_ms >= SEGMENT_AGE_MS

    def _check_disk(self) -> None:
        if self._stop.is_set():
            return
        folder = self._batcher.ledger.path.parent
        disk = os.statvfs(folder)
        free_bytes, least_bytes = disk.f_bavail * disk.f_frsize, self._settings.low_water_bytes
        busy = BY_NAME["SERVER_BUSY"].code
        if free_bytes < least_bytes and self.host.refusal == 0:
            self._busy = (
                f"the disk of {folder} is almost full: {free_bytes >> 20} MiB are free, low_water is "
                f"{format_quantity(least_bytes, 'bytes')}"
            )
            log("DISK_LOW", reason=self._busy)
            self.host.refusal = busy
        elif free_bytes >= least_bytes and self.host.refusal == busy:
            self._busy = None
            log("DISK_ENOUGH", folder=folder)
            self.host.refusal = 0

    def _tell_condition(self) -> None:
        condition = Condition(store_ready=not self._counts_wait, busy=self._revoked or self._busy)
        if condition != self._condition:
            self._condition = condition
            self._on_condition(condition)

    def _log_foreign(self, interface: bytes, peer: bytes) -> None:
        """One line for each machine and interface: such clients belong to a host of their own product."""
        if (interface, peer[:16]) in self._foreign or len(self._foreign) >= MAX_FOREIGN_LOGGED:
            return
        self._foreign.add((interface, peer[:16]))
        log("FOREIGN_CLIENT", peer=_core.unpack_peer(peer), interface=uuid.UUID(bytes_le=interface))
