"""What a load says at its end, as a page with charts."""

import math
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kms_fast import __version__
from kms_fast._core import backend
from kms_fast.charts import Axis, Chart, Figure, Listing, Page, Series, Table
from kms_fast.load.plan import LoadPlan, LoadResult
from kms_fast.load.report import describe_connections, latency_ranges, make_figures
from kms_fast.load.timeline import PERCENTS, Sample
from kms_fast.results import BY_NAME

HISTOGRAM_RANGES = 60
TAIL_POINTS_PER_DECADE = 10
_TIME = Axis("time", "s")
_LATENCY = Axis("latency", "ms", log=True)


def make_page(
    plan: LoadPlan,
    result: LoadResult,
    samples: Sequence[Sample],
    *,
    title: str,
    command: str,
    notice: str = "",
    figures: Sequence[Figure] = (),
    parts: Sequence[Table] = (),
) -> Page:
    """The page of a load: what was asked for, what came of it, and how it went on over time.

    ``command``: the command line without secrets. ``notice``: why the load did not come to its end. ``figures`` and
    ``parts`` stand behind the load's own key figures, and before its tables.
    """
    known = make_figures(result)
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return Page(
        title=title,
        subtitle=f"{now} · {describe_machine()}",
        notice=notice,
        figures=[*_list_key_figures(result, known), *figures],
        parts=[
            Listing(title="Command", text=command),
            *_list_charts(plan, result, samples),
            *parts,
            *_list_tables(plan, result, known),
        ],
    )


def describe_machine() -> str:
    """Processor, number of cores and system of this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # a system without it
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.machine()
    return f"{processor}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def _list_key_figures(result: LoadResult, known: dict[str, Any]) -> list[Figure]:
    rate = f"{known['activations_per_second']:,.0f}"
    batch, latency = known["batch_size"], known["latency_ms"]
    return [
        Figure("activations a second", rate, note=f"{result.activations:,} in {known['seconds']:.2f} s"),
        Figure("errors", f"{result.failed:,}", tone="bad" if result.failed else "good"),
        *([Figure("refused", f"{result.refused:,}", tone="bad")] if result.refused else []),
        *(
            Figure(f"latency, {_name_percentile(name)}", f"{latency[name]:,.2f}", "ms")
            for name in ("p50", "p99", "max")
            if latency[name] is not None
        ),
        *([Figure("answers a batch", f"{batch['mean']:,}", note=f"at most {batch['max']:,}")] if batch["mean"] else []),
    ]


def _list_charts(plan: LoadPlan, result: LoadResult, samples: Sequence[Sample]) -> list[Chart]:
    charts = [_draw_histogram(result), _draw_tail(result)] if result.latencies else []
    if not samples:
        return charts
    times = [sample.end_s for sample in samples]
    over_time = [_draw_rate(plan, result, times, samples)]
    if result.failed or result.refused:
        over_time.append(_draw_errors(times, samples))
    if any(sample.latencies_ns for sample in samples):
        over_time.append(_draw_latency(times, samples))
    if any(sample.answers_per_batch for sample in samples):
        sizes = Series("mean", [sample.answers_per_batch for sample in samples])
        over_time.append(
            Chart(title="Batch size over time", x=_TIME, y=Axis("answers a batch"), points=times, series=[sizes])
        )
    return [over_time[0], *charts, *over_time[1:]]


def _draw_rate(plan: LoadPlan, result: LoadResult, times: Sequence[float], samples: Sequence[Sample]) -> Chart:
    series = [Series("granted", [sample.activations / sample.seconds for sample in samples])]
    if plan.rate:
        series.append(Series("offered", [plan.rate] * len(samples), tone="muted", dashed=True))
    return Chart(
        title="Rate over time",
        x=_TIME,
        y=Axis("activations", "1/s"),
        points=times,
        series=series,
        note="" if result.failed or result.refused else "No errors and no refusals.",
    )


def _draw_errors(times: Sequence[float], samples: Sequence[Sample]) -> Chart:
    return Chart(
        title="Errors and refusals over time",
        x=_TIME,
        y=Axis("requests", "1/s"),
        points=times,
        series=[
            Series("errors", [sample.failed / sample.seconds for sample in samples], tone="bad"),
            Series("refused", [sample.refused / sample.seconds for sample in samples]),
        ],
    )


def _draw_latency(times: Sequence[float], samples: Sequence[Sample]) -> Chart:
    names = [f"p{percent:g}" if percent < 100 else "max" for percent in PERCENTS]
    return Chart(
        title="Latency over time",
        x=_TIME,
        y=_LATENCY,
        points=times,
        series=[
            Series(name, [sample.latencies_ns[i] / 1e6 if sample.latencies_ns else None for sample in samples])
            for i, name in enumerate(names)
        ],
        note="Of the requests answered since the point before.",
    )


def _draw_histogram(result: LoadResult) -> Chart:
    ranges = latency_ranges(result.latencies, HISTOGRAM_RANGES)
    total = sum(count for _, _, count in ranges)
    return Chart(
        title="Latency",
        kind="histogram",
        x=_LATENCY,
        y=Axis("share of requests", "%"),
        points=[low / 1e6 for low, _, _ in ranges] + [ranges[-1][1] / 1e6],
        series=[Series("requests", [100 * count / total for _, _, count in ranges])],
    )


def _draw_tail(result: LoadResult) -> Chart:
    """The latency that one request in 1, 10, 100, … exceeds: what a histogram is too coarse for."""
    histogram = result.histogram()
    decades = math.log10(histogram.count)
    odds = [10 ** (i / TAIL_POINTS_PER_DECADE) for i in range(math.floor(decades * TAIL_POINTS_PER_DECADE) + 1)]
    return Chart(
        title="The slowest requests",
        x=Axis("one request in so many takes longer", log=True),
        y=_LATENCY,
        points=odds,
        series=[Series("latency", [histogram.percentile_ns(100 - 100 / one_in) / 1e6 for one_in in odds])],
    )


def _list_tables(plan: LoadPlan, result: LoadResult, known: dict[str, Any]) -> list[Table]:
    tables = [
        Table(title="Counts", columns=["", "requests"], rows=_list_counts(result)),
        Table(
            title="Latency percentiles",
            columns=["", "ms"],
            rows=[[_name_percentile(name), ms] for name, ms in known["latency_ms"].items()],
            note="From the time a request was due (--rate), else from when it began. Refusals count, errors do not.",
        ),
        Table(title="Run", columns=["", ""], rows=_list_settings(plan, known)),
    ]
    if result.refusals:
        rows = [[name, count, BY_NAME[name].meaning] for name, count in known["refusals"].items()]
        tables.insert(1, Table(title="Refusals", columns=["result", "count", "meaning"], rows=rows))
    if result.errors:
        rows = [[kind, error["count"], error["example"]] for kind, error in known["error_kinds"].items()]
        tables.insert(1, Table(title="Errors", columns=["kind", "count", "first example"], rows=rows))
    return tables


def _list_counts(result: LoadResult) -> list[list[str | int]]:
    return [
        ["sent", result.requests],
        ["activated", result.activations],
        ["of these verified: seal, signatures, inclusion, bounds, times", result.verified],
        ["of these taken unopened (--verify)", result.activations - result.verified],
        ["refused", result.refused],
        ["errors", result.failed],
        ["connections opened", result.connections],
    ]


def _list_settings(plan: LoadPlan, known: dict[str, Any]) -> list[list[str]]:
    asked = f"{plan.activations:,} activations" if plan.activations else f"{plan.seconds:g} s"
    cpu_us = known["load_cpu_us_per_activation"]
    return [
        ["host", plan.host],
        ["asked for", asked],
        [
            "offered",
            f"{plan.rate:,.0f} a second (open loop)" if plan.rate else "a request for each answer (closed loop)",
        ],
        ["connections", f"{plan.connections:,} at once, {describe_connections(plan)}"],
        ["machines", f"{plan.clients[1] - plan.clients[0]:,}"],
        ["answers verified", f"{plan.verify_percent:g} %"],
        ["CPU of the load itself", "–" if cpu_us is None else f"{cpu_us:.1f} µs an activation"],
        ["kms_fast", f"{__version__} ({', '.join(backend().values())}; Python {platform.python_version()})"],
    ]


def _name_percentile(name: str) -> str:
    return {"p999": "p99.9"}.get(name, name)
