"""How fast a PostgreSQL store counts and records: ``python bench/shared_store.py --clients 1000000``.

Counts machines of one family from several connections at once, fills an inventory with clients of random CMIDs, and
renews random ones of them. Without --store it starts a PostgreSQL server of its own here, with durable commits.
"""

import asyncio
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import checkout  # noqa: F401
import click

from kms_fast.store import ChangeRow, Client
from kms_fast.store.postgres_counts import PostgresCounts
from kms_fast.store.postgres_database import create_database, drop_database
from kms_fast.store.postgres_inventory import PostgresInventory
from tests.postgres import PostgresServer, find_programs

HOST, SKU = b"h" * 16, b"s" * 16
NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000
# What a server for a fleet of millions would have; the default of 128 MB is for a laptop of long ago.
SERVER = {"shared_buffers": "2GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min", "wal_compression": "on"}


@click.command
@click.option("--store", metavar="URL", help="A server on which databases may be created; else one is started here.")
@click.option("--clients", default=1_000_000, show_default=True, help="Machines that ask once.")
@click.option("--renewals", default=1_000_000, show_default=True, help="Requests of known machines after that.")
@click.option("--rows", default=200_000, show_default=True, help="Rows of one transaction of the recorder.")
@click.option("--calls", default=2_000, show_default=True, help="Count transactions, for each number of connections.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(store: str | None, clients: int, renewals: int, rows: int, calls: int, as_json: bool) -> None:
    """Measure a PostgreSQL store."""
    with ExitStack() as stack:
        if store is None:
            programs = find_programs()
            if programs is None:
                raise click.ClickException("PostgreSQL is not installed; name a server with --store.")
            store = stack.enter_context(PostgresServer(programs, **SERVER)).url()
        measured = asyncio.run(measure(store, clients, renewals, rows, calls))
    print(json.dumps(measured) if as_json else "\n".join(f"{name:44} {value:>14,}" for name, value in measured.items()))


async def measure(store: str, clients: int, renewals: int, rows: int, calls: int) -> dict[str, Any]:
    """All figures by name."""
    url = await create_database(store)
    try:
        counted = await measure_counts(url, calls)
        return counted | await measure_inventory(url, clients, renewals, rows)
    finally:
        await drop_database(store, url)


async def measure_counts(url: str, calls: int) -> dict[str, Any]:
    """Count transactions of one family below its cap, where they take turns: batches of 25 of its 40 machines."""
    figures: dict[str, Any] = {}
    machines = [random.randbytes(16) for _ in range(40)]
    for connections in (1, 4, 16):
        users = [await PostgresCounts.open(url) for _ in range(connections)]
        times_s: list[float] = []

        async def count(user: PostgresCounts, number: int, times_s: list[float] = times_s) -> None:
            for turn in range(number):
                cmids = random.sample(machines, 25)
                started_s = time.perf_counter()
                await user.record(1, cmids, NOW_MS + turn, cap=50, retention_ms=30 * DAY_MS)
                times_s.append(time.perf_counter() - started_s)

        started_s = time.perf_counter()
        await asyncio.gather(*(count(user, calls // connections) for user in users))
        spent_s = time.perf_counter() - started_s
        figures[f"count transactions/s, {connections} connections"] = round(len(times_s) / spent_s)
        figures[f"… median µs, {connections} connections"] = round(statistics.median(times_s) * 1e6)
        for user in users:
            await user.close()
    return figures


async def measure_inventory(url: str, clients: int, renewals: int, rows: int) -> dict[str, Any]:
    """Records a second of new clients and of renewals, and what pages and summaries take."""
    inventory = await PostgresInventory.open(url)
    assert await inventory.elect(HOST)
    keys = os.urandom(16 * clients)

    def key(number: int) -> bytes:
        return keys[16 * number : 16 * number + 16]

    new_s = await record(inventory, (sorted(map(key, part)) for part in split(range(clients), rows)), NOW_MS)
    chosen = random.choices(range(clients), k=renewals)
    known_s = await record(
        inventory, (sorted(set(map(key, part))) for part in split(chosen, rows)), NOW_MS + 7 * DAY_MS
    )
    figures = {
        "new clients/s": round(clients / new_s),
        "renewals/s": round(renewals / known_s) if renewals else None,
        "ms for a page by CMID": await spend_ms(lambda: inventory.find(limit=100)),
        "ms for a page by name": await spend_ms(lambda: inventory.find(name="desk-5", limit=100)),
        "ms for a page of another state": await spend_ms(lambda: inventory.find(state=5, limit=100)),
        "ms for counting everything": await spend_ms(lambda: inventory.summarize(NOW_MS)),
    }
    size = await inventory._fetch("SELECT pg_total_relation_size('kms_fast.clients')")
    figures["bytes a client, with indexes"] = round(size[0][0] / clients)
    await inventory.close()
    return figures


async def record(inventory: PostgresInventory, parts: Iterator[list[bytes]], time_ms: int) -> float:
    """Record parts of sorted CMIDs; the seconds without those in which the rows were made."""
    spent_s = 0.0
    for cmids in parts:
        rows = [make_row(cmid, time_ms) for cmid in cmids]
        started_s = time.perf_counter()
        await inventory.record(HOST, rows, [], [])
        spent_s += time.perf_counter() - started_s
    return spent_s


def make_row(cmid: bytes, time_ms: int) -> ChangeRow:
    """A grant for a machine that says the same each time."""
    return Client(
        cmid=cmid, sku=SKU, first_seen_ms=time_ms, last_seen_ms=time_ms, activations=1, activated_ms=time_ms,
        expires_ms=time_ms + 180 * DAY_MS, refusals=0, refused_ms=None, refusal=None, state=1,
        name=f"desk-{cmid[:4].hex()}", address=cmid[:4], hardware=cmid, hardware_changes=0,
        predecessor=cmid + time_ms.to_bytes(16, "big"), previous_cmid=None, virtual=0, library_version=1,
    ).to_change()  # fmt: skip


def split(numbers: Any, size: int) -> Iterator[Any]:
    """Parts of a sequence, each of this size but the last."""
    return (numbers[at : at + size] for at in range(0, len(numbers), size))


async def spend_ms(call: Callable[[], Any]) -> float:
    """The milliseconds of a call, the best of three."""
    times_s = []
    for _ in range(3):
        started_s = time.perf_counter()
        await call()
        times_s.append(time.perf_counter() - started_s)
    return round(min(times_s) * 1000, 1)


if __name__ == "__main__":
    main()
