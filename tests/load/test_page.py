"""The page of a load: the figures of ``--json``, what went wrong, and how it went on."""

from dataclasses import replace
from typing import Any

import pytest

from kms_fast.charts import Chart, Figure, Listing, Page, Table, draw_page, format_cell
from kms_fast.load.page import describe_machine, make_page
from kms_fast.load.plan import LoadPlan, LoadResult
from kms_fast.load.report import make_figures
from kms_fast.load.timeline import Sample
from tests.test_charts import BREAKING_OUT, Reader

PLAN = LoadPlan(address="127.0.0.1", port=1688, product=None, machine_seed=bytes(32), seconds=10, rate=600.0)
RESULT = LoadResult(
    requests=1005, activations=1000, verified=900, refused=2, failed=3, connections=256, batches=10.02, batch_max=200,
    start_ns=10**9, end_ns=3 * 10**9, cpu_s=0.01, latencies=((1_000_000, 990), (9_000_000, 12)),
    latency_max_ns=9_000_000, errors={"NO_ANSWER": (2, BREAKING_OUT), "BATCH_SIGNATURE": (1, "check 19")},
    refusals={0xC004F06C: 2}, finished=True,
)  # fmt: skip
SAMPLES = [
    Sample(1.0, 1.0, 600, 0, 0, 99.0, (1_000_000, 1_000_000, 9_000_000, 9_000_000, 9_000_000)),
    Sample(1.5, 0.5, 400, 2, 1, 101.0, (1_000_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000)),
    Sample(2.0, 0.5, 0, 0, 2, None, None),
]


def make(result: LoadResult = RESULT, samples: list[Sample] = SAMPLES, **changes: Any) -> Page:
    return make_page(replace(PLAN, **changes), result, samples, title="Load", command="kms-fast load 'a b'")


def find_chart(page: Page, title: str) -> Chart:
    (chart,) = [part for part in page.parts if isinstance(part, Chart) and part.title == title]
    return chart


def list_rows(page: Page) -> dict[str, dict[Any, Any]]:
    """By title, each table's rows: the first cell, and the second."""
    return {part.title: {row[0]: row[1] for row in part.rows} for part in page.parts if isinstance(part, Table)}


def test_the_figures_are_those_of_json() -> None:
    page, known = make(), make_figures(RESULT)
    shown = {figure.label: figure.value for figure in page.figures}
    assert shown["activations a second"] == f"{known['activations_per_second']:,.0f}" == "500"
    assert shown["errors"] == str(known["errors"]) == "3"
    assert shown["refused"] == str(known["refused"]) == "2"
    assert shown["answers a batch"] == str(known["batch_size"]["mean"])
    for name in ("p50", "p99", "max"):
        assert shown[f"latency, {name}"] == f"{known['latency_ms'][name]:.2f}"
    tables = list_rows(page)
    assert list(tables["Latency percentiles"].values()) == list(known["latency_ms"].values())
    counts = tables["Counts"]
    for label, name in (("sent", "requests"), ("activated", "activations"), ("connections opened", "connections")):
        assert counts[label] == known[name]
    assert counts["of these verified: seal, signatures, inclusion, bounds, times"] == known["verified"]
    assert counts["of these taken unopened (--verify)"] == 100
    assert tables["Errors"] == {kind: error["count"] for kind, error in known["error_kinds"].items()}
    assert tables["Refusals"] == known["refusals"]


def test_each_kind_of_error_stands_there_with_its_example_and_nothing_breaks_out() -> None:
    page = draw_page(make())
    assert BREAKING_OUT in Reader(page).text
    assert b"<script>alert" not in page
    assert "check 19" in Reader(page).text


def test_the_histogram_holds_every_latency() -> None:
    chart = find_chart(make(), "Latency")
    shares = chart.series[0].values
    assert sum(filter(None, shares)) == pytest.approx(100)
    assert (shares[0], shares[-1]) == (pytest.approx(100 * 990 / 1002), pytest.approx(100 * 12 / 1002))
    assert chart.points[0] == pytest.approx(1.0, rel=1 / 128)
    assert chart.points[-2] <= 9.0 <= chart.points[-1]
    assert list(chart.points) == sorted(chart.points)


def test_the_tail_ends_with_the_slowest() -> None:
    chart = find_chart(make(), "The slowest requests")
    tail = dict(zip(chart.points, chart.series[0].values, strict=True))
    assert tail[1.0] == tail[10.0] == pytest.approx(1.0, rel=1 / 128)
    assert tail[100.0] == tail[1000.0] == 9.0


def test_rates_are_per_second_of_each_sample() -> None:
    page = make()
    rate, errors = find_chart(page, "Rate over time"), find_chart(page, "Errors and refusals over time")
    assert [(series.name, list(series.values)) for series in (*rate.series, *errors.series)] == [
        ("granted", [600, 800, 0]), ("offered", [600, 600, 600]), ("errors", [0, 2, 4]), ("refused", [0, 4, 0])
    ]  # fmt: skip
    latency = find_chart(page, "Latency over time")
    assert [series.name for series in latency.series] == ["p50", "p90", "p99", "p99.9", "max"]
    assert list(latency.series[2].values) == [9.0, 1.0, None]
    assert list(find_chart(page, "Batch size over time").series[0].values) == [99.0, 101.0, None]


def test_a_load_without_errors_says_so_and_has_no_chart_of_them() -> None:
    page = make(replace(RESULT, failed=0, refused=0, errors={}, refusals={}), rate=0.0)
    assert find_chart(page, "Rate over time").note == "No errors and no refusals."
    assert [series.name for series in find_chart(page, "Rate over time").series] == ["granted"]
    assert not [part for part in page.parts if part.title.startswith(("Errors", "Refusals"))]
    assert {figure.label: figure.tone for figure in page.figures}["errors"] == "good"


def test_the_page_says_what_was_run_where_and_when() -> None:
    page = make(per_connection=1, activations=700, rate=0.0)
    assert [part.text for part in page.parts if isinstance(part, Listing)] == ["kms-fast load 'a b'"]
    assert describe_machine() in page.subtitle
    assert "UTC" in page.subtitle
    run = list_rows(page)["Run"]
    assert run["host"] == "127.0.0.1:1688"
    assert run["asked for"] == "700 activations"
    assert run["connections"] == "256 at once, opened for each activation"
    assert "closed loop" in run["offered"]
    assert "500 a second" in list_rows(make(rate=500.0))["Run"]["offered"]


@pytest.mark.parametrize(
    "result",
    [
        LoadResult(),
        LoadResult(activations=1, latencies=((5, 1),), latency_max_ns=5, start_ns=1, end_ns=1),
        LoadResult(failure=("NO_ANSWER", "none"), failed=1, errors={"NO_ANSWER": (1, "none")}),
    ],
)
def test_what_hardly_began_can_be_shown(result: LoadResult) -> None:
    assert b"Counts" in draw_page(make(result, samples=[]))


def test_more_figures_and_tables_have_their_place() -> None:
    more = Table(title="Proof", columns=["", ""], rows=[["✓", "all of it"]])
    page = make_page(
        PLAN, RESULT, SAMPLES, title="Lab", command="x", notice="Stopped.", figures=[Figure("CPU", "1")], parts=[more]
    )
    assert page.figures[-1].label == "CPU"
    assert page.notice == "Stopped."
    titles = [part.title for part in page.parts]
    assert titles.index("Batch size over time") < titles.index("Proof") < titles.index("Counts")


def test_a_page_shows_numbers_as_tables_format_them() -> None:
    text = Reader(draw_page(make())).text
    for value in make_figures(RESULT)["latency_ms"].values():
        assert format_cell(value) in text
