"""The whole server beside both limits: CPU of an activation, rate and latency, 1 to 512 connections, 1 and 2 workers.

    python bench/connections.py [--json] [--rounds N] [--seconds S]

Closed loop, each server in turn in every round. The limits and the host with one worker have a core of their own. Two
workers have both cores, and share the second one with the load: on a machine with two cores their rate is not what two
free cores would give, their CPU time of an activation is.
"""

import sys
from typing import Any

from program import Say, need_two_cores, run_program
from rows import Table
from samples import measure
from servers import BOTH_CORES, make_folder, run_host, run_limits

KEPT_OPEN_SIZES = (1, 8, 64, 256, 512)
PER_CONNECTION_SIZES = (1, 8, 64)
WAYS = [("kept open", size, 0) for size in KEPT_OPEN_SIZES] + [
    ("a connection each", n, 1) for n in PER_CONNECTION_SIZES
]


def run(say: Say, *, rounds: int, seconds: float) -> dict[str, Any]:
    """The report, without its machine."""
    need_two_cores()
    table = Table()
    with (
        make_folder() as folder,
        run_limits(folder) as limits,
        run_host(folder / "one") as one,
        run_host(folder / "two", "--workers", "2", name="host, 2 workers", cores=BOTH_CORES) as two,
    ):
        for number in range(rounds):
            for way, connections, per_connection in WAYS:
                say(f"round {number + 1}/{rounds}: {connections} {way}")
                for server in (*limits, one, two):
                    sample = measure(server, seconds=seconds, connections=connections, per_connection=per_connection)
                    table.add({"server": server.name, "way": way, "connections": connections}, vars(sample))
    return {"table": table}


if __name__ == "__main__":
    sys.exit(
        run_program(
            __doc__,
            run,
            rounds=(5, "how often each server is measured in each way"),
            seconds=(2.0, "length of each measurement"),
        )
    )
