"""bench/run.py with made-up benchmarks: results are kept through Ctrl-C and kill -9, and the rest is tried again."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from run import (
    BENCH,
    BENCHMARKS,
    Benchmark,
    choose_folder,
    gather_figures,
    hold_folder,
    main,
    read_results,
    run_all,
)
from yardsticks import KNOWN_CLIENTS, YARDSTICKS

ROOT = Path(__file__).parents[2]
WAIT_S = 30

# Notes its start in "ran". "slow" then waits until somebody stops it, unless a file "go" is there.
PROGRAM = """
import os, sys, time
from pathlib import Path
name, folder = sys.argv[2], Path(__file__).parent
with (folder / "ran").open("a") as file:
    print(name, file=file)
try:
    while name == "slow" and not (folder / "go").exists():
        print("waiting", file=sys.stderr, flush=True)
        time.sleep(0.05)
finally:
    (folder / f"{name}.ended").touch()
if name == "broken":
    sys.exit("it broke")
if name == "lacking":
    print("no such server here", file=sys.stderr)
    sys.exit(77)
print('{"name": "%s"}' % name)
"""

DRIVER = """
import sys
from pathlib import Path
import run
folder = Path(sys.argv[1])
benchmarks = [run.Benchmark(name, str(folder / "program.py"), 1, 1, name) for name in ("first", "slow", "last")]
try:
    run.run_all(benchmarks, folder / "out", quick=False)
except KeyboardInterrupt:
    sys.exit(130)
"""


def make_benchmarks(folder: Path, *names: str) -> list[Benchmark]:
    (folder / "program.py").write_text(PROGRAM)
    return [Benchmark(name, str(folder / "program.py"), 1, 1, name, name) for name in names]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not come"
        time.sleep(0.02)


def list_runs(folder: Path) -> list[str]:
    return (folder / "ran").read_text().split()


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_second_call_goes_on_with_what_is_missing(tmp_path: Path, number: int, exit_code: int) -> None:
    benchmarks = make_benchmarks(tmp_path, "first", "slow", "last")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(BENCH)))}
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert driver.stderr is not None
        while "slow: waiting" not in driver.stderr.readline():
            assert driver.poll() is None
        driver.send_signal(number)
        driver.stderr.read()
        assert driver.wait(WAIT_S) == exit_code
    finally:
        driver.kill()
        driver.wait()
    # the benchmark that ran ends too, and gets to clean up
    wait_for(tmp_path / "slow.ended")
    assert list_runs(tmp_path) == ["first", "slow"]
    assert list(read_results(benchmarks, tmp_path / "out")) == ["first"]

    (tmp_path / "go").touch()
    assert run_all(benchmarks, tmp_path / "out", quick=False).failed == []
    assert list_runs(tmp_path) == ["first", "slow", "slow", "last"]
    assert list(read_results(benchmarks, tmp_path / "out")) == ["first", "slow", "last"]


def test_two_runs_do_not_measure_at_once_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (first,) = make_benchmarks(tmp_path, "first")
    other = threading.Thread(target=run_all, args=([first], tmp_path / "out", False))
    with hold_folder(tmp_path / "out"):
        other.start()
        while "waiting for another run" not in capsys.readouterr().err:
            assert other.is_alive()
            time.sleep(0.02)
        assert not (tmp_path / "ran").exists()
    other.join(WAIT_S)
    assert list_runs(tmp_path) == ["first"]


def test_a_folder_keeps_to_one_kind_of_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "limits.json").write_text('{"quick": true}')
    monkeypatch.setattr("sys.argv", ["run.py", "--out", str(tmp_path), "--only", "limits"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "other sizes" in capsys.readouterr().err


def test_what_failed_is_named_and_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmarks = make_benchmarks(tmp_path, "broken", "lacking", "first")
    for _ in range(2):
        outcome = run_all(benchmarks, tmp_path / "out", quick=True)
        assert (outcome.failed, outcome.lacking) == (["broken"], {"lacking": "no such server here"})
    assert list_runs(tmp_path) == ["broken", "lacking", "first", "broken", "lacking"]
    assert "[1/3] broken: it broke" in capsys.readouterr().err


def test_a_folder_that_is_not_complete_is_continued_on_another_day(tmp_path: Path) -> None:
    assert choose_folder(tmp_path, "abc1234", "2026-02-02", quick=False).name == "abc1234-2026-02-02"
    (tmp_path / "abc1234-2026-02-01").mkdir()
    (tmp_path / "abc1234-dirty-2026-02-01").mkdir()
    (tmp_path / "abc1234-2026-02-01-quick").mkdir()
    assert choose_folder(tmp_path, "abc1234", "2026-02-02", quick=False).name == "abc1234-2026-02-01"
    assert choose_folder(tmp_path, "abc1234", "2026-02-02", quick=True).name == "abc1234-2026-02-01-quick"
    (tmp_path / "abc1234-2026-02-01" / "bench.json").touch()
    assert choose_folder(tmp_path, "abc1234", "2026-02-02", quick=False).name == "abc1234-2026-02-02"


def test_figures_of_few_known_clients_are_not_the_yardsticks() -> None:
    limits = dict.fromkeys(YARDSTICKS, 1.0) | {"rate_ratio_10m": None, "host_rate": 90_000, "rate_ratio_uvloop": None}
    inventory = {"recorder_per_s": 140_000, "dashboard_ms": 1.3, "clients": 1000}
    figures = gather_figures({"limits": limits, "inventory": inventory})
    assert figures.keys() == YARDSTICKS.keys() - {"rate_ratio_10m", "recorder_per_s", "dashboard_ms"} | {"host_rate"}
    assert figures["rate_ratio_uvloop"] is None
    figures = gather_figures({"limits": limits, "inventory": inventory | {"clients": KNOWN_CLIENTS}})
    assert figures["recorder_per_s"] == 140_000
    assert "rate_ratio_10m" not in figures


def test_every_program_is_there_and_the_quick_ones_take_less_than_five_minutes() -> None:
    assert len({benchmark.name for benchmark in BENCHMARKS}) == len(BENCHMARKS)
    for benchmark in BENCHMARKS:
        assert (BENCH / benchmark.program).is_file()
    assert sum(benchmark.quick_takes_s for benchmark in BENCHMARKS) < 300


def test_every_program_explains_itself() -> None:
    for program in sorted({benchmark.program for benchmark in BENCHMARKS} | {"run.py", "compare.py"}):
        shown = subprocess.run([sys.executable, BENCH / program, "--help"], capture_output=True, text=True, timeout=60)
        assert shown.returncode == 0, program
        assert "--json" in shown.stdout or program == "run.py"


def test_a_small_benchmark_runs_from_beginning_to_end(tmp_path: Path) -> None:
    request = Benchmark("request", "request.py", 1, 1, "--rounds 2 --milliseconds 1 --sizes 1 2")
    assert run_all([request], tmp_path, quick=False).failed == []
    rows = json.loads((tmp_path / "request.json").read_text())["rows"]
    assert [row["labels"] for row in rows] == [{"batch": 1}, {"batch": 2}]
    assert all(len(values) == 2 for row in rows for values in row["rounds"].values())


def test_the_benchmark_of_known_clients_comes_to_its_end(
    tmp_path: Path, unavailable: Callable[[str], NoReturn]
) -> None:
    """It waits for recorder and summary, which a small one shows as well as one of ten million."""
    if not {0, 1} <= os.sched_getaffinity(0):
        unavailable("needs the cores 0 and 1")
    small = Benchmark("known", "known_clients.py", 1, 1, "--clients 2000 --rounds 1 --seconds 0.3")
    assert run_all([small], tmp_path, quick=False).failed == []
    assert json.loads((tmp_path / "known.json").read_text())["rate_ratio_10m"] > 0
