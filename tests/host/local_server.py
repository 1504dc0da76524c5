"""A whole host in this process: uvloop in the main thread, the clients of a test in another."""

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from kms_fast.clock import wall_clock_ms
from kms_fast.host.enrolment import read_installation
from kms_fast.host.listener import open_sockets
from kms_fast.host.server import Server
from kms_fast.model.settings import HostSettings
from kms_fast.store import Counts
from kms_fast.store.sqlite_counts import SqliteCounts
from tests.hosts import Realm

Talk = Callable[[tuple[str, int]], Any]


@dataclass
class Clock:
    """The wall clock, moved by ``offset_ms``."""

    offset_ms: int = 0

    def __call__(self) -> int:
        return wall_clock_ms() + self.offset_ms


@dataclass
class LocalServer:
    """``run`` calls ``talk`` with the running server's address in a thread, drains the server and gives talk's result.

    ``make_server`` may be a subclass of Server, ``open_counts`` a store of another kind.
    """

    realm: Realm
    settings: HostSettings = field(default_factory=HostSettings)
    clock: Clock = field(default_factory=Clock)
    make_server: type[Server] = Server
    open_counts: Callable[[Path], Counts] = SqliteCounts

    def run(self, talk: Talk) -> Any:
        try:
            return uvloop.run(self._run(talk))
        finally:
            # The server freezes what exists; here that is the whole test run.
            gc.unfreeze()

    def flush_counts(self) -> None:
        """What the server does every ten seconds, now; for ``talk``."""
        asyncio.run_coroutine_threadsafe(self.server._batcher.flush_counts(), self.loop).result(30)

    async def _run(self, talk: Talk) -> Any:
        folder = self.realm.home / "host"
        installation = read_installation(folder)
        self.server = self.make_server(
            folder=folder,
            installation=installation,
            settings=self.settings,
            counts=self.open_counts(folder / "counts.db"),
            sockets=(sockets := open_sockets(["127.0.0.1:0"])[0]),
            clock_ms=self.clock,
        )
        self.loop = loop = asyncio.get_running_loop()
        listening: asyncio.Future[tuple[str, int]] = loop.create_future()
        address = sockets[0].getsockname()
        running = asyncio.create_task(self.server.run(lambda: listening.set_result(address)))
        await asyncio.wait({running, listening}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        talking = loop.run_in_executor(None, talk, await listening)
        await asyncio.wait({running, talking}, return_when=asyncio.FIRST_COMPLETED)
        self.server.stop()
        await running
        return await talking
