"""The contract of counts over PostgreSQL, and what is its own."""

import asyncio

import asyncpg
import pytest

from kms_fast.store import Counts
from kms_fast.store.postgres import close, connect
from kms_fast.store.postgres_counts import PostgresCounts
from tests.store.contract import NOW_MS, RETENTION_MS, CountsContract, OpenCounts, cmid, load, record


class TestPostgresCounts(CountsContract):
    @pytest.fixture
    def open_counts(self, migrated_url: str) -> OpenCounts:
        async def open_counts() -> Counts:
            return await PostgresCounts.open(migrated_url)

        return open_counts


async def test_exactly_one_machine_is_the_first_to_be_granted(migrated_url: str) -> None:
    """Threshold 25, 16 users, 25 machines at once: a call per machine, repeated 200 times."""
    users = [await PostgresCounts.open(migrated_url) for _ in range(16)]
    for family in range(200):
        before = await asyncio.gather(*(record(users[n % 16], [n], NOW_MS, family=family, cap=50) for n in range(25)))
        assert sorted(map(len, before)) == list(range(25))
        assert [len(known) for known in before].count(24) == 1
        # What counted before is what was stored, in the order of arrival.
        longest = max(before, key=len)
        assert all(known == longest[: len(known)] for known in before)
    for user in users:
        await user.close()


async def test_a_large_batch_in_any_order_never_deadlocks(migrated_url: str) -> None:
    users = [await PostgresCounts.open(migrated_url) for _ in range(8)]
    machines = list(range(200))
    for turn in range(10):
        orders = [machines[step:] + machines[:step] if step % 2 else machines[::-1] for step in range(8)]
        await asyncio.gather(
            *(record(user, order, NOW_MS + turn, cap=200) for user, order in zip(users, orders, strict=True))
        )
    assert len(await load(users[0], NOW_MS + 10, cap=400)) == 200
    for user in users:
        await user.close()


async def test_a_call_is_one_statement(migrated_url: str) -> None:
    counts = await PostgresCounts.open(migrated_url)
    await record(counts, [1])
    queries: list[str] = []

    async def watch(connection: asyncpg.Connection) -> None:
        connection.add_query_logger(lambda logged: queries.append(logged.query))

    await counts._session.run(watch)
    await record(counts, [1, 2])
    await counts.close()
    assert len(queries) == 1


async def test_a_snapshot_from_before_the_lock_is_refused(migrated_url: str) -> None:
    """The negative control of exactness: under another isolation level two calls would see the same count."""
    connection = await connect(migrated_url)
    with pytest.raises(asyncpg.RaiseError, match="isolation level"):
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetch("SELECT * FROM kms_fast.record_counts(1, $1, $2, 0, 50)", [cmid(1)], [NOW_MS])
    await close(connection)


async def test_the_isolation_level_does_not_depend_on_the_server(migrated_url: str) -> None:
    connection = await connect(migrated_url)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    await close(connection)
    counts = await PostgresCounts.open(migrated_url)
    assert await record(counts, [1]) == []
    assert await counts.load(1, NOW_MS, cap=50, retention_ms=RETENTION_MS) == [(cmid(1), NOW_MS)]
    await counts.close()
