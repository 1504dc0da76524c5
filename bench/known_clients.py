"""Whether millions of known clients slow a host down: its rate beside a recorder that keeps them, and without any.

    python bench/known_clients.py [--json] [--clients N] [--rounds N] [--seconds S]

Two hosts with all of their processes on one core, the load on the other. One host gets an activation of every client
first, which its recorder takes up; then both are loaded in turn, each stopped while the other is measured. What the
first host takes of memory and disk is measured before, after and at the end.
"""

import asyncio
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from program import Say, need_two_cores, run_program
from rows import Table
from samples import Server, make_plan, measure, read_rss_kib_by_role
from servers import make_folder, run_host

from kms_fast.cli.stores import open_inventory
from kms_fast.host.enrolment import read_certificate
from kms_fast.load.processes import run_load
from kms_fast.load.server import list_processes
from kms_fast.model.settings import HostSettings

LAST_BATCH_MS = 1_000  # a load ends less than this after its last batch was signed
MIB = 1 << 20
RECORD_S = 600.0
SUMMARY_S = 60.0  # the recorder makes one every 10 seconds, and later when that takes long


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
        watermarks = await inventory.watermarks(read_certificate(home / "host").host_id)
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


def wait_for_recorder(home: Path) -> float:
    """Until the recorder has taken up what a load that ended just now got signed; how long that took, in s."""
    started_s, ended_ms = time.monotonic(), time.time_ns() // 1_000_000
    while asyncio.run(read_recorded_ms(home)) < ended_ms - LAST_BATCH_MS:
        if time.monotonic() > started_s + RECORD_S:
            raise RuntimeError(f"the recorder is not done {RECORD_S:.0f} s after the load")
        time.sleep(1.0)
    return time.monotonic() - started_s


def wait_for_summary(home: Path, clients: int) -> None:
    """Until the inventory's summary counts all clients."""
    deadline_s = time.monotonic() + SUMMARY_S
    while (found := asyncio.run(read_client_count(home))) < clients:
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"the inventory has {found:,} of {clients:,} clients")
        time.sleep(1.0)


def measure_growth(host: Server, home: Path) -> dict[str, float | None]:
    """What a host takes of memory and disk, in MiB."""
    memory, folder = read_rss_kib_by_role(host.pid), home / "host"
    return {
        "worker_mib": memory["worker"] / 1024,
        "recorder_mib": memory["recorder"] / 1024,
        "inventory_mib": sum_sizes(folder.glob("inventory.db*")) / MIB,
        "ledger_mib": sum_sizes((folder / "ledger").rglob("*")) / MIB,
        "counts_mib": sum_sizes(folder.glob("counts.db*")) / MIB,
    }


def sum_sizes(paths: Iterable[Path]) -> int:
    """Bytes of these files on disk; what is preallocated and not used counts too."""
    return sum(path.stat().st_blocks * 512 for path in paths if path.is_file())


def meet_clients(host: Server, home: Path, clients: int) -> tuple[bytes, dict[str, Any]]:
    """Let every client ask once and the recorder take them up; the machines' seed, and how that went."""
    plan = make_plan(host, clients=(0, clients), activations=clients, verify_percent=0.0)
    first = run_load(plan)
    if first.failed or first.refused:
        raise RuntimeError(f"{first.errors or first.refusals}")
    behind_s = wait_for_recorder(home)
    return plan.machine_seed, {
        "first_rate": round(first.activations / first.seconds),
        "recorder_behind_s_after_the_first_time": round(behind_s, 1),
    }


def run(say: Say, *, clients: int, rounds: int, seconds: float) -> dict[str, Any]:
    """The report, without its machine."""
    need_two_cores()
    table, ratios = Table(), []
    with make_folder() as folder:
        homes = folder / "known", folder / "none"
        with run_host(homes[0], machines=0) as known, run_host(homes[1], machines=0) as none:
            table.add({"known clients": 0}, measure_growth(known, homes[0]))
            with stopped(none):
                say(f"{clients:,} clients ask for the first time")
                seed, told = meet_clients(known, homes[0], clients)
                table.add({"known clients": clients}, measure_growth(known, homes[0]))
            for number in range(rounds):
                say(f"round {number + 1}/{rounds}")
                with stopped(none):
                    with_known = measure(known, seconds=seconds, clients=(0, clients), machine_seed=seed)
                with stopped(known):
                    with_none = measure(none, seconds=seconds, clients=(0, 50))
                ratios.append(with_known.rate / with_none.rate)
                table.add({"ratio": "rate with known clients ÷ with none"}, {"value": ratios[-1]})
                for name, sample in (("known", with_known), ("none", with_none)):
                    table.add({"host": name}, vars(sample))
            with stopped(none):
                wait_for_summary(homes[0], clients)
            table.add({"known clients": f"{clients:,}, after the rounds"}, measure_growth(known, homes[0]))
    return {
        "rate_ratio_10m": round(statistics.median(ratios), 3),
        "clients": clients,
        **told,
        "table": table,
    }


if __name__ == "__main__":
    sys.exit(
        run_program(
            __doc__,
            run,
            clients=(10_000_000, "known clients"),
            rounds=(5, "how often each host is measured"),
            seconds=(5.0, "how long each time"),
        )
    )
