"""Keeps one child process running: starts it again when it dies, later each time, and gives up on a crash loop."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Final

from kms_fast.errors import KmsFastError
from kms_fast.host.child import ChildPlan, Condition
from kms_fast.host.process import Child
from kms_fast.messages import log
from kms_fast.model.settings import HostSettings

CRASH_LOOP_DEATHS: Final = 5
CRASH_LOOP_S: Final = 60.0
FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 10.0


class Keeper:
    """Keeps ``module`` running by the plan that ``make_plan`` gives at each start.

    A child that is ``essential`` ends the host when it cannot start at all or dies five times within a minute; any
    other is started again for ever.
    """

    def __init__(self, module: str, make_plan: Callable[[], ChildPlan], *, essential: bool) -> None:
        self._module = module
        self._make_plan = make_plan
        self._essential = essential
        self._child: Child | None = None
        self._stopping = asyncio.Event()
        self._deaths: deque[float] = deque(maxlen=CRASH_LOOP_DEATHS)
        self._failures = 0
        self.ready = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """Whether the child serves now."""
        return self._child is not None and self._child.ready.is_set()

    @property
    def condition(self) -> Condition:
        """What the child said last of its surroundings."""
        return Condition() if self._child is None else self._child.condition

    async def run(self) -> None:
        """Keep the child running until `drain` or `end`.

        Raises `KmsFastError`, what the child said, when an essential one cannot be kept, or failed while it drained.
        """
        while not self._stopping.is_set():
            child, code = await self._run_once()
            if code == 0 and (child.ready.is_set() or self._stopping.is_set()):
                continue
            error = child.error or _explain(child, code)
            if self._essential and (self._stopping.is_set() or not self.ready.is_set()):
                raise error
            delay_s = self._note_death(child, error)
            log("CHILD_DIED", error=error, delay_s=delay_s)
            await self._sleep(delay_s)

    async def reload(self, settings: HostSettings) -> None:
        """Let the child take up settings and files anew, if one runs; one that is just starting does it then.

        Raises `KmsFastError` when it could not.
        """
        if self._child is not None:
            await self._child.reload(settings)

    def drain(self) -> None:
        """Let the child finish its work, and start no other."""
        self._stopping.set()
        if self._child is not None:
            self._child.drain()

    def end(self) -> None:
        """Let the child end at once, and start no other."""
        self._stopping.set()
        if self._child is not None:
            self._child.end()

    def kill(self) -> None:
        """End the child by force, and start no other."""
        self._stopping.set()
        if self._child is not None:
            self._child.kill()

    async def _run_once(self) -> tuple[Child, int]:
        """A child from its start to its end, and its exit code."""
        plan = self._make_plan()
        self._child = child = await Child.start(self._module, plan)
        if self._stopping.is_set():
            child.end()
        elif (settings := self._make_plan().settings) != plan.settings:
            # A reload came while it was being started.
            child.send_reload(settings)
        noting = asyncio.create_task(self._note_ready(child))
        try:
            return child, await child.wait()
        finally:
            self._child = None
            noting.cancel()

    async def _note_ready(self, child: Child) -> None:
        await child.ready.wait()
        if self.ready.is_set():
            log("CHILD_BACK", name=child.name, pid=child.pid)
        self.ready.set()

    def _note_death(self, child: Child, error: KmsFastError) -> float:
        """How long to wait before the next start. Raises ``error`` in a crash loop."""
        now_s = asyncio.get_running_loop().time()
        self._deaths.append(now_s)
        if self._essential and sum(now_s - death_s < CRASH_LOOP_S for death_s in self._deaths) == CRASH_LOOP_DEATHS:
            raise error
        self._failures = 0 if now_s - child.started_s > CRASH_LOOP_S else self._failures + 1
        return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self._failures, 10)) * random.uniform(0.5, 1.0)

    async def _sleep(self, delay_s: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), delay_s)
        except TimeoutError:
            return


def _explain(child: Child, code: int) -> KmsFastError:
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return KmsFastError(f"{child.name} ended {how}.", name="PROCESS_FAILED", exit_code=code)
