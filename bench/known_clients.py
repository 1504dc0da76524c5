"""Whether millions of known clients slow a host down: its rate beside a recorder that keeps them, and without any.

    python bench/known_clients.py [--json] [--clients N] [--rounds N] [--seconds S]

Two hosts with all of their processes on one core, the load on the other. One host gets an activation of every client
first, which its recorder takes up; then both are loaded in turn, each stopped while the other is measured.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machine import describe_machine
from samples import Server, make_plan, measure
from servers import run_host

from kms_fast.cli.stores import open_inventory
from kms_fast.host.enrolment import read_host_id
from kms_fast.load.processes import run_load
from kms_fast.load.server import list_processes
from kms_fast.model.settings import HostSettings

LAST_BATCH_MS = 1_000  # a load ends less than this after its last batch was signed
SUMMARY_S = 60.0  # the recorder makes one every 10 seconds, and later when that takes long


def read_clock_ms() -> int:
    return time.time_ns() // 1_000_000


@contextmanager
def stopped(host: Server) -> Iterator[None]:
    """A host's processes stand still while the block runs: they share its core with another host."""
    processes = list_processes(host.pid)
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


async def read_recorded_ms(home: Path) -> int:
    """The time (ms) of the newest batch that is recorded, 0 before the first."""
    inventory = await open_inventory(HostSettings(), home)
    try:
        watermarks = await inventory.watermarks(read_host_id(home / "host"))
        return max((mark.time_ms for mark in watermarks), default=0)
    finally:
        await inventory.close()


async def read_client_count(home: Path) -> int:
    """The clients of the recorder's newest summary, 0 before the first."""
    inventory = await open_inventory(HostSettings(), home)
    try:
        summary = await inventory.summary()
        return 0 if summary is None else sum(number for _, number in summary.products)
    finally:
        await inventory.close()


def wait_for_recorder(home: Path, ended_ms: int) -> float:
    """Until the recorder has taken up what was signed until a load ended (ms); how long that took, in s."""
    started_s = time.monotonic()
    while asyncio.run(read_recorded_ms(home)) < ended_ms - LAST_BATCH_MS:
        time.sleep(1.0)
    return time.monotonic() - started_s


def wait_for_summary(home: Path, clients: int) -> None:
    """Until the inventory's summary counts all clients."""
    deadline_s = time.monotonic() + SUMMARY_S
    while (found := asyncio.run(read_client_count(home))) < clients:
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"the inventory has {found:,} of {clients:,} clients")
        time.sleep(1.0)


def run(clients: int, rounds: int, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """The object of ``--json``."""
    started_s = time.monotonic()
    ratios, known_rates, none_rates = [], [], []
    with tempfile.TemporaryDirectory(prefix="kms-fast-known-", dir="/var/tmp") as folder:
        homes = Path(folder) / "known", Path(folder) / "none"
        with run_host(homes[0]) as known, run_host(homes[1]) as none:
            plan = make_plan(known, clients=(0, clients), activations=clients, verify_percent=0.0)
            with stopped(none):
                say(f"{clients:,} clients ask for the first time")
                first = run_load(plan)
                if first.failed or first.refused:
                    raise RuntimeError(f"{first.errors or first.refusals}")
                caught_up_s = wait_for_recorder(homes[0], read_clock_ms())
            machines = {"clients": (0, clients), "machine_seed": plan.machine_seed}
            for number in range(rounds):
                say(f"round {number + 1}/{rounds}")
                with stopped(none):
                    with_known = measure(known, seconds=seconds, **machines)
                    ended_ms = read_clock_ms()
                with stopped(known):
                    with_none = measure(none, seconds=seconds, clients=(0, 50))
                ratios.append(with_known.rate / with_none.rate)
                known_rates.append(with_known.rate)
                none_rates.append(with_none.rate)
            with stopped(none):
                behind_s = wait_for_recorder(homes[0], ended_ms)
                wait_for_summary(homes[0], clients)
            inventory_bytes = sum(path.stat().st_size for path in (homes[0] / "host").glob("inventory.db*"))
    return {
        "rate_ratio_10m": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "rate_known": round(statistics.median(known_rates)),
        "rate_none": round(statistics.median(none_rates)),
        "clients": clients,
        "first_rate": round(first.activations / first.seconds),
        "recorder_behind_s": {"after the first time": round(caught_up_s, 1), "at the end": round(behind_s, 1)},
        "inventory_bytes_per_client": round(inventory_bytes / clients, 1),
        **describe_machine(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "took_s": round(time.monotonic() - started_s),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--clients", type=int, default=10_000_000, help="known clients (10,000,000)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each host is measured (5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each time (5)")
    options = parser.parse_args()
    report = run(
        options.clients,
        options.rounds,
        options.seconds,
        lambda what: print(what, file=sys.stderr, flush=True),
    )
    print(json.dumps(report) if options.json else "\n".join(f"{name:28}{value}" for name, value in report.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
