"""Chores of a host: when each is done, what they are told, and that one that fails holds up nothing."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

import pytest

from kms_fast.errors import KmsFastError
from kms_fast.host.chores import Chore, Chores
from kms_fast.model.settings import HostSettings

DAY_S = 86_400


async def run_until(chores: Sequence[Chore], reached: asyncio.Event, settings: HostSettings | None = None) -> Chores:
    """Runs chores until something was reached, then cancels them."""
    running = Chores(chores, lambda: settings or HostSettings())
    task = asyncio.create_task(running.run())
    await asyncio.wait_for(reached.wait(), 10)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return running


def counting(
    times: int, reached: asyncio.Event, *, says: float | None = None
) -> Callable[..., Awaitable[float | None]]:
    """A chore that has reached its end when it was done this often."""
    left = times

    async def do(settings: HostSettings) -> float | None:
        nonlocal left
        left -= 1
        if left == 0:
            reached.set()
        return says

    return do


async def test_it_is_done_at_start_and_then_by_its_interval() -> None:
    reached = asyncio.Event()
    await run_until([Chore("count", 0.001, counting(3, reached))], reached)


async def test_it_says_itself_when_it_is_due_again() -> None:
    reached = asyncio.Event()
    await run_until([Chore("count", DAY_S, counting(3, reached, says=0.001))], reached)


async def test_it_gets_the_settings_in_force() -> None:
    told: list[HostSettings] = []
    reached = asyncio.Event()

    async def do(settings: HostSettings) -> None:
        told.append(settings)
        reached.set()

    await run_until([Chore("ask", DAY_S, do)], reached, HostSettings(workers=7))
    assert told == [HostSettings(workers=7)]


@pytest.mark.parametrize("error", [KmsFastError("It broke.", name="STORAGE_FAILED"), ZeroDivisionError("planted")])
async def test_one_that_fails_is_logged_and_done_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    reached, others = asyncio.Event(), asyncio.Event()
    count = counting(3, reached)

    async def fail(settings: HostSettings) -> None:
        await count(settings)
        raise error

    with caplog.at_level(logging.ERROR):
        await run_until([Chore("break", 0.001, fail), Chore("other", DAY_S, counting(1, others))], reached)
    assert others.is_set()
    assert [record.getMessage().startswith("break") for record in caplog.records][:2] == [True, True]


async def test_all_are_done_anew_when_woken_also_while_they_are_being_done() -> None:
    begun, go_on, reached = asyncio.Event(), asyncio.Event(), asyncio.Event()
    count = counting(2, reached)

    async def do(settings: HostSettings) -> None:
        await count(settings)
        begun.set()
        await go_on.wait()

    running = Chores([Chore("count", DAY_S, do)], HostSettings)
    task = asyncio.create_task(running.run())
    await asyncio.wait_for(begun.wait(), 10)
    running.wake()
    go_on.set()
    await asyncio.wait_for(reached.wait(), 10)
    task.cancel()
