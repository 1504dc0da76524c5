"""What a host does now and then beside serving, such as publishing its DNS records: in the supervisor's process.

A chore is handed in by whoever starts the host, so that nothing here knows DNS or HTTPS.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kms_fast.errors import KmsFastError
from kms_fast.messages import log
from kms_fast.model.settings import HostSettings

JITTER: Final = 0.1


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do at start and every ``interval_s``, up to 10 % earlier at random.

    ``do`` gets the settings in force, and may return in how many seconds it wants to be called again instead.
    """

    name: str
    interval_s: float
    do: Callable[[HostSettings], Awaitable[float | None]]


class Chores:
    """Does each chore in turn, side by side with the others. A failure is logged and ends nothing."""

    def __init__(self, chores: Sequence[Chore], settings: Callable[[], HostSettings]) -> None:
        self._settings = settings
        self._due = {chore: asyncio.Event() for chore in chores}

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(*(self._repeat(chore, due) for chore, due in self._due.items()))

    def wake(self) -> None:
        """Do each chore now, or again when it is being done: settings or certificate have changed."""
        for due in self._due.values():
            due.set()

    async def _repeat(self, chore: Chore, due: asyncio.Event) -> None:
        while True:
            due.clear()
            pause_s = await self._do(chore) or chore.interval_s
            try:
                async with asyncio.timeout(pause_s * random.uniform(1 - JITTER, 1)):
                    await due.wait()
            except TimeoutError:
                pass

    async def _do(self, chore: Chore) -> float | None:
        try:
            return await chore.do(self._settings())
        except KmsFastError as error:
            log("CHORE_FAILED", chore=chore.name, error=error)
        except Exception as error:
            # A chore's mistake is no reason to stop serving.
            log("CHORE_BUG", chore=chore.name, traceback=error)
        return None
