"""The process that an administrator starts: it opens the sockets, and keeps workers and the recorder running.

TERM drains, INT stops, HUP reloads. It opens no database while children run, and reads keys to check what is
installed and for requests to the publisher only; children are started anew and inherit neither.
"""

import asyncio
import itertools
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from kms_fast import systemd
from kms_fast.errors import KmsFastError
from kms_fast.host.child import ChildPlan
from kms_fast.host.chores import Chore, Chores
from kms_fast.host.enrolment import Installation
from kms_fast.host.health import HealthPages
from kms_fast.host.keeper import Keeper
from kms_fast.host.presence import Presence
from kms_fast.host.renewal import DAY_S, OpenService, Renewal
from kms_fast.messages import log
from kms_fast.model.settings import FIXED_SETTINGS, HostSettings

WORKER: Final = "kms_fast.cli.worker"
RECORDER: Final = "kms_fast.cli.recorder"
END_LIMIT_S: Final = 5.0
RELOAD_LIMIT_S: Final = 60.0


class Supervisor:
    """Runs a host until told to stop.

    ``sockets``: for each worker the ones it accepts on. ``read_settings`` reads and checks settings and
    ``installation`` anew, for a reload; it raises `KmsFastError`. ``open_service`` gives the publisher's activation
    service. ``chores`` are done once the host listens, until it drains; renewing the certificate is one more.
    """

    def __init__(
        self,
        *,
        home: str,
        settings: HostSettings,
        installation: Installation,
        sockets: Sequence[Sequence[socket.socket]],
        read_settings: Callable[[], tuple[HostSettings, Installation]],
        presence: Presence,
        open_service: OpenService,
        chores: Sequence[Chore] = (),
    ) -> None:
        self._home = home
        self._settings = settings
        self._sockets = sockets
        self._read_settings = read_settings
        self._presence = presence
        self._stop, self._interrupt, self._reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._workers = [
            Keeper(WORKER, self._plan_of(f"worker {number}", opened), essential=True)
            for number, opened in enumerate(sockets, 1)
        ]
        self._recorder = Keeper(RECORDER, self._plan_of("recorder", ()), essential=False)
        self._keepers = [*self._workers, self._recorder]
        self._health = HealthPages(self.describe)
        self._renewal = Renewal(
            folder=Path(home) / "host",
            installation=installation,
            open_service=open_service,
            reload=self._reload_and_tell,
            on_attempt=lambda failed: presence.update(renewal_failed=failed),
        )
        renewing = Chore("renewing the certificate", DAY_S, self._renewal.look)
        self._reloading = asyncio.Lock()
        self._chores = Chores([*chores, renewing], lambda: self._settings)

    async def run(self, on_listening: Callable[[], None]) -> None:
        """Serve until TERM; tell once every worker accepts connections.

        Raises `KmsFastError` when a worker cannot be kept running or failed while it drained, ``KeyboardInterrupt`` on
        INT.
        """
        loop = asyncio.get_running_loop()
        for number, event in (
            (signal.SIGTERM, self._stop),
            (signal.SIGINT, self._interrupt),
            (signal.SIGHUP, self._reload),
        ):
            loop.add_signal_handler(number, event.set)
        if self._settings.web is not None:
            address, port = await self._health.open(self._settings.web)
            log("HEALTH_PAGES_OPENED", address=address, port=port)
        jobs = [asyncio.create_task(keeper.run()) for keeper in self._keepers]
        try:
            await self._until(self._start(), jobs)
            if not self._stop.is_set():
                on_listening()
                systemd.notify("READY=1")
                await self._until(self._serve(), jobs)
            # A worker that fails now is told when all have come to their end.
            await self._until(self._drain(jobs), ())
        finally:
            await self._end(jobs)
            await self._health.close()

    def describe(self) -> dict[str, Any]:
        """What the health pages show."""
        ready, draining = sum(worker.is_ready for worker in self._workers), self._stop.is_set()
        conditions = [worker.condition for worker in self._workers]
        busy = next((condition.busy for condition in conditions if condition.busy), None)
        return {
            "ready": ready == len(self._workers) and busy is None and not draining,
            "draining": draining,
            "busy": busy,
            "store_ready": all(condition.store_ready for condition in conditions),
            "workers": len(self._workers),
            "workers_ready": ready,
            "recorder_ready": self._recorder.is_ready,
            "segments_left": self._recorder.condition.segments_left,
            **self._renewal.describe(),
        }

    def _plan_of(self, name: str, sockets: Sequence[socket.socket]) -> Callable[[], ChildPlan]:
        descriptors = tuple(opened.fileno() for opened in sockets)
        return lambda: ChildPlan(name=name, home=self._home, settings=self._settings, sockets=descriptors)

    async def _until(self, awaited: Coroutine[Any, Any, Any], jobs: Sequence[asyncio.Task[None]]) -> None:
        """Wait for what is awaited. Raises what ends the host before: the error of a job, or Ctrl-C."""
        wanted, interrupted = asyncio.create_task(awaited), asyncio.create_task(self._interrupt.wait())
        running = {wanted, interrupted, *jobs}
        try:
            while not wanted.done():
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                if interrupted in done:
                    raise KeyboardInterrupt
                for one in done:
                    one.result()
        finally:
            wanted.cancel()
            interrupted.cancel()

    async def _start(self) -> None:
        """Until every worker serves, or the host is told to stop before."""
        await self._first_of(self._wait_for_workers(), self._stop.wait())

    async def _wait_for_workers(self) -> None:
        for worker in self._workers:
            await worker.ready.wait()

    async def _first_of(self, *awaited: Coroutine[Any, Any, object]) -> None:
        tasks = [asyncio.create_task(one) for one in awaited]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _drain(self, jobs: Sequence[asyncio.Task[None]]) -> None:
        """Let the workers answer what waits, then the recorder take up what they signed."""
        systemd.notify("STOPPING=1")
        begun_s = time.monotonic()
        for opened in itertools.chain(*self._sockets):
            opened.close()
        workers = len(self._workers)
        await self._drain_some(self._workers, jobs[:workers])
        await self._drain_some([self._recorder], jobs[workers:])
        for job in jobs:
            job.result()
        log("HOST_STOPPED", duration_s=time.monotonic() - begun_s)

    async def _drain_some(self, keepers: Sequence[Keeper], jobs: Sequence[asyncio.Task[None]]) -> None:
        for keeper in keepers:
            keeper.drain()
        limit_s = self._settings.timeout_graceful_shutdown_s
        _, late = await asyncio.wait(jobs, timeout=limit_s)
        if late:
            log("DRAIN_TIMED_OUT", limit_s=limit_s)
            for keeper in keepers:
                keeper.kill()
            await asyncio.wait(jobs)

    async def _end(self, jobs: Sequence[asyncio.Task[None]]) -> None:
        """Whatever still runs ends now."""
        for keeper in self._keepers:
            keeper.end()
        _, late = await asyncio.wait(jobs, timeout=END_LIMIT_S)
        if late:
            for keeper in self._keepers:
                keeper.kill()
        # What ended the host is raised already; children that were cut short on the way say nothing new.
        await asyncio.gather(*jobs, return_exceptions=True)

    async def _serve(self) -> None:
        """Reload when told so and do the chores, until told to stop."""
        chores = asyncio.create_task(self._chores.run())
        try:
            await self._follow_reloads()
        finally:
            chores.cancel()

    async def _follow_reloads(self) -> None:
        """Reload whenever told so, until told to stop."""
        while not self._stop.is_set():
            await self._first_of(self._reload.wait(), self._stop.wait())
            if not self._reload.is_set():
                continue
            self._reload.clear()
            with suppress(KmsFastError):
                await self._reload_and_tell()

    async def _reload_and_tell(self) -> None:
        """Reload, and tell everybody who wants to know. Raises `KmsFastError`."""
        async with self._reloading:
            systemd.notify_reloading()
            refused: KmsFastError | None = None
            try:
                installation = await self._reload_once()
            except KmsFastError as error:
                log("RELOAD_REFUSED", error=error)
                refused = error
            else:
                log("RELOADED", installed=installation.describe())
                self._chores.wake()
            told = None if refused is None else refused.to_json()
            self._presence.update(reloads=self._presence.process.reloads + 1, reload_error=told)
            systemd.notify("READY=1")
        if refused is not None:
            raise refused

    async def _reload_once(self) -> Installation:
        try:
            settings, installation = await asyncio.to_thread(self._read_settings)
        except KmsFastError as error:
            if error.result.name == "CERTIFICATE_REVOKED":
                # Each worker finds it so too, and signs nothing any more.
                await self._reload_children(self._settings)
            raise
        for name in FIXED_SETTINGS:
            if getattr(settings, name) != getattr(self._settings, name):
                log("SETTING_KEPT", setting=name)
                settings = msgspec.structs.replace(settings, **{name: getattr(self._settings, name)})
        self._settings = settings
        await self._reload_children(settings)
        self._renewal.note_reload(installation)
        return installation

    async def _reload_children(self, settings: HostSettings) -> None:
        try:
            async with asyncio.timeout(RELOAD_LIMIT_S):
                # Each comes to its end, also when another could not.
                reloads = [keeper.reload(settings) for keeper in self._keepers]
                failed = [one for one in await asyncio.gather(*reloads, return_exceptions=True) if one is not None]
        except TimeoutError:
            raise KmsFastError(
                f"A worker did not reload within {RELOAD_LIMIT_S:.0f} s.", name="PROCESS_FAILED"
            ) from None
        if failed:
            raise failed[0]
