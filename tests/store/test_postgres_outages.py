"""PostgreSQL killed, stopped, frozen and cut off in the middle of calls: what they raise, how it is found again."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import asyncpg
import pytest

from kms_fast.errors import KmsFastError
from kms_fast.store.postgres import PostgresSession, close, connect
from kms_fast.store.postgres_counts import PostgresCounts
from tests.postgres import PostgresServer
from tests.store.contract import NOW_MS, load, load_once_up, record

pytestmark = pytest.mark.usefixtures("no_password_is_told")


def fail_at_once(call: Coroutine[Any, Any, object]) -> KmsFastError:
    """The error of a call that raises without waiting for anything."""
    with pytest.raises(KmsFastError) as caught:
        call.send(None)
    assert caught.value.result.name == "STORE_UNAVAILABLE"
    return caught.value


async def wait_until_up(counts: PostgresCounts) -> None:
    session = counts._session
    while session._down is not None or session._connection is None or session._connection.is_closed():
        await asyncio.sleep(0.02)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.message for entry in caplog.records if getattr(entry, "event", "") in ("STORE_LOST", "STORE_BACK")]


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_while_the_server_is_away_calls_fail_at_once(
    server: PostgresServer, url: str, quick: None, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    counts = await PostgresCounts.open(url)
    await record(counts, [1])
    getattr(server, how)()
    with pytest.raises(KmsFastError) as caught:
        await record(counts, [2])
    assert caught.value.result.name == "STORE_UNAVAILABLE"
    for _ in range(3):
        fail_at_once(record(counts, [2]))
    # Long enough for some tries that fail: they are not logged.
    await asyncio.sleep(0.5)
    fail_at_once(load(counts))
    server.start()
    await wait_until_up(counts)
    assert await record(counts, [2], NOW_MS + 1) == [1]
    down, back = messages(caplog)
    assert "cannot be used" in down
    assert back.endswith("is back.")
    await counts.close()


async def test_a_server_that_hangs_is_given_up_once(
    server: PostgresServer, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The call that hangs ends when the server goes on, and its connection stays in use."""
    counts = await PostgresCounts.open(url)
    connection = counts._session._connection
    server.freeze()
    with pytest.raises(KmsFastError, match="did not answer within 1 s"):
        await record(counts, [1])
    for _ in range(3):
        fail_at_once(record(counts, [2]))
    server.thaw()
    await wait_until_up(counts)
    assert counts._session._connection is connection
    assert await record(counts, [2], NOW_MS + 1) == [1]
    assert len(messages(caplog)) == 2
    await counts.close()


async def test_a_server_that_hangs_for_long_is_left(server: PostgresServer, url: str, quick: None) -> None:
    counts = await PostgresCounts.open(url)
    connection = counts._session._connection
    server.freeze()
    with pytest.raises(KmsFastError, match="did not answer"):
        await record(counts, [1])
    await asyncio.sleep(1.5)
    assert connection is not None
    assert connection.is_closed()
    fail_at_once(record(counts, [2]))
    server.thaw()
    await wait_until_up(counts)
    await record(counts, [2], NOW_MS + 1)
    await counts.close()


async def test_a_queue_behind_a_call_that_hangs_is_given_up_with_it(server: PostgresServer, url: str) -> None:
    counts = await PostgresCounts.open(url)
    server.freeze()
    calls = await asyncio.gather(*(record(counts, [n]) for n in range(20)), return_exceptions=True)
    server.thaw()
    assert {type(call) for call in calls} == {KmsFastError}
    await wait_until_up(counts)
    # Of the twenty, only the one that was under way reached the server.
    assert await record(counts, [99], NOW_MS + 1) in ([], [0])
    await counts.close()


async def test_a_lock_that_another_holds_is_given_up_and_nothing_stays_behind(
    server: PostgresServer, url: str, quick: None
) -> None:
    counts, other = await PostgresCounts.open(url), await connect(url)
    await record(counts, [1])
    async with other.transaction():
        await other.execute("SELECT FROM kms_fast.families WHERE family = 1 FOR UPDATE")
        with pytest.raises(KmsFastError, match="did not answer"):
            await record(counts, [2])
        await wait_until_up(counts)
        # The statement that waited has been ended, and other families go on.
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while await other.fetchval(waiting) != 0:
            await asyncio.sleep(0.02)
        assert await record(counts, [3], family=2) == []
    assert await record(counts, [3], NOW_MS + 1) == [1]
    await close(other)
    await counts.close()


async def test_commits_that_wait_for_a_replica_for_ever_are_an_outage(
    server: PostgresServer, url: str, quick: None
) -> None:
    """Connecting works all the while; that alone must not count as being back."""
    counts = await PostgresCounts.open(url)
    server.execute("ALTER SYSTEM SET synchronous_standby_names = 'missing'")
    server.execute("SELECT pg_reload_conf()")
    while server.execute("SHOW synchronous_standby_names") != "missing":
        await asyncio.sleep(0.02)
    try:
        with pytest.raises(KmsFastError, match="did not answer"):
            await record(counts, [1])
        await asyncio.sleep(1)
        fail_at_once(record(counts, [2]))
    finally:
        server.execute("ALTER SYSTEM RESET synchronous_standby_names")
        server.execute("SELECT pg_reload_conf()")
    await wait_until_up(counts)
    await record(counts, [2], NOW_MS + 1)
    assert server.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'kms-fast%'") == "1"
    await counts.close()


async def test_a_cancelled_call_leaves_no_doubt(server: PostgresServer, url: str) -> None:
    counts, other = await PostgresCounts.open(url), await connect(url)
    await record(counts, [1])
    async with other.transaction():
        await other.execute("SELECT FROM kms_fast.families WHERE family = 1 FOR UPDATE")
        call = asyncio.ensure_future(record(counts, [2]))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    # The next call waits for the cancelled one's statement and reads its own answer.
    assert await record(counts, [3], NOW_MS + 1) == [1, 2]
    await close(other)
    await counts.close()


async def test_a_network_that_is_gone(server: PostgresServer, url: str, quick: None) -> None:
    """Nothing comes back and nothing is refused, as behind a firewall that drops."""
    async with Gate(server.port) as gate:
        counts = await PostgresCounts.open(url.replace(str(server.port), str(gate.port)))
        await record(counts, [1])
        gate.is_open.clear()
        with pytest.raises(KmsFastError, match="did not answer"):
            await record(counts, [2])
        await asyncio.sleep(1.5)
        fail_at_once(record(counts, [2]))
        gate.is_open.set()
        await wait_until_up(counts)
        assert await record(counts, [3], NOW_MS + 1) in ([1], [1, 2])
        await counts.close()


async def test_closing_while_the_server_hangs(server: PostgresServer, url: str, quick: None) -> None:
    counts = await PostgresCounts.open(url)
    server.freeze()
    with pytest.raises(KmsFastError):
        await record(counts, [1])
    await counts.close()
    fail_at_once(record(counts, [1]))
    server.thaw()


@pytest.mark.timeout(300)
async def test_nothing_that_was_acknowledged_is_lost(server: PostgresServer, url: str, quick: None) -> None:
    """Four users record without pause while the server is killed, frozen and restarted."""
    users = [await PostgresCounts.open(url) for _ in range(4)]
    acknowledged: set[int] = set()
    refused: set[int] = set()
    ended = False

    async def ask(user: int) -> None:
        number = user
        while not ended:
            number += 4
            try:
                await record(users[user], [number], NOW_MS + number, cap=1 << 20)
                acknowledged.add(number)
            except KmsFastError:
                refused.add(number)
                await asyncio.sleep(0.01)

    asking = [asyncio.create_task(ask(user)) for user in range(4)]
    for turn in range(9):
        known = len(acknowledged)
        while len(acknowledged) < known + 50:
            await asyncio.sleep(0.01)
        for act in [(server.kill, server.start), (server.freeze, server.thaw), (server.stop, server.start)][turn % 3]:
            await asyncio.to_thread(act)
            if act == server.freeze:
                await asyncio.sleep(1.1)
    ended = True
    await asyncio.gather(*asking)
    rows = await load_once_up(users[0], NOW_MS + 10**6, cap=1 << 20)
    stored = {int.from_bytes(row[0], "big") for row in rows}
    assert acknowledged - stored == set()
    assert refused != set()
    for user in users:
        await user.close()


async def test_a_call_that_may_take_long_is_not_cut_by_one_that_waits_for_it(url: str, quick: None) -> None:
    session = await PostgresSession.open(url, limit_s=0.2)

    async def sleep(connection: asyncpg.Connection) -> object:
        return await connection.fetchval("SELECT 7 FROM pg_sleep(1)")

    async def look(connection: asyncpg.Connection) -> object:
        return await connection.fetchval("SELECT 8")

    long = asyncio.create_task(session.run(sleep, limit_s=60))
    await asyncio.sleep(0)
    with pytest.raises(KmsFastError, match=r"did not answer within 0\.2 s"):
        await session.run(look)
    assert await long == 7
    assert await session.run(look) == 8
    await session.close()


async def test_a_hanging_call_that_nobody_waits_for_is_found(server: PostgresServer, url: str, quick: None) -> None:
    counts = await PostgresCounts.open(url)
    server.freeze()
    call = asyncio.ensure_future(record(counts, [1]))
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(KmsFastError, match="did not answer"):
        await record(counts, [2])
    fail_at_once(record(counts, [2]))
    server.thaw()
    await wait_until_up(counts)
    await counts.close()


async def test_a_defect_of_a_call_is_raised_as_it_is(url: str) -> None:
    session = await PostgresSession.open(url, limit_s=1.0)

    async def work(connection: asyncpg.Connection) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await session.run(work)
    await session.close()


class Gate:
    """A TCP proxy in front of a port of this machine that can keep everything back."""

    def __init__(self, port: int) -> None:
        self._to_port = port
        self.is_open = asyncio.Event()
        self.is_open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Gate":
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        self._tasks |= {
            asyncio.create_task(self._pass_on(reader, far_writer)),
            asyncio.create_task(self._pass_on(far_reader, writer)),
        }

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self.is_open.wait()
            writer.write(data)
        writer.close()
