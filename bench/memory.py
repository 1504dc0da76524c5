"""Memory of open connections: 1,000, 5,000 and 10,000 of them, each of which activated once, then idle.

    python bench/memory.py [--json] [--rounds N] [--sizes N N …]

A new server for each measurement, since freed memory stays with a process. ``worker_kib`` is what the worker has grown
by, divided by the connections; the uvloop limit beside it is what sockets and transports take.
"""

import sys
from contextlib import ExitStack
from typing import Any

from program import Say, need_two_cores, run_program
from rows import Table
from samples import measure_open
from servers import LIMITS, make_folder, run_host, run_limit


def run(say: Say, *, rounds: int, sizes: tuple[int, ...]) -> dict[str, Any]:
    """The report, without its machine."""
    need_two_cores()
    table = Table()
    for number in range(rounds):
        for connections in sizes:
            for name in ("uvloop", "host"):
                say(f"round {number + 1}/{rounds}: {name}, {connections:,} connections")
                with ExitStack() as stack:
                    folder = stack.enter_context(make_folder())
                    server = stack.enter_context(
                        run_host(folder / "home")
                        if name == "host"
                        else run_limit(name, [sys.executable, str(LIMITS / "uvloop_limit.py")])
                    )
                    table.add({"server": name, "connections": connections}, measure_open(server, connections))
    return {"table": table}


if __name__ == "__main__":
    sys.exit(
        run_program(
            __doc__,
            run,
            rounds=(3, "how often each server is measured with each number"),
            sizes=((1000, 5000, 10_000), "connections open at once"),
        )
    )
