"""A synchronous standby that takes over: what was acknowledged is there, and sessions find it by themselves."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from kms_fast.errors import KmsFastError
from kms_fast.store import Watermark, postgres
from kms_fast.store.postgres import migrate
from kms_fast.store.postgres_counts import PostgresCounts
from kms_fast.store.postgres_inventory import PostgresInventory
from tests.postgres import PostgresServer
from tests.store.contract import NOW_MS, load_once_up, record
from tests.store.inventory_contract import HOST, granted

MARK = Watermark(1, 4096, 1, b"x" * 32, NOW_MS)


@pytest.fixture
def primary(start_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    return start_postgres()


@pytest.fixture
def standby(primary: PostgresServer, start_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    """The primary's only standby, for which it waits at each commit."""
    standby = start_postgres(primary=primary)
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.execute("SELECT pg_reload_conf()")
    while primary.execute("SELECT sync_state FROM pg_stat_replication") != "sync":
        time.sleep(0.02)
    return standby


async def test_a_failover_loses_nothing(
    primary: PostgresServer, standby: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "ABANDON_S", 1.0)
    # The standby first: it is passed over until it is the primary.
    url = primary.url().replace("127.0.0.1", f"127.0.0.1:{standby.port},127.0.0.1", 1)
    await migrate(url)
    counts, inventory = await PostgresCounts.open(url), await PostgresInventory.open(url)
    assert await inventory.elect(HOST)
    for number in range(1, 61):
        await record(counts, [number], NOW_MS + number, cap=1000)
        await inventory.record(HOST, [granted(number)], [], [replace(MARK, number=number)])
    primary.kill()
    with pytest.raises(KmsFastError):
        await record(counts, [1000])
    standby.promote()
    # Of the call that failed it is not known whether it came through.
    assert len(await load_once_up(counts, NOW_MS + 1000, cap=1000)) in (60, 61)
    await inventory.close()
    inventory = await PostgresInventory.open(url)
    assert await inventory.elect(HOST)
    [mark] = await inventory.watermarks(HOST)
    assert (mark.number, len(await inventory.find(limit=1000))) == (60, 60)
    await counts.close()
    await inventory.close()
