"""The inventory with ten million known clients: how fast the recorder takes up renewals, how fast pages are found.

    python bench/inventory.py [--json] [--clients N] [--records N] [--rounds N]

Random CMIDs, all documented indexes. Large files lie in a folder under /var/tmp, which is removed at the end.
"""

import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from program import Say, run_program
from rows import Table
from servers import make_folder

from kms_fast.host.recorder import ROOM_RECORDS, Recorder
from kms_fast.store import ChangeRow, Inventory, Position, Total
from kms_fast.store.sqlite_inventory import SqliteInventory
from tests.segments import HOST_ID, SKU, SegmentWriter, hash_said, make_entry

NOW_MS: Final = 1_800_000_000_000
WEEK_MS: Final = 7 * 86_400_000
VALIDITY_MS: Final = 180 * 86_400_000
BATCH: Final = 200
FILL_ROWS: Final = 1_000_000
PAGE_CLIENTS: Final = 100
# One machine of so many is not licensed.
NOT_LICENSED_EVERY: Final = 200
CLONED_EVERY: Final = 10_000
DASHBOARD: Final = ("page", "prefix", "state", "summary")  # the queries that `dashboard_ms` is the slowest of


def name_of(cmid: bytes) -> str:
    return f"desk-{cmid[:4].hex()}"


def make_row(cmid: bytes, number: int) -> ChangeRow:
    """A client that has been renewing for some weeks; a few are not licensed, or cloned."""
    state = 1 if number % NOT_LICENSED_EVERY else (2, 3, 5)[number // NOT_LICENSED_EVERY % 3]
    refused_ms, refusal = (None, None) if state == 1 else (NOW_MS, 0xC004F06C)
    return (
        cmid, SKU, NOW_MS - 10 * WEEK_MS, 10, NOW_MS - WEEK_MS, NOW_MS - WEEK_MS + VALIDITY_MS,
        0 if state == 1 else 1, refused_ms, refusal, state, name_of(cmid), cmid[:4], cmid, cmid,
        0 if number % CLONED_EVERY else 3, cmid + cmid, None, 0, 1 << 24,
        hash_said(make_renewal(cmid)) if state == 1 else None,
    )  # fmt: skip


def make_renewal(cmid: bytes) -> bytes:
    """A ledger entry that says what is known, and names another predecessor."""
    peer = bytes(10) + b"\xff\xff" + cmid[:4]
    return make_entry(cmid, hardware=cmid, name=name_of(cmid).encode(), predecessor=os.urandom(32), state=1, peer=peer)


async def fill(path: Path, cmids: list[bytes], say: Say) -> None:
    """Record all clients, in the order in which they came: random."""
    inventory = SqliteInventory(path)
    for start in range(0, len(cmids), FILL_ROWS):
        numbers = sorted(range(start, min(start + FILL_ROWS, len(cmids))), key=cmids.__getitem__)
        rows = [make_row(cmids[number], number) for number in numbers]
        await inventory.record(HOST_ID, rows, [Total(SKU, 0, 1, 10 * len(rows))], [])
        say(f"{start + len(rows):,} clients")
    await inventory.close()


def write_ledger(folder: Path, cmids: list[bytes], records: int, chance: random.Random) -> None:
    """A segment of renewals of random clients."""
    with SegmentWriter(folder, 1) as segment:
        for start in range(0, records, BATCH):
            asked = (chance.choice(cmids) for _ in range(min(BATCH, records - start)))
            segment.append([make_renewal(cmid) for cmid in asked], NOW_MS + start)


async def measure_recorder(home: Path, records: int) -> dict[str, float]:
    """Run a recorder over the whole ledger, as it runs beside a host: with its checkpoints and summaries."""

    async def open_inventory() -> Inventory:
        return SqliteInventory(home / "inventory.db")

    recorder = Recorder(folder=home / "ledger", host_id=HOST_ID, open_inventory=open_inventory, clock_ms=lambda: NOW_MS)
    recorder.drain()
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    await recorder.run(lambda: None)
    took_s = time.perf_counter() - started_s
    if recorder.recorded != records:
        raise RuntimeError(f"{recorder.recorded} of {records} records were recorded")
    return {
        "recorder_per_s": records / took_s,
        "recorder_cpu_us": (time.process_time() - started_cpu_s) * 1e6 / records,
    }


async def measure_dashboard(
    table: Table, path: Path, cmids: list[bytes], chance: random.Random, rounds: int
) -> dict[str, float]:
    """Times of each query behind a dashboard over random places, in ms; the median of each."""
    inventory = SqliteInventory(path)
    started_s = time.perf_counter()
    await inventory.keep_summary(await inventory.summarize(NOW_MS))
    table.add({"query": "counting everything anew"}, {"ms": (time.perf_counter() - started_s) * 1000})

    def at() -> Position:
        # in the first half, where a small inventory too has something behind every place
        return Position(bytes([chance.randrange(128)]) + chance.randbytes(15), SKU)

    queries: dict[str, Callable[[], Awaitable[Any]]] = {
        "page": lambda: inventory.find(after=at(), limit=PAGE_CLIENTS),
        "prefix": lambda: inventory.find(name=name_of(chance.choice(cmids))[:8].upper(), limit=PAGE_CLIENTS),
        "state": lambda: inventory.find(state=5, after=at(), limit=PAGE_CLIENTS),
        "cloned": lambda: inventory.find(cloned=True, after=at(), limit=PAGE_CLIENTS),
        "client": lambda: inventory.get(chance.choice(cmids)),
        "summary": inventory.summary,
    }
    medians = {}
    for name, query in queries.items():
        times = []
        for _ in range(rounds):
            started_s = time.perf_counter()
            found = await query()
            times.append((time.perf_counter() - started_s) * 1000)
            table.add({"query": name}, {"ms": times[-1]})
            if not found:
                raise RuntimeError(f"{name} found nothing")
        medians[name] = statistics.median(times)
    await inventory.close()
    return medians


async def measure(say: Say, clients: int, records: int, rounds: int) -> dict[str, Any]:
    """The report, without its machine."""
    table, chance = Table(), random.Random(1)
    with make_folder() as home:
        cmids = [chance.randbytes(16) for _ in range(clients)]
        await fill(home / "inventory.db", cmids, say)
        say(f"writing {records:,} renewals")
        write_ledger(home / "ledger", cmids, records, chance)
        say("recording")
        recorded = await measure_recorder(home, records)
        table.add({"recorder": "renewals"}, recorded)
        say("queries")
        medians = await measure_dashboard(table, home / "inventory.db", cmids, chance, rounds)
        file_bytes = (home / "inventory.db").stat().st_size
    table.add({"inventory": "file"}, {"bytes_per_client": file_bytes / clients})
    return {
        "recorder_per_s": round(recorded["recorder_per_s"]),
        "dashboard_ms": round(max(medians[name] for name in DASHBOARD), 2),
        "clients": clients,
        "records": records,
        "records_in_a_transaction": ROOM_RECORDS,
        "table": table,
    }


def run(say: Say, *, clients: int, records: int, rounds: int) -> dict[str, Any]:
    """The report, without its machine."""
    return asyncio.run(measure(say, clients, records, rounds))


if __name__ == "__main__":
    sys.exit(
        run_program(
            __doc__,
            run,
            clients=(10_000_000, "known clients"),
            records=(4 * ROOM_RECORDS, "renewals to record"),
            rounds=(50, "how often each query is asked"),
        )
    )
