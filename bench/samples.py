"""One run of load against one server: what it cost, as a `Sample`."""

import secrets
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import checkout  # noqa: F401

from kms_fast.load.plan import LoadPlan, LoadResult, Product
from kms_fast.load.processes import run_load
from kms_fast.load.server import list_processes

LOAD_CORE = 1
KEPT_OPEN, PER_CONNECTION = 512, 64
LINGER_S = 3.0
# The recorder looks for more once a second.
LOOK_S, QUIET_LOOKS, QUIET_SHARE, SETTLE_LIMIT_S = 0.5, 4, 0.03, 600.0


@dataclass(frozen=True)
class Server:
    """A server under load. ``product`` is None for the limits. ``pid`` is that of its first process. The machines that
    ask it are made from ``seed``, so that they are known after the first time and renew.
    """

    name: str
    port: int
    pid: int
    product: Product | None
    seed: bytes = field(default_factory=lambda: secrets.token_bytes(32))


@dataclass(frozen=True)
class Sample:
    """One run against one server: CPU in µs an activation, activations a second, share of the server's core in use.

    ``later_us``: what a host's recorder did for an activation after the run, since workers go first.
    """

    server_us: float
    load_us: float
    rate: float
    busy: float
    p99_ms: float
    batch: float | None
    p50_ms: float | None = None
    p90_ms: float | None = None
    later_us: float = 0.0


def make_plan(server: Server, **changes: Any) -> LoadPlan:
    plan = LoadPlan(
        address="127.0.0.1",
        port=server.port,
        product=server.product,
        connections=KEPT_OPEN,
        machine_seed=server.seed,
        verify_percent=1.0 if server.product else 0.0,
        cpu=LOAD_CORE,
    )
    return replace(plan, **changes)


def read_cpu_s(pid: int) -> float:
    """User and system time of a server's processes, by the scheduler's own count: finer than the ticks of stat."""
    tasks = [task for each in list_processes(pid) for task in Path(f"/proc/{each}/task").glob("*/schedstat")]
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def read_rss_kib_by_role(pid: int) -> dict[str, int]:
    """Memory of a server's first process, called "first", of its workers together and of its recorder."""
    memory: dict[str, int] = defaultdict(int)
    for each in list_processes(pid):
        command = Path(f"/proc/{each}/cmdline").read_text()
        role = next((role for role in ("worker", "recorder") if f"kms_fast.cli.{role} " in command), "first")
        lines = Path(f"/proc/{each}/status").read_text().splitlines()
        memory[role] += next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return dict(memory)


def settle(server: Server) -> None:
    """Wait until a server is at rest. Raises RuntimeError when it does not come to rest."""
    quiet, deadline_s = 0, time.monotonic() + SETTLE_LIMIT_S
    while quiet < QUIET_LOOKS:
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{server.name} is not at rest {SETTLE_LIMIT_S:.0f} s after a load")
        before_s = read_cpu_s(server.pid)
        time.sleep(LOOK_S)
        quiet = quiet + 1 if read_cpu_s(server.pid) - before_s < QUIET_SHARE * LOOK_S else 0


def measure(server: Server, **changes: Any) -> Sample:
    """Load a server at rest once, and let a host come to rest again.

    Raises RuntimeError when anything failed: its figures would mean nothing.
    """
    plan = make_plan(server, **changes)
    before_s = read_cpu_s(server.pid)
    result = run_load(plan)
    cpu_s = read_cpu_s(server.pid) - before_s
    if server.product is not None:
        settle(server)
    later_s = read_cpu_s(server.pid) - before_s - cpu_s
    if result.failed or result.refused or not result.activations:
        raise RuntimeError(f"{server.name}: {result.errors or result.refusals or result.failure}")
    latencies = result.histogram()
    return Sample(
        server_us=cpu_s * 1e6 / result.activations,
        load_us=result.cpu_s * 1e6 / result.activations,
        rate=result.activations / result.seconds,
        busy=cpu_s / result.seconds,
        p99_ms=latencies.percentile_ns(99) / 1e6,
        batch=result.activations / result.batches if result.batches else None,
        p50_ms=latencies.percentile_ns(50) / 1e6,
        p90_ms=latencies.percentile_ns(90) / 1e6,
        later_us=later_s * 1e6 / result.activations,
    )


def measure_open(server: Server, connections: int) -> dict[str, float | None]:
    """KiB a connection that each kind of process has grown by, while so many are open, each of which activated once.

    Raises RuntimeError when not all of them were.
    """
    before = read_rss_kib_by_role(server.pid)
    seen: list[dict[str, int]] = []

    def look(result: LoadResult) -> None:
        if result.activations == connections:
            seen.append(read_rss_kib_by_role(server.pid))

    plan = make_plan(server, connections=connections, activations=connections, linger_s=LINGER_S)
    result = run_load(plan, report=look)
    if result.failed or result.refused or not seen:
        raise RuntimeError(f"{server.name}: {result.errors or result.refusals or 'nothing was seen'}")
    grown = {role: (seen[-1][role] - before[role]) / connections for role in before}
    return {
        "kib": sum(grown.values()),
        "worker_kib": grown.get("worker"),
        "recorder_kib": grown.get("recorder"),
        "server_mib": sum(seen[-1].values()) / 1024,
    }
