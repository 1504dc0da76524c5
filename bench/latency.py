"""Latency against offered rate, open loop: p50, p90 and p99 from 10 to 95 % of a server's peak rate.

    python bench/latency.py [--json] [--rounds N] [--seconds S]

512 connections kept open. Every round measures the peak rate of the uvloop limit and of the host in a closed loop, then
offers each server parts of its own peak. A request's latency counts from the time it was due.
"""

import sys
from typing import Any

from program import Say, need_two_cores, run_program
from rows import Table
from samples import measure
from servers import make_folder, run_host, run_limits

PERCENTS = (10, 25, 50, 70, 80, 90, 95)
PEAK = 100


def run(say: Say, *, rounds: int, seconds: float) -> dict[str, Any]:
    """The report, without its machine. Rows of percent 100 are the closed loop that gave the peak."""
    need_two_cores()
    table = Table()
    with make_folder() as folder, run_limits(folder) as (_, uvloop), run_host(folder / "home") as host:
        for number in range(rounds):
            for server in (uvloop, host):
                say(f"round {number + 1}/{rounds}: {server.name}, its peak rate")
                peak = measure(server, seconds=seconds)
                table.add({"server": server.name, "percent": PEAK}, vars(peak))
                for percent in PERCENTS:
                    say(f"round {number + 1}/{rounds}: {server.name} at {percent} % of {peak.rate:,.0f} a second")
                    offered = peak.rate * percent / 100
                    sample = measure(server, seconds=seconds, rate=offered)
                    table.add({"server": server.name, "percent": percent}, {"offered": offered, **vars(sample)})
    return {"table": table}


if __name__ == "__main__":
    sys.exit(
        run_program(
            __doc__,
            run,
            rounds=(5, "how often each server is measured at each rate"),
            seconds=(3.0, "length of each measurement"),
        )
    )
