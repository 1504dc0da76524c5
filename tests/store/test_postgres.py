"""Connections to PostgreSQL: which servers are refused, and what happens while one is away."""

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import asyncpg
import pytest

from kms_fast.errors import KmsFastError
from kms_fast.store import Total, Watermark, postgres
from kms_fast.store.check import check_postgres
from kms_fast.store.postgres import PostgresSession, close, connect, migrate
from kms_fast.store.postgres_counts import PostgresCounts
from kms_fast.store.postgres_inventory import PostgresInventory
from kms_fast.store.postgres_schema import VERSION
from tests.conftest import ROOT
from tests.postgres import PASSWORD, PostgresServer
from tests.store.contract import NOW_MS, cmid, load, load_once_up, record
from tests.store.inventory_contract import HOST, SKU, granted

DATABASE = "postgres"


@pytest.fixture(scope="module")
def server(start_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    """A server of this module's own, which it stops, kills and configures."""
    return start_postgres()


@pytest.fixture
async def url(server: PostgresServer) -> str:
    """URL of that server's database, with new tables."""
    server.execute("DROP SCHEMA IF EXISTS kms_fast CASCADE")
    await migrate(server.url())
    return server.url()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outages in short: a call that hangs keeps its connection for a moment only."""
    monkeypatch.setattr(postgres, "ABANDON_S", 0.2)
    monkeypatch.setattr(postgres, "CONNECT_LIMIT_S", 1.0)
    monkeypatch.setattr(postgres, "LONGEST_PAUSE_S", 0.2)


@pytest.fixture(autouse=True)
def no_password_is_told(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert PASSWORD not in caplog.text


async def refusal(url: str) -> KmsFastError:
    with pytest.raises(KmsFastError) as caught:
        await PostgresCounts.open(url)
    assert PASSWORD not in f"{caught.value!r} {caught.value.to_json()}"
    return caught.value


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
    return [entry.message for entry in caplog.records if entry.name == "kms_fast.store.postgres" and entry.levelno > 10]


# Servers that are refused.


async def test_a_server_that_does_not_sync_is_refused(start_postgres: Callable[..., PostgresServer]) -> None:
    unsafe = start_postgres(fsync="off")
    error = await refusal(unsafe.url())
    assert (error.result.name, "fsync is off" in error.message) == ("STORE_UNAVAILABLE", True)


async def test_a_database_that_cannot_hold_every_name_is_refused(server: PostgresServer) -> None:
    server.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    error = await refusal(server.url("latin"))
    assert (error.result.name, "its encoding is LATIN1" in error.message) == ("STORE_UNAVAILABLE", True)
    server.execute("DROP DATABASE latin")


@pytest.mark.parametrize("level", ["server", "database", "role", "session"])
async def test_asynchronous_commit_is_refused_at_every_level(server: PostgresServer, url: str, level: str) -> None:
    set_and_reset = {
        "server": ("ALTER SYSTEM SET synchronous_commit = off", "ALTER SYSTEM RESET synchronous_commit"),
        "database": (f"ALTER DATABASE {DATABASE} SET synchronous_commit = off", f"ALTER DATABASE {DATABASE} RESET ALL"),
        "role": ("ALTER ROLE kms SET synchronous_commit = off", "ALTER ROLE kms RESET ALL"),
    }
    if level == "session":
        error = await refusal(f"{url}?synchronous_commit=off")
    else:
        change, reset = set_and_reset[level]
        server.execute(change)
        server.execute("SELECT pg_reload_conf()")
        try:
            error = await refusal(url)
        finally:
            server.execute(reset)
            server.execute("SELECT pg_reload_conf()")
    assert (error.result.name, "synchronous_commit is off" in error.message) == ("STORE_UNAVAILABLE", True)


@pytest.mark.parametrize("level", ["local", "remote_write", "on", "remote_apply"])
async def test_every_other_level_of_commit_is_fine(url: str, level: str) -> None:
    counts = await PostgresCounts.open(f"{url}?synchronous_commit={level}")
    assert await record(counts, [1]) == []
    await counts.close()


async def test_an_old_server_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "OLDEST_VERSION", 99)
    assert "at least 99 is needed" in (await refusal(url)).message


async def test_a_read_only_server_is_refused(url: str) -> None:
    assert "standby or read-only" in (await refusal(f"{url}?default_transaction_read_only=on")).message


async def test_tables_of_another_version_are_refused(server: PostgresServer, url: str) -> None:
    server.execute("UPDATE kms_fast.schema_version SET version = version + 1")
    error = await refusal(url)
    assert (error.result.name, error.details) == ("STORE_VERSION", {"version": VERSION + 1, "needed": VERSION})
    with pytest.raises(KmsFastError, match="this program needs version"):
        await migrate(url)
    server.execute("DROP SCHEMA kms_fast CASCADE")
    error = await refusal(url)
    assert (error.result.name, "no tables" in error.message) == ("STORE_VERSION", True)


async def test_who_is_not_let_in_is_told_why(server: PostgresServer) -> None:
    for url, reason in [
        (server.url(password="wrong"), "password authentication failed"),
        (server.url("no_such_database"), "does not exist"),
        (f"postgresql://kms:{PASSWORD}@127.0.0.1:1/kms", "Connect call failed"),
        (f"postgresql://kms:{PASSWORD}@no-such-host.invalid/kms", "no-such-host.invalid"),
        (f"postgresql://kms:{PASSWORD}/x@127.0.0.1/kms", "not understood"),
        (f"{server.url()}?sslmode=maybe", "sslmode"),
    ]:
        error = await refusal(url)
        assert (error.result.name, reason in error.message) == ("STORE_UNAVAILABLE", True), error.message


async def test_a_role_without_rights_is_told_which(server: PostgresServer, url: str) -> None:
    server.execute("DROP ROLE IF EXISTS stranger")
    server.execute(f"CREATE ROLE stranger LOGIN PASSWORD '{PASSWORD}'")
    error = await refusal(server.url(user="stranger"))
    assert (error.result.name, "permission denied" in error.message) == ("STORE_UNAVAILABLE", True)


async def test_a_unix_socket(server: PostgresServer, url: str) -> None:
    counts = await PostgresCounts.open(
        f"postgresql://kms:{PASSWORD}@/{DATABASE}?host={server.folder}&port={server.port}"
    )
    assert await record(counts, [1]) == []
    await counts.close()


async def test_a_server_that_hangs_leaves_time_for_the_next(
    server: PostgresServer, url: str, quick: None, start_postgres: Callable[..., PostgresServer]
) -> None:
    other = start_postgres()
    await migrate(other.url())
    server.freeze()
    both = url.replace(str(server.port), f"{server.port},127.0.0.1:{other.port}")
    counts = await PostgresCounts.open(both)
    assert await record(counts, [1]) == []
    await counts.close()
    server.thaw()


async def test_the_next_server_of_a_url_is_tried(server: PostgresServer, url: str) -> None:
    both = url.replace("127.0.0.1", "127.0.0.1:1,127.0.0.1", 1)
    counts = await PostgresCounts.open(both)
    assert await record(counts, [1]) == []
    await counts.close()


async def test_the_documented_rights_are_enough_and_no_more(server: PostgresServer) -> None:
    """What docs/store.md tells to run: the owner migrates, the host counts and records, and cannot change tables."""
    text = (ROOT / "docs" / "store.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```sql\n(.*?)```", text.split("<!-- roles -->")[1], re.DOTALL)
    for statement in filter(str.strip, first.split(";")):
        server.execute(statement)
    server.execute(second, "kms_fast")
    for role in ("kms_fast_owner", "kms_fast_host"):
        server.execute(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
    assert await migrate(server.url("kms_fast", user="kms_fast_owner")) == 0
    url = server.url("kms_fast", user="kms_fast_host")
    counts, inventory = await PostgresCounts.open(url), await PostgresInventory.open(url)
    await record(counts, [1])
    assert len(await load(counts)) == 1
    assert await inventory.elect(HOST)
    await inventory.record(HOST, [granted(1)], [Total(SKU, 0, 1, 1)], [Watermark(1, 4096, 1, b"x" * 32, NOW_MS)])
    await inventory.summarize(NOW_MS)
    assert [len(await inventory.find()), await inventory.forget(cmid(1))] == [1, 1]
    assert [problem async for problem in check_postgres(url)] == []
    await counts.close()
    await inventory.close()
    connection = await connect(url)
    for statement in ("DROP TABLE kms_fast.counts", "CREATE TABLE kms_fast.x ()", "TRUNCATE kms_fast.clients"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await close(connection)
    server.execute("UPDATE kms_fast.schema_version SET version = 1", "kms_fast")
    with pytest.raises(KmsFastError, match="cannot be migrated: permission denied"):
        await migrate(url)


# Outages.


async def test_migrations_at_once_are_one(server: PostgresServer) -> None:
    server.execute("DROP SCHEMA IF EXISTS kms_fast CASCADE")
    await asyncio.gather(*(migrate(server.url()) for _ in range(8)))
    assert server.execute("SELECT version FROM kms_fast.schema_version") == str(VERSION)


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
