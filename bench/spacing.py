"""What the least time between two batches costs and saves: hosts with --batch-spacing 0, 1, 2 and 5 ms.

    python bench/spacing.py [--json] [--rounds N] [--seconds S]

512 connections kept open, all hosts on one core and measured in turn: as fast as they can, and at 20,000 offered a
second.
"""

import sys
from contextlib import ExitStack
from typing import Any

from program import Say, need_two_cores, run_program
from rows import Table
from samples import measure
from servers import make_folder, run_host

SPACINGS_MS = (0, 1, 2, 5)
WAYS = {"closed loop": 0, "20,000 offered a second": 20_000}


def run(say: Say, *, rounds: int, seconds: float) -> dict[str, Any]:
    """The report, without its machine."""
    need_two_cores()
    table = Table()
    with ExitStack() as stack:
        folder = stack.enter_context(make_folder())
        hosts = {
            spacing_ms: stack.enter_context(
                run_host(folder / str(spacing_ms), "--batch-spacing", f"{spacing_ms}ms", name=f"{spacing_ms} ms")
            )
            for spacing_ms in SPACINGS_MS
        }
        for number in range(rounds):
            for way, rate in WAYS.items():
                for spacing_ms, host in hosts.items():
                    say(f"round {number + 1}/{rounds}: batches at least {spacing_ms} ms apart, {way}")
                    sample = measure(host, seconds=seconds, rate=rate)
                    table.add({"way": way, "spacing_ms": spacing_ms}, vars(sample))
    return {"table": table}


if __name__ == "__main__":
    sys.exit(
        run_program(
            __doc__,
            run,
            rounds=(5, "how often each host is measured in each way"),
            seconds=(2.0, "length of each measurement"),
        )
    )
