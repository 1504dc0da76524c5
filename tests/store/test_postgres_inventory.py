"""The contract of the inventory over PostgreSQL, and what is its own."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from kms_fast.errors import KmsFastError
from kms_fast.store import Inventory, Total, Watermark
from kms_fast.store.postgres import close, connect, migrate
from kms_fast.store.postgres_inventory import PostgresInventory, _build_query
from tests.postgres import PostgresServer, own_database
from tests.store.inventory_contract import (
    HOST,
    NOW_MS,
    SKU,
    InventoryContract,
    OpenInventory,
    by_key,
    get,
    granted,
    refused,
)

MARK = Watermark(1, 4096, 1, b"x" * 32, NOW_MS)


class TestPostgresInventory(InventoryContract):
    @pytest.fixture
    def open_inventory(self, migrated_url: str) -> OpenInventory:
        async def open_inventory() -> Inventory:
            return await PostgresInventory.open(migrated_url)

        return open_inventory

    @pytest.fixture
    def open_other(self, postgres_server: PostgresServer) -> Iterator[OpenInventory]:
        with own_database(postgres_server) as url:

            async def open_other() -> Inventory:
                await migrate(url)
                return await PostgresInventory.open(url)

            yield open_other


@pytest.fixture
async def inventory(migrated_url: str) -> AsyncIterator[PostgresInventory]:
    inventory = await PostgresInventory.open(migrated_url)
    assert await inventory.elect(HOST)
    yield inventory
    await inventory.close()


async def test_hosts_that_record_the_same_machines_at_once_never_deadlock(migrated_url: str) -> None:
    """Six hosts, each with all machines in every transaction, and in its own order before they are sorted."""
    hosts = [bytes([number]) * 16 for number in range(6)]
    recorders = [await PostgresInventory.open(migrated_url) for _ in hosts]

    async def record_often(host_id: bytes, recorder: PostgresInventory) -> None:
        assert await recorder.elect(host_id)
        for turn in range(8):
            rows = by_key([granted(number, NOW_MS + turn) for number in range(500)])
            await recorder.record(host_id, rows, [Total(SKU, 0, 1, 500)], [replace(MARK, number=turn + 1)])

    await asyncio.gather(*(record_often(*pair) for pair in zip(hosts, recorders, strict=True)))
    clients = await recorders[0].find(limit=1000)
    assert {client.activations for client in clients} == {6 * 8}
    assert (await recorders[0].summarize(NOW_MS)).results == {0: 6 * 8 * 500}
    for recorder in recorders:
        await recorder.close()


async def test_unsorted_rows_deadlock(migrated_url: str) -> None:
    """The negative control: what the order of the merge prevents does happen without it."""
    first, second = await connect(migrated_url), await connect(migrated_url)
    insert = "INSERT INTO kms_fast.totals VALUES ($1, $1, 0, 0, 1) ON CONFLICT (host_id, sku, result, state) DO NOTHING"

    async def write(connection: asyncpg.Connection, *keys: bytes) -> None:
        async with connection.transaction():
            for key in keys:
                await connection.execute(insert, key)
                await asyncio.sleep(0.1)

    done = await asyncio.gather(write(first, b"a", b"b"), write(second, b"b", b"a"), return_exceptions=True)
    assert [type(error) for error in done if error is not None] == [asyncpg.DeadlockDetectedError]
    await close(first)
    await close(second)


async def test_whoever_lost_the_connection_records_nothing_before_a_new_election(
    inventory: PostgresInventory, postgres_server: PostgresServer, migrated_url: str
) -> None:
    await inventory.record(HOST, [granted(1)], [], [MARK])
    other = await PostgresInventory.open(migrated_url)
    assert not await other.elect(HOST)
    postgres_server.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
    while not await other.elect(HOST):
        await asyncio.sleep(0.02)
    await other.record(HOST, [granted(1)], [], [replace(MARK, number=2)])
    while inventory._session._down is not None:
        await asyncio.sleep(0.02)
    with pytest.raises(KmsFastError, match="elect again"):
        await inventory.record(HOST, [granted(1)], [], [replace(MARK, number=2)])
    assert not await inventory.elect(HOST)
    await other.close()
    while not await inventory.elect(HOST):
        await asyncio.sleep(0.02)
    assert (await get(inventory, 1)).activations == 2


async def test_a_transaction_that_fails_leaves_nothing(inventory: PostgresInventory) -> None:
    with pytest.raises(KmsFastError, match="violates not-null"):
        await inventory.record(HOST, [granted(1)], [], [replace(MARK, header_hash=None)])  # type: ignore[arg-type]
    assert (await inventory.find(), await inventory.watermarks(HOST)) == ([], [])
    await inventory.record(HOST, [granted(1)], [], [MARK])
    assert (len(await inventory.find()), await inventory.watermarks(HOST)) == (1, [MARK])


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({}, "clients_pkey"),
        ({"name": "desk"}, "clients_by_name"),
        ({"state": 5}, "clients_by_state"),
        ({"cloned": True}, "clients_cloned"),
    ],
)
@pytest.mark.parametrize("with_after", [False, True])
async def test_pages_are_found_through_an_index(
    inventory: PostgresInventory, wanted: dict[str, Any], index: str, with_after: bool
) -> None:
    """Otherwise each page would read all of millions of clients, or sort them."""
    rows = [granted(n, name=f"desk-{n:06}") for n in range(20_000)]
    await inventory.record(
        HOST, [*rows, *(refused(n, state=5, hardware_changes=1) for n in range(20_000, 20_100))], [], []
    )
    after = (await get(inventory, 20_050)).position if with_after else None
    query, values = _build_query(**{"name": None, "state": None, "cloned": False, "after": after} | wanted)
    await inventory._fetch("ANALYZE kms_fast.clients")
    plan = "\n".join(row[0] for row in await inventory._fetch(f"EXPLAIN {query} LIMIT 100", *values))
    assert index in plan
    assert "Sort" not in plan


async def test_renewals_touch_no_index(inventory: PostgresInventory) -> None:
    """As with millions of clients: each transaction renews a few of those that share a page."""
    await inventory.record(HOST, [granted(n) for n in range(1000)], [], [])
    for turn in range(20):
        await inventory.record(HOST, [granted(n, NOW_MS + turn) for n in range(turn, 1000, 20)], [], [])
    await inventory._fetch("SELECT pg_stat_force_next_flush()")
    counted = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'clients'"
    ((updates, without_index),) = await inventory._fetch(counted)
    assert updates == 1000
    assert without_index > 900
