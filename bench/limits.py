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
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from machine import describe_machine
from samples import KEPT_OPEN, PER_CONNECTION, Sample, Server, make_plan, measure, read_rss_kib
from servers import LIMITS, compile_echo, run_host, run_limit
from yardsticks import YARDSTICKS, format_figures

from kms_fast._core import SkuKeys
from kms_fast.load.plan import LoadResult, Product
from kms_fast.load.processes import run_load

OFFERED_PER_S = 20_000
IDLE_CONNECTIONS = 10_000
BUSY = 0.95


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
        command = [sys.executable, Path(__file__).parent / program, "--json", "--clients", str(clients)]
        figures |= json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return {key: figures[key] for key in ("rate_ratio_10m", "recorder_per_s", "dashboard_ms")}


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


def run(rounds: int, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """The object of ``--json``."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kms-fast-limits-", dir="/var/tmp") as folder:
        echo_command = [compile_echo(Path(folder))]
        uvloop_command = [sys.executable, str(LIMITS / "uvloop_limit.py")]
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
