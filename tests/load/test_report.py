"""What a load says at its end."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from kms_fast.errors import AnswerRejected, NoHost, Refused, Unsigned
from kms_fast.load.plan import LoadPlan, LoadResult
from kms_fast.load.report import (
    BAR_CELLS,
    HISTOGRAM_ROWS,
    draw_bar,
    draw_load,
    find_failure,
    format_progress,
    latency_ranges,
    make_figures,
)

PLAN = LoadPlan(address="::1", port=1688, product=None, machine_seed=bytes(32))
RESULT = LoadResult(
    requests=1005, activations=1000, verified=900, refused=2, failed=3, batches=10.02, batch_max=200, end_ns=2 * 10**9,
    cpu_s=0.01, latencies=((1_000_000, 990), (9_000_000, 12)), latency_max_ns=9_000_000,
    errors={"NO_ANSWER": (2, "no answer within 10 s"), "BATCH_SIGNATURE": (1, "check 19")}, refusals={0xC004F06C: 2},
    finished=True,
)  # fmt: skip


def test_figures() -> None:
    figures = make_figures(RESULT)
    assert figures["ok"] is False
    assert (figures["activations"], figures["activations_per_second"]) == (1000, 500.0)
    assert (figures["verified"], figures["refused"], figures["errors"]) == (900, 2, 3)
    assert figures["latency_ms"] == {"p50": 1.0, "p90": 1.0, "p99": 9.0, "p999": 9.0, "max": 9.0} | {
        "p50": pytest.approx(1.0, rel=1 / 128), "p90": pytest.approx(1.0, rel=1 / 128)
    }  # fmt: skip
    assert figures["batch_size"] == {"mean": 100.0, "max": 200}
    assert figures["load_cpu_us_per_activation"] == 10.0
    assert figures["error_kinds"]["NO_ANSWER"] == {"count": 2, "example": "no answer within 10 s"}
    assert figures["refusals"] == {"CLOCKS_DIFFER": 2}


def test_figures_of_nothing_are_null_and_not_ok() -> None:
    figures = make_figures(LoadResult())
    assert figures["ok"] is False
    assert set(figures["latency_ms"].values()) == {None}
    assert figures["batch_size"] == {"mean": None, "max": None}
    assert figures["load_cpu_us_per_activation"] is None


@pytest.mark.parametrize(
    ("failure", "kind", "name"),
    [
        (("CONNECTION_FAILED", "refused"), NoHost, "NO_HOST_REACHED"),
        (("NO_ANSWER", "none"), NoHost, "NO_HOST_REACHED"),
        (("REQUEST_UNREADABLE", "0xE04B0001"), Unsigned, "REQUEST_UNREADABLE"),
        (("HOST_NOT_ACTIVATED", "0xC004F041"), Unsigned, "HOST_NOT_ACTIVATED"),
        (("UNKNOWN", "0x00000001"), Unsigned, "RPC_REFUSED"),
        (("BATCH_SIGNATURE", "check 19"), AnswerRejected, "BATCH_SIGNATURE"),
        (("RPC_REFUSED", "fault 0x1C010003"), Exception, "RPC_REFUSED"),
        (("STORAGE_FAILED", "record: No space left on device"), Exception, "STORAGE_FAILED"),
    ],
)
def test_a_load_without_any_answer_is_one_error(failure: tuple[str, str], kind: type, name: str) -> None:
    error = find_failure(PLAN, LoadResult(failure=failure))
    assert isinstance(error, kind)
    assert error is not None
    assert error.result.name == name
    assert failure[1] in error.message


def test_a_load_of_refusals_only_is_the_most_frequent_one() -> None:
    error = find_failure(PLAN, LoadResult(refused=5, refusals={0xC004F038: 2, 0xC004F06C: 3}))
    assert isinstance(error, Refused)
    assert error.result.name == "CLOCKS_DIFFER"
    assert find_failure(PLAN, replace(RESULT, failure=None)) is None


def test_progress_tells_the_rate_since_the_last() -> None:
    before = replace(RESULT, activations=400, end_ns=10**9)
    line = format_progress(RESULT, before)
    for words in ("2.0 s", "1,000 activations", "600/s", "2 refused", "3 errors"):
        assert words in line


def draw(result: LoadResult, **changes: Any) -> str:
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        console.print(draw_load(replace(PLAN, **changes), result))
    return capture.get()


def test_the_page_names_everything_that_is_not_right() -> None:
    page = draw(RESULT, rate=500.0, per_connection=1)
    for words in (
        "500 activations a second",
        "opened for each activation, 500 offered a second",
        "900  leases verified",
        "100  answers taken unopened",
        "2  refused: CLOCKS_DIFFER",
        "3  errors",
        "1  BATCH_SIGNATURE: check 19",
        "2  NO_ANSWER: no answer within 10 s",
    ):
        assert words in page
    assert all(len(line.rstrip()) <= 80 for line in page.splitlines())


def test_a_page_of_nothing_can_be_drawn() -> None:
    assert "0 activations a second" in draw(LoadResult())


@given(st.lists(st.tuples(st.integers(0, 1 << 41), st.integers(1, 1000)), max_size=50, unique_by=lambda pair: pair[0]))
def test_the_ranges_hold_every_latency_once(latencies: list[tuple[int, int]]) -> None:
    ordered = tuple(sorted(latencies))
    rows = latency_ranges(ordered, HISTOGRAM_ROWS)
    assert sum(count for _, _, count in rows) == sum(count for _, count in ordered)
    assert len(rows) <= HISTOGRAM_ROWS
    assert all(before[1] == after[0] for before, after in pairwise(rows))


@given(st.floats(0, 1))
def test_a_bar_is_as_long_as_its_share(share: float) -> None:
    bar = draw_bar(share)
    assert bar.strip() == bar
    assert abs(len(bar) - share * BAR_CELLS) <= 1
    assert bool(bar) == (share > 0)
