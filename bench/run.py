"""All benchmarks, one after the other, into a folder of results: what ``make bench`` runs.

    python bench/run.py [--quick] [--out FOLDER] [--only NAME …]

Each finished benchmark is a file NAME.json in the folder, by default bench/results/COMMIT-DATE. After Ctrl-C or a kill
the same call goes on with what is missing; a folder that is complete is shown again. At the end it prints the
yardsticks and writes bench.html and bench.json beside the results. ``--quick`` measures everything in sizes that take
less than five minutes in total: to see that all of it works, not to quote.

Exit code 0: everything was measured; 1: a benchmark failed; 2: a folder with results of other sizes; 130: Ctrl-C.
"""

import argparse
import fcntl
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkout import ROOT
from machine import describe_machine
from page import build_page
from program import LACKING, say
from yardsticks import HOST_RATE, KNOWN_CLIENTS, OF_KNOWN_CLIENTS, YARDSTICKS, format_yardsticks, judge

from kms_fast.files import PUBLIC, write_atomically

BENCH = ROOT / "bench"
INDEX, PAGE, LOCK = "bench.json", "bench.html", "lock"


@dataclass(frozen=True)
class Benchmark:
    """A program of this folder, what it is told, and how many seconds it takes about."""

    name: str
    program: str
    takes_s: int
    quick_takes_s: int
    options: str = ""
    quick_options: str = ""

    def command(self, quick: bool) -> list[str]:
        options = self.quick_options if quick else self.options
        return [sys.executable, str(BENCH / self.program), "--json", *options.split()]

    @property
    def file(self) -> str:
        return f"{self.name}.json"

    def expected_s(self, quick: bool) -> int:
        return self.quick_takes_s if quick else self.takes_s


BENCHMARKS = (
    Benchmark("limits", "limits.py", 200, 25, "--clients 0", "--clients 0 --rounds 1 --seconds 0.6"),
    Benchmark("kernels", "kernels.py", 45, 10, "", "--rounds 1 --milliseconds 20"),
    Benchmark("request", "request.py", 15, 3, "", "--rounds 1 --milliseconds 100"),
    Benchmark("connections", "connections.py", 390, 30, "", "--rounds 1 --seconds 0.4"),
    Benchmark("latency", "latency.py", 275, 20, "", "--rounds 1 --seconds 0.6"),
    Benchmark("spacing", "spacing.py", 105, 15, "", "--rounds 1 --seconds 0.5"),
    Benchmark("memory", "memory.py", 100, 20, "", "--rounds 1 --sizes 1000 5000"),
    Benchmark("known_clients_1m", "known_clients.py", 100, 20, "--clients 1000000", "--clients 50000 --rounds 1"),
    Benchmark("known_clients_10m", "known_clients.py", 350, 25, "", "--clients 200000 --rounds 1"),
    Benchmark("inventory", "inventory.py", 300, 8, "", "--clients 200000 --records 200000 --rounds 10"),
    Benchmark("ledger", "ledger.py", 90, 5, "", "--batches 500 --rounds 1"),
    Benchmark(
        "shared_store", "shared_store.py", 55, 8, "", "--clients 50000 --renewals 50000 --rows 10000 --calls 500"
    ),
)


@dataclass
class Outcome:
    """What `run_all` could not measure: benchmarks that failed, and why this machine cannot run others."""

    failed: list[str] = field(default_factory=list)
    lacking: dict[str, str] = field(default_factory=dict)


def choose_folder(results: Path, commit: str, date: str, quick: bool) -> Path:
    """The newest folder of this commit that is not complete yet, else the one of today."""
    ending = "-quick" if quick else ""
    begun = [folder for folder in results.glob(f"{commit}-????-??-??{ending}") if not (folder / INDEX).exists()]
    return max(begun, key=lambda folder: folder.name, default=results / f"{commit}-{date}{ending}")


@contextmanager
def hold_folder(out: Path) -> Iterator[int]:
    """The folder is this run's alone while the block runs: waits for another one. Gives a descriptor to be inherited.

    A benchmark holds the folder too: when its run was killed, the next one waits until it has ended.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run in {out}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def run_all(benchmarks: Sequence[Benchmark], out: Path, quick: bool) -> Outcome:
    """Run what has no result in the folder yet. Raises KeyboardInterrupt, after the one that runs has cleaned up."""
    with hold_folder(out) as lock:
        return _run_missing(benchmarks, out, quick, lock)


def _run_missing(benchmarks: Sequence[Benchmark], out: Path, quick: bool, lock: int) -> Outcome:
    outcome = Outcome()
    missing = [benchmark for benchmark in benchmarks if not (out / benchmark.file).exists()]
    for number, benchmark in enumerate(benchmarks, 1):
        place = f"[{number}/{len(benchmarks)}] {benchmark.name}"
        if benchmark not in missing:
            say(f"{place}: measured before")
            continue
        left_s = sum(each.expected_s(quick) for each in missing[missing.index(benchmark) :])
        say(f"{place}: begins, about {format_time(left_s)} left")
        started_s = time.monotonic()
        exit_code, last_line = run_one(benchmark, out, quick, place, lock)
        if exit_code == LACKING:
            outcome.lacking[benchmark.name] = last_line
        elif exit_code:
            outcome.failed.append(benchmark.name)
            say(f"{place}: failed with exit code {exit_code}; the next call tries it again")
        else:
            say(f"{place}: done in {format_time(time.monotonic() - started_s)}")
    return outcome


def run_one(benchmark: Benchmark, out: Path, quick: bool, place: str, lock: int) -> tuple[int, str]:
    """Run one benchmark, show its progress and keep its report; its exit code and the last line that it said.

    ``lock`` is a descriptor that it inherits.

    When this process is killed the benchmark ends at its next line, since nobody reads it.
    """
    last_line = ""
    with tempfile.TemporaryFile() as report:
        # In a group of its own, so that Ctrl-C reaches it once: from here.
        process = subprocess.Popen(
            benchmark.command(quick),
            stdout=report,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            pass_fds=[lock],
        )
        assert process.stderr is not None
        try:
            for line in process.stderr:
                last_line = line.rstrip()
                say(f"{place}: {last_line}")
            exit_code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.communicate()
            raise
        if exit_code == 0:
            report.seek(0)
            kept = json.dumps({"quick": quick, **json.load(report)}).encode()
            write_atomically(out / benchmark.file, kept, mode=PUBLIC)
    return exit_code, last_line


def format_time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def read_results(benchmarks: Sequence[Benchmark], out: Path) -> dict[str, dict[str, Any]]:
    """The reports that are in the folder, by benchmark."""
    files = {benchmark.name: out / benchmark.file for benchmark in benchmarks}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


def gather_figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The yardsticks that these results measured. Those with known clients count only with all ten million."""
    keys = [*YARDSTICKS, HOST_RATE]
    limits = results.get("limits", {})
    figures = {key: limits[key] for key in keys if key in limits and key not in OF_KNOWN_CLIENTS}
    for report in results.values():
        if report.get("clients") == KNOWN_CLIENTS:
            figures |= {key: report[key] for key in OF_KNOWN_CLIENTS if key in report}
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser.add_argument("--quick", action="store_true", help="small sizes, less than five minutes in total")
    parser.add_argument("--out", type=Path, help="the folder of results (bench/results/COMMIT-DATE)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"some of them: {', '.join(names)}")
    options = parser.parse_args()
    machine = describe_machine()
    commit = machine["commit"] or "unknown"
    out = options.out or choose_folder(BENCH / "results", commit, machine["date"], options.quick)
    benchmarks = [benchmark for benchmark in BENCHMARKS if options.only is None or benchmark.name in options.only]
    if any(result["quick"] != options.quick for result in read_results(BENCHMARKS, out).values()):
        parser.error(f"{out} holds results of the other sizes, with or without --quick")
    say(f"results: {out}")
    try:
        outcome = run_all(benchmarks, out, options.quick)
    except KeyboardInterrupt:
        say("interrupted; the same call goes on with what is missing")
        return 130
    results = read_results(BENCHMARKS, out)
    figures = gather_figures(results)
    report = {
        "quick": options.quick,
        **machine,
        "figures": {key: {"value": figures.get(key), "meaning": judge(key, figures)} for key in YARDSTICKS},
        "lacking": outcome.lacking,
        "results": results,
    }
    (out / PAGE).write_bytes(build_page(report))
    if not outcome.failed and options.only is None:
        write_atomically(out / INDEX, json.dumps(report).encode(), mode=PUBLIC)
    print("\n".join(format_yardsticks(figures)))
    print(f"\n{machine['machine']}, {machine['date']}, commit {commit}\n{out / PAGE}")
    for name, reason in outcome.lacking.items():
        print(f"not measured: {name}: {reason}")
    for name in outcome.failed:
        print(f"failed: {name}")
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
