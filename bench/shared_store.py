"""How fast a PostgreSQL store counts and records.

    python bench/shared_store.py [--json] [--store URL] [--clients N] [--renewals N] [--rows N] [--calls N]

Counts machines of one family from several connections at once, fills an inventory with clients of random CMIDs, and
renews random ones of them. Without --store it starts a PostgreSQL server of its own here, with durable commits.
"""

import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any

from program import MachineLacks, Say, run_program
from rows import Table

from kms_fast.store import ChangeRow, Client
from kms_fast.store.postgres_counts import PostgresCounts
from kms_fast.store.postgres_database import create_database, drop_database
from kms_fast.store.postgres_inventory import PostgresInventory
from tests.postgres import PostgresServer, find_programs

HOST, SKU = b"h" * 16, b"s" * 16
NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000
ROUNDS = 5
# What a server for a fleet of millions would have; the default of 128 MB is for a laptop of long ago.
SERVER = {"shared_buffers": "2GB", "max_wal_size": "8GB", "checkpoint_timeout": "15min", "wal_compression": "on"}


def run(say: Say, *, store: str, clients: int, renewals: int, rows: int, calls: int) -> dict[str, Any]:
    """The report, without its machine."""
    with ExitStack() as stack:
        if not store:
            programs = find_programs()
            if programs is None:
                raise MachineLacks("PostgreSQL is not installed; install it or name a server with --store")
            say("starting a PostgreSQL server")
            store = stack.enter_context(PostgresServer(programs, **SERVER)).url()
        table = asyncio.run(measure(say, store, clients, renewals, rows, calls))
    return {"clients": clients, "renewals": renewals, "rows_in_a_transaction": rows, "table": table}


async def measure(say: Say, store: str, clients: int, renewals: int, rows: int, calls: int) -> Table:
    """Everything, in a database that is made for it."""
    table, url = Table(), await create_database(store)
    try:
        say(f"counting, {calls:,} transactions")
        await measure_counts(table, url, calls)
        await measure_inventory(say, table, url, clients, renewals, rows)
    finally:
        await drop_database(store, url)
    return table


async def measure_counts(table: Table, url: str, calls: int) -> None:
    """Count transactions of one family below its cap, where they take turns: batches of 25 of its 40 machines."""
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

        for _ in range(ROUNDS):
            times_s.clear()
            started_s = time.perf_counter()
            await asyncio.gather(*(count(user, calls // connections // ROUNDS) for user in users))
            per_s = len(times_s) / (time.perf_counter() - started_s)
            median_us = statistics.median(times_s) * 1e6
            table.add({"counting, connections": connections}, {"transactions_per_s": per_s, "median_us": median_us})
        for user in users:
            await user.close()


async def measure_inventory(say: Say, table: Table, url: str, clients: int, renewals: int, rows: int) -> None:
    """Records a second of new clients and of renewals, and what pages and summaries take."""
    inventory = await PostgresInventory.open(url)
    assert await inventory.elect(HOST)
    keys = os.urandom(16 * clients)

    def key(number: int) -> bytes:
        return keys[16 * number : 16 * number + 16]

    say(f"recording {clients:,} new clients")
    for part in split(range(clients), rows):
        spent_s = await record(inventory, sorted(map(key, part)), NOW_MS)
        table.add({"recording": "new clients"}, {"records_per_s": len(part) / spent_s})
    say(f"recording {renewals:,} renewals")
    for part in split(random.choices(range(clients), k=renewals), rows):
        spent_s = await record(inventory, sorted(set(map(key, part))), NOW_MS + 7 * DAY_MS)
        table.add({"recording": "renewals"}, {"records_per_s": len(part) / spent_s})
    say("queries")
    queries: dict[str, Callable[[], Awaitable[Any]]] = {
        "page by CMID": lambda: inventory.find(limit=100),
        "page by name": lambda: inventory.find(name="desk-5", limit=100),
        "page of another state": lambda: inventory.find(state=5, limit=100),
        "counting everything": lambda: inventory.summarize(NOW_MS),
    }
    for name, query in queries.items():
        for _ in range(ROUNDS):
            started_s = time.perf_counter()
            await query()
            table.add({"query": name}, {"ms": (time.perf_counter() - started_s) * 1000})
    size = await inventory._fetch("SELECT pg_total_relation_size('kms_fast.clients')")
    table.add({"inventory": "table with its indexes"}, {"bytes_per_client": size[0][0] / clients})
    await inventory.close()


async def record(inventory: PostgresInventory, cmids: list[bytes], time_ms: int) -> float:
    """Record sorted CMIDs in one transaction; the seconds without those in which the rows were made."""
    rows = [make_row(cmid, time_ms) for cmid in cmids]
    started_s = time.perf_counter()
    await inventory.record(HOST, rows, [], [])
    return time.perf_counter() - started_s


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


if __name__ == "__main__":
    sys.exit(
        run_program(
            __doc__,
            run,
            store=("", "URL of a server on which databases may be created; else one is started here"),
            clients=(1_000_000, "machines that ask once"),
            renewals=(1_000_000, "requests of known machines after that"),
            rows=(200_000, "rows of one transaction of the recorder"),
            calls=(10_000, "count transactions, for each number of connections"),
        )
    )
