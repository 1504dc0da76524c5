"""What the benchmark programs have in common: their options, their progress, how they print and how they end."""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from machine import describe_machine
from rows import Table, format_rows, read_rows

from kms_fast.errors import KmsFastError

Say = Callable[[str], None]
Show = Callable[[dict[str, Any]], list[str]]
LACKING = 77  # the exit code of a program whose machine lacks what it needs


class MachineLacks(Exception):
    """This machine lacks what a benchmark needs; the text says what, and how to get it."""


def say(what: str) -> None:
    """Tell whoever waits what is going on."""
    print(what, file=sys.stderr, flush=True)


def format_report(report: dict[str, Any]) -> list[str]:
    """The rows, then everything else by name."""
    rest = [f"{name.replace('_', ' '):32}{value}" for name, value in report.items() if name != "rows"]
    return [*format_rows(read_rows(report)), "", *rest]


def run_program(
    doc: str, run: Callable[..., dict[str, Any]], show: Show = format_report, **options: tuple[Any, str]
) -> int:
    """A program's whole life; its exit code.

    ``run`` is called with `say` and the options by name, and returns the report: a `Table` as ``table``, and whatever
    else it tells. ``show`` makes lines for people of it. Each option has a default, which also says its type, and a
    text.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    for name, (default, text) in options.items():
        shape = {"nargs": "+", "type": type(default[0])} if isinstance(default, tuple) else {"type": type(default)}
        parser.add_argument(
            f"--{name.replace('_', '-')}", default=default, help=f"{text} (default: {default})", **shape
        )
    chosen = vars(parser.parse_args())
    as_json = chosen.pop("json")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    started_s = time.monotonic()
    try:
        report = finish_report(run(say, **chosen), started_s)
    except KeyboardInterrupt:
        return 130
    except MachineLacks as lack:
        say(str(lack))
        return LACKING
    except (KmsFastError, RuntimeError, OSError) as error:
        say(f"not measured: {error}")
        return 1
    print(json.dumps(report) if as_json else "\n".join(show(report)))
    return 0


def finish_report(report: dict[str, Any], started_s: float) -> dict[str, Any]:
    """A report with its table as rows, and with what it was measured on. ``started_s``: by the monotonic clock."""
    table: Table = report.pop("table")
    return {
        **report,
        "rows": table.to_json(),
        **describe_machine(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "took_s": round(time.monotonic() - started_s),
    }


def need_two_cores() -> None:
    """Raises `MachineLacks` on a machine with one core."""
    if len(os.sched_getaffinity(0)) < 2:
        raise MachineLacks("needs two cores: one for the server, one for the load")
