"""What a load says at its end: the figures, as `--json` prints them, and the same as a page."""

import math
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kms_fast import __version__
from kms_fast._core import CHECK_NAMES, backend
from kms_fast.errors import AnswerRejected, KmsFastError, NoHost, Refused, Unsigned
from kms_fast.load.plan import LoadPlan, LoadResult
from kms_fast.results import BY_NAME, find_result

BAR_CELLS = 40
HISTOGRAM_ROWS = 10
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_NOT_REACHED = frozenset({"CONNECTION_FAILED", "CONNECTION_LOST", "NO_ANSWER"})


def make_figures(result: LoadResult) -> dict[str, Any]:
    """The object of `kms-fast load --json`; times in ms, CPU in µs.

    ``verified`` counts the activations whose answer went through every check; ``errors`` whatever was neither granted
    nor refused by a host that could prove it, ``error_kinds`` says what that was.
    """
    return {
        "ok": result.failed == 0 and result.activations > 0,
        "activations": result.activations,
        "activations_per_second": round(result.activations / result.seconds, 1) if result.seconds else 0.0,
        "errors": result.failed,
        "verified": result.verified,
        "refused": result.refused,
        "latency_ms": _latency_ms(result),
        "batch_size": {
            "mean": round((result.activations + result.refused) / result.batches, 1) if result.batches else None,
            "max": result.batch_max or None,
        },
        "seconds": round(result.seconds, 3),
        "requests": result.requests,
        "connections": result.connections,
        "error_kinds": {kind: {"count": n, "example": example} for kind, (n, example) in sorted(result.errors.items())},
        "refusals": {find_result(code).name: count for code, count in sorted(result.refusals.items())},
        "load_cpu_us_per_activation": _round(result.cpu_s * 1e6 / result.activations) if result.activations else None,
        "backend": backend(),
        "version": __version__,
    }


def find_failure(plan: LoadPlan, result: LoadResult) -> KmsFastError | None:
    """The error of a load that got nothing it asked for: no answer at all, or refusals only."""
    if result.failure is not None:
        kind, text = result.failure
        if kind in _NOT_REACHED:
            return NoHost(f"{plan.host}: {text}", name="NO_HOST_REACHED", hosts=[{"host": plan.host, "error": text}])
        if kind in CHECK_NAMES:
            return AnswerRejected(f"{plan.host}: the answer failed {text}", name=kind)
        if kind in ("RPC_REFUSED", "STORAGE_FAILED"):
            return KmsFastError(text if kind == "STORAGE_FAILED" else f"{plan.host}: {text}", name=kind)
        return Unsigned(f"{plan.host} answered {text}", name=kind if kind in BY_NAME else "RPC_REFUSED")
    if result.activations == 0 and result.refusals:
        code = max(result.refusals, key=lambda code: result.refusals[code])
        return Refused(f"{plan.host} refused all of {result.refused:,} requests", code=code, refused=result.refused)
    return None


def format_progress(result: LoadResult, before: LoadResult) -> str:
    """One line of progress; the rate is the one since the report ``before``."""
    seconds = max(1, result.end_ns - max(before.end_ns, result.start_ns)) / 1e9
    rate = (result.activations - before.activations) / seconds
    return (
        f"{result.seconds:5.1f} s   {result.activations:,} activations   {rate:,.0f}/s"
        + (f"   {result.refused:,} refused" if result.refused else "")
        + (f"   {result.failed:,} errors" if result.failed else "")
    )


def draw_load(plan: LoadPlan, result: LoadResult) -> RenderableType:
    """The page of a load."""
    rate = result.activations / result.seconds if result.seconds else 0
    offered = f", {plan.rate:,.0f} offered a second" if plan.rate else ""
    machines = plan.clients[1] - plan.clients[0]
    return Group(
        Text.assemble("\n  ", (f"{rate:,.0f}", "bold green"), (" activations a second", "bold")),
        Text(f"  {result.activations:,} in {result.seconds:.2f} s, for {machines:,} machines", style="dim"),
        Text(f"  {plan.connections} connections at once, {describe_connections(plan)}{offered}\n", style="dim"),
        draw_counts(result),
        Text("\n  latency", style="bold"),
        draw_percentiles(result),
        draw_histogram(result),
    )


def describe_connections(plan: LoadPlan) -> str:
    """How long a connection lives, in words."""
    ways = {0: "kept open", 1: "opened for each activation"}
    return ways.get(plan.per_connection, f"of {plan.per_connection} activations each")


def draw_counts(result: LoadResult) -> RenderableType:
    """What became of the requests; errors with their kinds and an example each."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="bold")
    table.add_column()
    unverified = result.activations - result.verified
    table.add_row(f"{result.verified:,}", "leases verified: seal, signatures, inclusion, bounds, times")
    if unverified:
        table.add_row(f"{unverified:,}", "answers taken unopened (--verify)")
    for code, count in sorted(result.refusals.items()):
        table.add_row(f"{count:,}", f"refused: {find_result(code).name}", style="yellow")
    table.add_row(f"{result.failed:,}", "errors", style="red" if result.failed else "")
    for kind, (count, example) in sorted(result.errors.items()):
        table.add_row(f"{count:,}", f"{kind}: {example}", style="red")
    return Padding(table, (0, 0, 0, 4))


def draw_percentiles(result: LoadResult) -> RenderableType:
    """p50 to max in one row."""
    table = Table.grid(padding=(0, 3))
    latency = _latency_ms(result)
    for _ in latency:
        table.add_column(justify="right")
    table.add_row(*("p99.9" if name == "p999" else name for name in latency), style="dim")
    table.add_row(*("-" if ms is None else f"{ms:.2f} ms" for ms in latency.values()), style="bold")
    return Padding(table, (0, 0, 1, 4))


def draw_histogram(result: LoadResult) -> RenderableType:
    """How latencies are spread: one bar for each range, the ranges growing by a constant factor."""
    rows = latency_ranges(result.latencies, HISTOGRAM_ROWS)
    most = max((count for _, _, count in rows), default=1)
    total = sum(count for _, _, count in rows)
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", style="dim")
    table.add_column(style="cyan", no_wrap=True, width=BAR_CELLS)
    table.add_column(justify="right", style="dim")
    for low_ns, high_ns, count in rows:
        label = f"{low_ns / 1e6:.2f} – {high_ns / 1e6:.2f} ms"
        table.add_row(label, draw_bar(count / most), f"{100 * count / total:.1f} %" if count else "")
    return Padding(table, (0, 0, 0, 4))


def draw_bar(share: float) -> str:
    """A bar of up to BAR_CELLS cells, in eighths of a cell; never empty for what is not zero."""
    eighths = max(1, round(share * BAR_CELLS * 8)) if share > 0 else 0
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def latency_ranges(latencies: tuple[tuple[int, int], ...], rows: int) -> list[tuple[int, int, int]]:
    """Latencies gathered into at most ``rows`` ranges: (from ns, to ns, count)."""
    if not latencies:
        return []
    lowest = max(1, latencies[0][0])
    highest = max(lowest, latencies[-1][0])
    factor = max((highest / lowest) ** (1 / rows), 1.05)
    wanted = min(rows, math.floor(math.log(highest / lowest, factor) + 1e-9) + 1)
    edges = [lowest * factor**i for i in range(wanted + 1)]
    counts = [0] * wanted
    for ns, count in latencies:
        counts[min(wanted - 1, int(math.log(max(ns, lowest) / lowest, factor)))] += count
    return [(round(edges[i]), round(edges[i + 1]), counts[i]) for i in range(wanted)]


def _latency_ms(result: LoadResult) -> dict[str, float | None]:
    histogram = result.histogram()
    points = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}
    if histogram.count == 0:
        return dict.fromkeys([*points, "max"])
    latency: dict[str, float | None] = {
        name: _round(histogram.percentile_ns(percent) / 1e6) for name, percent in points.items()
    }
    return latency | {"max": _round(histogram.max_ns / 1e6)}


def _round(value: float) -> float:
    return round(value, 3)
