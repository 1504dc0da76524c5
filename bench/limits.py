"""How close the host and the load generator come to what this machine allows: the yardsticks of bench/README.md.

    python bench/limits.py [--json] [--rounds N] [--seconds S] [--clients N]

Needs two cores, gcc and an installed kms_fast. Servers run on one core, the load on another; every round measures each
server once in turn, and each figure is the median over the rounds. A figure that could not be measured is null. The
figures with known clients come from inventory.py and known_clients.py, and take most of the time; --clients 0 leaves
them out.
"""

import argparse
import json
import os
import platform
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from kms_fast import __version__
from kms_fast._core import RpcCounters, Session, SkuKeys, backend, build_bind
from kms_fast.cli.realm import make_realm
from kms_fast.load.plan import LoadPlan, LoadResult, Product, find_product
from kms_fast.load.processes import run_load
from kms_fast.load.server import ServerProcess, list_processes

BENCH = Path(__file__).parent
SERVER_CORE, LOAD_CORE = 0, 1
ANSWER_SIZE = 932  # one family in the certificate, nine path nodes: a batch of 257 to 512
KEPT_OPEN, PER_CONNECTION = 512, 64
OFFERED_PER_S = 20_000
IDLE_CONNECTIONS = 10_000
BUSY = 0.95
THRESHOLD = 25

# Key: (what it is, reach, stretch). A ratio or time is better when smaller, a rate when larger.
YARDSTICKS: dict[str, tuple[str, str, str]] = {
    "cpu_ratio_kept_open": ("server CPU ÷ uvloop limit, kept open", "≤ 1.35", "≤ 1.15"),
    "cpu_ratio_per_connection": ("server CPU ÷ uvloop limit, a connection each", "≤ 1.35", "≤ 1.15"),
    "echo_ratio_kept_open": ("server CPU ÷ echo limit, kept open", "≤ 2.0", "≤ 1.5"),
    "echo_ratio_per_connection": ("server CPU ÷ echo limit, a connection each", "≤ 1.6", "≤ 1.35"),
    "rate_ratio_uvloop": ("rate ÷ uvloop limit's, kept open", "≥ 0.7", "≥ 0.9"),
    "cpu_ratio_at_20k": ("server CPU ÷ uvloop limit at 20,000 offered a second", "≤ 1.6", "≤ 1.3"),
    "p99_ms_half_load": ("p99 at half the peak rate, open loop, ms", "≤ 10", "≤ 3"),
    "rss_kib_per_idle_connection": ("RSS per connection, 10,000 open, KiB", "≤ 2.5", "≤ 2"),
    "siv_ratio": ("AES-SIV open of a request ÷ cryptography", "≤ 0.1", "≤ 0.06"),
    "load_ratio_verify_none": ("load CPU ÷ uvloop limit, verify none", "≤ 1.3", "≤ 1.1"),
    "load_ratio_verify_all": ("load CPU ÷ uvloop limit, verify all", "≤ 2.0", "≤ 1.5"),
    "rate_ratio_10m": ("rate with 10 M known clients ÷ with none", "≥ 0.95", "≥ 0.99"),
    "recorder_per_s": ("recorder, records a second", "≥ 100000", "≥ 250000"),
    "dashboard_ms": ("dashboard over 10 M clients, ms", "≤ 200", "≤ 50"),
}


@dataclass(frozen=True)
class Server:
    """A server under load. ``product`` is None for the limits. ``pid`` is that of its first process."""

    name: str
    port: int
    pid: int
    product: Product | None


@dataclass(frozen=True)
class Sample:
    """One run against one server: CPU in µs an activation, activations a second, share of the server's core in use."""

    server_us: float
    load_us: float
    rate: float
    busy: float
    p99_ms: float
    batch: float | None


# ---- servers


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Processes started in the block run on this core, with all of their threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def make_ready_bytes() -> tuple[str, str]:
    """The bind_ack and the response that the limits answer with, in hexadecimal."""
    session = Session(RpcCounters())
    session.receive(build_bind())
    bind_ack = session.take_output()
    session.respond(1, 0, bytes(ANSWER_SIZE), 0)
    return bind_ack.hex(), session.take_output().hex()


@contextmanager
def run_limit(name: str, command: list[str]) -> Iterator[Server]:
    """A limit server until the block ends."""
    with on_core(SERVER_CORE):
        process = subprocess.Popen([*command, *make_ready_bytes()], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Server(name, int(process.stdout.readline().rpartition(":")[2]), process.pid, None)
    finally:
        process.kill()
        process.wait()


@contextmanager
def run_host(folder: Path) -> Iterator[Server]:
    """A real host with its count at the cap, until the block ends."""
    realm = make_realm(folder, threshold=THRESHOLD)
    with on_core(SERVER_CORE):
        process = ServerProcess(folder, folder / "serve.log", options=("--max-connections", "20000"))
    try:
        product = find_product(realm.publisher, realm.setup_key)
        server = Server("host", process.port, process.process.pid, product)
        run_load(make_plan(server, connections=8, activations=2 * THRESHOLD))
        yield server
        process.drain()
    finally:
        process.kill()


def compile_echo(folder: Path) -> str:
    """Path of the compiled echo limit."""
    program = folder / "echo"
    subprocess.run(["gcc", "-O2", "-o", program, BENCH / "limit" / "echo.c"], check=True)
    return str(program)


# ---- measuring


def make_plan(server: Server, **changes: Any) -> LoadPlan:
    plan = LoadPlan(
        address="127.0.0.1",
        port=server.port,
        product=server.product,
        connections=KEPT_OPEN,
        machine_seed=secrets.token_bytes(32),
        verify_percent=1.0 if server.product else 0.0,
        cpu=LOAD_CORE,
    )
    return replace(plan, **changes)


def read_cpu_s(pid: int) -> float:
    """User and system time of a server's processes, by the scheduler's own count: finer than the ticks of stat."""
    tasks = [task for each in list_processes(pid) for task in Path(f"/proc/{each}/task").glob("*/schedstat")]
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def read_rss_kib(pid: int) -> int:
    """Memory of a server's processes."""
    lines = [line for each in list_processes(pid) for line in Path(f"/proc/{each}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def measure(server: Server, **changes: Any) -> Sample:
    """Load the server once. Raises RuntimeError when anything failed: its figures would mean nothing."""
    plan = make_plan(server, **changes)
    before_s = read_cpu_s(server.pid)
    result = run_load(plan)
    cpu_s = read_cpu_s(server.pid) - before_s
    if result.failed or result.refused or not result.activations:
        raise RuntimeError(f"{server.name}: {result.errors or result.refusals or result.failure}")
    return Sample(
        server_us=cpu_s * 1e6 / result.activations,
        load_us=result.cpu_s * 1e6 / result.activations,
        rate=result.activations / result.seconds,
        busy=cpu_s / result.seconds,
        p99_ms=result.histogram().percentile_ns(99) / 1e6,
        batch=result.activations / result.batches if result.batches else None,
    )


def measure_round(servers: list[Server], seconds: float, say: Callable[[str], None]) -> dict[str, Sample]:
    """Every server in every way once, the ones to be compared next to each other."""
    samples = {}
    host = servers[-1]
    for server in servers:
        say(f"{server.name}, {KEPT_OPEN} kept open")
        samples[f"{server.name} kept open"] = measure(server, seconds=seconds)
    for verify, percent in (("none", 0.0), ("all", 100.0)):
        say(f"host, verify {verify}")
        samples[f"host verify {verify}"] = measure(host, seconds=seconds, verify_percent=percent)
    for server in servers:
        say(f"{server.name}, {PER_CONNECTION} at once, a connection each")
        samples[f"{server.name} per connection"] = measure(
            server, seconds=seconds, connections=PER_CONNECTION, per_connection=1
        )
    for server in servers[1:]:
        say(f"{server.name}, {OFFERED_PER_S:,} offered a second")
        samples[f"{server.name} at 20k"] = measure(server, seconds=seconds, rate=OFFERED_PER_S)
    say("host, half of its peak rate")
    samples["host half load"] = measure(host, seconds=seconds, rate=samples["host kept open"].rate / 2)
    return samples


def measure_idle_memory(host: Server) -> float | None:
    """RSS per connection of a host with 10,000 connections open, each of which activated once, in KiB."""
    before = read_rss_kib(host.pid)
    seen: list[int] = []

    def look(result: LoadResult) -> None:
        if result.activations == IDLE_CONNECTIONS:
            seen.append(read_rss_kib(host.pid))

    plan = make_plan(host, connections=IDLE_CONNECTIONS, activations=IDLE_CONNECTIONS, linger_s=3.0)
    result = run_load(plan, report=look)
    if result.failed or not seen:
        return None
    return (seen[-1] - before) / IDLE_CONNECTIONS


def measure_siv(product: Product) -> float:
    """Time to open a request ÷ the time of cryptography's AESSIV, over 1,000 different requests; median of 15."""
    keys = SkuKeys(product.sku_id, product.request_key, product.answer_secret)
    reference = AESSIV(product.request_key)
    fields = b"\1" * 96 + bytes(20) + b"\2" + bytes(51)
    requests = [keys.seal_request(fields, secrets.token_bytes(16)) for _ in range(1000)]
    sealed = [(request[36:], [request[:20], request[20:36]]) for request in requests]

    def time_ours() -> float:
        started = time.perf_counter()
        for request in requests:
            keys.open_request(request)
        return time.perf_counter() - started

    def time_reference() -> float:
        started = time.perf_counter()
        for data, associated in sealed:
            reference.decrypt(data, associated)
        return time.perf_counter() - started

    return statistics.median(time_ours() / time_reference() for _ in range(15))


def measure_known_clients(clients: int) -> dict[str, Any]:
    """What the other programs say of a host and an inventory that know so many clients."""
    figures: dict[str, Any] = {}
    for program in ("inventory.py", "known_clients.py"):
        command = [sys.executable, BENCH / program, "--json", "--clients", str(clients)]
        figures |= json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return {key: figures[key] for key in ("rate_ratio_10m", "recorder_per_s", "dashboard_ms")}


# ---- figures


def make_figures(rounds: list[dict[str, Sample]]) -> dict[str, float | None]:
    """The yardsticks that rounds yield: the median of each round's ratio."""

    def ratio(of: str, to: str, what: str = "server_us", divisor: str = "server_us") -> float:
        return statistics.median(getattr(samples[of], what) / getattr(samples[to], divisor) for samples in rounds)

    saturated = [
        samples for samples in rounds if min(samples["host kept open"].busy, samples["uvloop kept open"].busy) >= BUSY
    ]
    figures: dict[str, float | None] = dict.fromkeys(YARDSTICKS)
    figures |= {
        "cpu_ratio_kept_open": ratio("host kept open", "uvloop kept open"),
        "cpu_ratio_per_connection": ratio("host per connection", "uvloop per connection"),
        "echo_ratio_kept_open": ratio("host kept open", "echo kept open"),
        "echo_ratio_per_connection": ratio("host per connection", "echo per connection"),
        "cpu_ratio_at_20k": ratio("host at 20k", "uvloop at 20k"),
        "p99_ms_half_load": statistics.median(samples["host half load"].p99_ms for samples in rounds),
        "load_ratio_verify_none": ratio("host verify none", "uvloop kept open", "load_us"),
        "load_ratio_verify_all": ratio("host verify all", "uvloop kept open", "load_us"),
    }
    if saturated:
        figures["rate_ratio_uvloop"] = statistics.median(
            samples["host kept open"].rate / samples["uvloop kept open"].rate for samples in saturated
        )
    return figures


def summarize(rounds: list[dict[str, Sample]]) -> dict[str, dict[str, float]]:
    """Medians of what was measured, for each server and way."""
    columns: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for samples in rounds:
        for run, sample in samples.items():
            for name, value in vars(sample).items():
                if value is not None:
                    columns[run][name].append(value)
    return {
        run: {name: round(statistics.median(values), 3) for name, values in of.items()} for run, of in columns.items()
    }


def describe_machine() -> dict[str, Any]:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    commit = subprocess.run(["git", "-C", BENCH, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit.strip() or None,
        "version": __version__,
        "machine": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "python": platform.python_version(),
        "backend": backend(),
    }


def run(rounds: int, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """The object of ``--json``."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kms-fast-limits-", dir="/var/tmp") as folder:
        echo_command = [compile_echo(Path(folder))]
        uvloop_command = [sys.executable, str(BENCH / "limit" / "uvloop_limit.py")]
        with (
            run_limit("echo", echo_command) as echo,
            run_limit("uvloop", uvloop_command) as uvloop,
            run_host(Path(folder) / "home") as host,
        ):
            say("memory of idle connections")
            rss_kib = measure_idle_memory(host)
            assert host.product is not None
            siv_ratio = measure_siv(host.product)
            samples = [
                measure_round([echo, uvloop, host], seconds, lambda what, n=n: say(f"round {n + 1}/{rounds}: {what}"))
                for n in range(rounds)
            ]
    figures = make_figures(samples) | {"rss_kib_per_idle_connection": rss_kib, "siv_ratio": siv_ratio}
    return {
        **{key: None if value is None else round(value, 3) for key, value in figures.items()},
        "measured": summarize(samples),
        **describe_machine(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "took_s": round(time.monotonic() - started),
    }


def format_figures(report: dict[str, Any]) -> str:
    lines = [f"{'figure':56}{'measured':>10}{'reach':>12}{'stretch':>12}"]
    for key, (what, reach, stretch) in YARDSTICKS.items():
        value = report[key]
        lines.append(f"{what:56}{'-' if value is None else value:>10}{reach:>12}{stretch:>12}")
    lines += [
        "",
        f"{'µs of CPU an activation, medians':36}{'server':>9}{'load':>9}{'rate/s':>10}{'busy':>7}{'p99 ms':>9}",
    ]
    for name, of in report["measured"].items():
        lines.append(
            f"{name:36}{of['server_us']:>9.2f}{of['load_us']:>9.2f}{of['rate']:>10,.0f}{of['busy']:>7.2f}{of['p99_ms']:>9.2f}"
        )
    return "\n".join([*lines, "", f"{report['machine']}, {report['date']}, commit {report['commit']}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5, help="how often each server is measured (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement (3)")
    parser.add_argument("--clients", type=int, default=10_000_000, help="known clients (10,000,000); 0: none")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        print("limits.py needs two cores: one for the server, one for the load.", file=sys.stderr)
        return 1
    report = run(options.rounds, options.seconds, lambda what: print(what, file=sys.stderr, flush=True))
    if options.clients:
        report |= measure_known_clients(options.clients)
    print(json.dumps(report) if options.json else format_figures(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
