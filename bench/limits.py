"""How close the host and the load generator come to what this machine allows: the yardsticks of bench/README.md.

    python bench/limits.py [--json] [--rounds N] [--seconds S] [--clients N]

Needs two cores, gcc and an installed kms_fast. Servers run on one core, the load on another; every round measures each
server once in turn, and each figure is the median over the rounds. A figure that could not be measured is null. The
figures with known clients come from inventory.py and known_clients.py, and take most of the time; --clients 0 leaves
them out.
"""

import json
import secrets
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from program import Say, need_two_cores, run_program
from rows import Table, format_rows, read_rows
from samples import KEPT_OPEN, PER_CONNECTION, Sample, Server, measure, measure_open
from servers import make_folder, run_host, run_limits
from yardsticks import HOST_RATE, KNOWN_CLIENTS, OF_KNOWN_CLIENTS, YARDSTICKS, format_yardsticks

from kms_fast._core import SkuKeys
from kms_fast.load.plan import Product

OFFERED_PER_S = 20_000
IDLE_CONNECTIONS = 10_000
BUSY = 0.95


def measure_round(servers: list[Server], seconds: float, say: Say, number: str) -> dict[str, Sample]:
    """Every server in every way once, the ones to be compared next to each other."""
    samples = {}
    host = servers[-1]
    for server in servers:
        say(f"{number}: {server.name}, {KEPT_OPEN} kept open")
        samples[f"{server.name} kept open"] = measure(server, seconds=seconds)
    for verify, percent in (("none", 0.0), ("all", 100.0)):
        say(f"{number}: host, verify {verify}")
        samples[f"host verify {verify}"] = measure(host, seconds=seconds, verify_percent=percent)
    for server in servers[1:]:
        say(f"{number}: {server.name}, {OFFERED_PER_S:,} offered a second")
        samples[f"{server.name} at 20k"] = measure(server, seconds=seconds, rate=OFFERED_PER_S)
    say(f"{number}: host, half of its peak rate")
    samples["host half load"] = measure(host, seconds=seconds, rate=samples["host kept open"].rate / 2)
    # Last: these come from many addresses, which is news of every machine, also when the next run has it no more.
    for server in servers:
        say(f"{number}: {server.name}, {PER_CONNECTION} at once, a connection each")
        samples[f"{server.name} per connection"] = measure(
            server, seconds=seconds, connections=PER_CONNECTION, per_connection=1
        )
    return samples


def measure_siv(product: Product) -> list[float]:
    """Time to open a request ÷ the time of cryptography's AESSIV, over 1,000 different requests; 15 times."""
    keys = SkuKeys(product.sku_id, product.request_key, product.answer_secret)
    reference = AESSIV(product.request_key)
    fields = b"\1" * 32 + b"desk-000001".ljust(64, b"\0") + bytes(20) + b"\2" + bytes(3) + b"\3" * 16 + bytes(32)
    requests = [keys.seal_request(fields, secrets.token_bytes(16)) for _ in range(1000)]
    sealed = [(request[36:], [request[:20], request[20:36]]) for request in requests]
    assert keys.open_request(requests[0]) == reference.decrypt(*sealed[0]) == fields

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

    return [time_ours() / time_reference() for _ in range(15)]


def measure_known_clients(clients: int) -> dict[str, Any]:
    """What the other programs say of a host and an inventory that know so many clients; None where one failed, which
    says why on stderr.
    """
    figures: dict[str, Any] = {}
    for program in ("inventory.py", "known_clients.py"):
        command = [sys.executable, str(Path(__file__).parent / program), "--json", "--clients", str(clients)]
        done = subprocess.run(command, stdout=subprocess.PIPE)
        figures |= json.loads(done.stdout) if done.returncode == 0 else {}
    return {key: figures.get(key) for key in OF_KNOWN_CLIENTS}


def make_ratios(samples: dict[str, Sample]) -> dict[str, float | None]:
    """The yardsticks that one round yields. A rate ratio is None unless both servers kept their core busy.

    At 20,000 a second a host's recorder keeps up, so there all that it does for the run counts, also what comes later.
    """
    at_20k = samples["host at 20k"].server_us + samples["host at 20k"].later_us
    host, uvloop, echo = (samples[f"{name} kept open"] for name in ("host", "uvloop", "echo"))
    host_each, uvloop_each, echo_each = (samples[f"{name} per connection"] for name in ("host", "uvloop", "echo"))
    return {
        "cpu_ratio_kept_open": host.server_us / uvloop.server_us,
        "cpu_ratio_per_connection": host_each.server_us / uvloop_each.server_us,
        "echo_ratio_kept_open": host.server_us / echo.server_us,
        "echo_ratio_per_connection": host_each.server_us / echo_each.server_us,
        "rate_ratio_uvloop": host.rate / uvloop.rate if min(host.busy, uvloop.busy) >= BUSY else None,
        "cpu_ratio_at_20k": at_20k / samples["uvloop at 20k"].server_us,
        "p99_ms_half_load": samples["host half load"].p99_ms,
        "load_ratio_verify_none": samples["host verify none"].load_us / uvloop.server_us,
        "load_ratio_verify_all": samples["host verify all"].load_us / uvloop.server_us,
    }


def make_table(rounds: list[dict[str, Sample]]) -> Table:
    """Every round's yardsticks, and what each of its runs measured."""
    table = Table()
    for samples in rounds:
        for key, value in make_ratios(samples).items():
            table.add({"figure": key}, {"value": value})
        for name, sample in samples.items():
            table.add({"run": name}, vars(sample))
    return table


def make_figures(table: Table) -> dict[str, float | None]:
    """The yardsticks, each the median of its rounds; None for what no round yielded."""
    medians = {row.labels["figure"]: row.median("value") for row in table.rows if "figure" in row.labels}
    values = {key: medians.get(key) for key in YARDSTICKS}
    return {key: None if value is None else round(value, 3) for key, value in values.items()}


def run(say: Say, *, rounds: int, seconds: float, clients: int) -> dict[str, Any]:
    """The report, without its machine."""
    need_two_cores()
    with make_folder() as folder, run_limits(folder) as limits, run_host(folder / "home") as host:
        say("memory of idle connections")
        rss_kib = measure_open(host, IDLE_CONNECTIONS)["kib"]
        assert host.product is not None
        siv_ratios = measure_siv(host.product)
        samples = [measure_round([*limits, host], seconds, say, f"round {n + 1}/{rounds}") for n in range(rounds)]
    table = make_table(samples)
    table.add({"figure": "rss_kib_per_idle_connection"}, {"value": rss_kib})
    for ratio in siv_ratios:
        table.add({"figure": "siv_ratio"}, {"value": ratio})
    figures = make_figures(table) | (measure_known_clients(clients) if clients else {})
    host_rate = statistics.median(of["host kept open"].rate for of in samples)
    return {**figures, HOST_RATE: round(host_rate), "clients": clients, "table": table}


def show(report: dict[str, Any]) -> list[str]:
    """The report for people: the yardsticks, then what was measured for them."""
    known = report["clients"] >= KNOWN_CLIENTS
    figures = {key: value for key, value in report.items() if known or key not in OF_KNOWN_CLIENTS}
    runs = [row for row in read_rows(report) if "run" in row.labels]
    machine = f"{report['machine']}, {report['date']}, commit {report['commit']}"
    return [*format_yardsticks(figures), "", *format_rows(runs), "", machine]


if __name__ == "__main__":
    sys.exit(
        run_program(
            __doc__,
            run,
            show,
            rounds=(5, "how often each server is measured"),
            seconds=(3.0, "length of each measurement"),
            clients=(KNOWN_CLIENTS, "known clients; 0: none"),
        )
    )
