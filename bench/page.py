"""Results as one HTML page that stands alone: yardsticks first, then a plot or a table for each benchmark."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rows import Row, format_value, read_rows
from yardsticks import NOT_MEASURED, NOT_REACHED, REACHED, STRETCH, YARDSTICKS

from kms_fast.charts import Axis, Bars, Chart, Figure, Page, Series, Table, draw_page

Results = Mapping[str, Mapping[str, Any]]
Part = Chart | Bars | Table

# In this order everywhere, so that each has its colour.
SERVERS = ("host", "uvloop", "echo", "host, 2 workers")
RATE, CPU, LATENCY = Axis("rate", "1/s"), Axis("CPU of an activation", "µs", log=True), Axis("latency", "ms", log=True)
P99 = "p99_ms"
CONNECTIONS = Axis("connections", log=True)
MOST_PERCENT = 200
STAGES = {"admit": "admit_us", "decide": "decide_us", "tree": "tree_us", "sign": "sign_us", "answer": "answer_us"}
QUICK = "These are the small sizes of --quick: they show that everything works, and are not to be quoted."


def build_page(report: Mapping[str, Any]) -> bytes:
    """The page of a bench.json; what was not measured is left out."""
    results: Results = report["results"]
    parts = [
        draw_distances(report["figures"]),
        draw_yardsticks(report["figures"]),
        *draw_connections(results),
        *draw_latency(results),
        *draw_spacing(results),
        *draw_memory(results),
        *draw_request(results),
        *draw_kernels(results),
        *draw_tables(results),
    ]
    return draw_page(
        Page(
            title="Benchmarks of kms_fast",
            subtitle=f"commit {report['commit']}, {report['date']}, {report['machine']}, Python {report['python']}",
            notice=QUICK if report["quick"] else "",
            figures=list(draw_figures(report)),
            parts=parts,
        )
    )


def draw_figures(report: Mapping[str, Any]) -> Iterator[Figure]:
    """What is to be seen first."""
    meanings = [figure["meaning"] for figure in report["figures"].values()]
    missed, unknown = meanings.count(NOT_REACHED), meanings.count(NOT_MEASURED)
    met = meanings.count(REACHED) + meanings.count(STRETCH)
    note = f"{missed} not reached, {unknown} not measured"
    yield Figure("Yardsticks reached", f"{met} of {len(meanings)}", note=note, tone="bad" if missed else "good")
    yield Figure("… of them at stretch", str(meanings.count(STRETCH)))
    for row in rows_of(report["results"], "limits"):
        if row.labels == {"run": "host kept open"}:
            yield Figure("Rate, 512 kept open", format_value(row.median("rate")), "1/s", "one core, signed and on disk")
            yield Figure("Server CPU of an activation", format_value(row.median("server_us")), "µs", "all processes")


def draw_distances(figures: Mapping[str, Mapping[str, Any]]) -> Part:
    """Each yardstick as a part of its bound, so that all of them can stand side by side."""
    parts: list[tuple[str, float | None]] = []
    for key, yardstick in YARDSTICKS.items():
        value = figures[key]["value"]
        ratio = None if not value else value / yardstick.reach
        percent = ratio and 100 * (ratio if yardstick.sign == "≤" else 1 / ratio)
        parts.append((yardstick.what, percent and round(min(percent, MOST_PERCENT))))
    return Bars(
        title="Distance to reach",
        values=parts,
        unit="%",
        note="Measured ÷ reach, turned over where more is better: at most 100 % is reached, shorter is better. "
        f"{MOST_PERCENT} % stands for whatever is more.",
    )


def draw_yardsticks(figures: Mapping[str, Mapping[str, Any]]) -> Part:
    rows = [
        [
            yardstick.what,
            format_value(figures[key]["value"]),
            keep_together(f"{yardstick.sign} {yardstick.reach:,}"),
            keep_together(f"{yardstick.sign} {yardstick.stretch:,}"),
            keep_together(figures[key]["meaning"]),
        ]
        for key, yardstick in YARDSTICKS.items()
    ]
    return Table(title="Yardsticks", columns=["figure", "measured", "reach", "stretch", "meaning"], rows=rows)


def draw_connections(results: Results) -> Iterator[Part]:
    """CPU, rate and latency beside both limits."""
    rows = sort_servers(rows_of(results, "connections"))
    for way in ("kept open", "a connection each"):
        of_way = [row for row in rows if row.labels["way"] == way]
        for title, axis, figure in (("CPU of an activation", CPU, "server_us"), ("Rate, closed loop", RATE, "rate")):
            yield from draw_chart(f"{title}, {way}", of_way, CONNECTIONS, axis, "connections", "server", figure)
    kept_open = [row for row in rows if row.labels["way"] == "kept open"]
    yield from draw_chart(
        "p99 latency, kept open, closed loop", kept_open, CONNECTIONS, LATENCY, "connections", "server", P99
    )


def draw_latency(results: Results) -> Iterator[Part]:
    """The curve of the host against the offered rate, and beside the limit against the part of the peak."""
    rows = [row for row in sort_servers(rows_of(results, "latency")) if row.median("offered")]
    percentiles = {"p50": "p50_ms", "p90": "p90_ms", "p99": P99}
    for server, of_server in groupby(rows, key=lambda row: row.labels["server"]):
        alike = sorted(of_server, key=lambda row: row.median("offered") or 0)
        yield Chart(
            title=f"Latency against offered rate: {server}",
            x=Axis("offered", "1/s"),
            y=LATENCY,
            points=[row.median("offered") or 0 for row in alike],
            series=[Series(name, [row.median(figure) for row in alike]) for name, figure in percentiles.items()],
            note="Open loop, 512 connections kept open, 10 to 95 % of the server's own peak rate.",
        )
    part = Axis("offered", "% of peak")
    yield from draw_chart("p99 against the part of the peak rate", rows, part, LATENCY, "percent", "server", P99)


def draw_spacing(results: Results) -> Iterator[Part]:
    rows = rows_of(results, "spacing")
    spacing = Axis("least time between two batches", "ms")
    for title, axis, figure in (
        ("CPU of an activation against batch spacing", Axis("CPU of an activation", "µs"), "server_us"),
        ("p50 latency against batch spacing", Axis("latency", "ms"), "p50_ms"),
        ("Activations a batch against batch spacing", Axis("activations a batch"), "batch"),
    ):
        yield from draw_chart(title, rows, spacing, axis, "spacing_ms", "way", figure)


def draw_memory(results: Results) -> Iterator[Part]:
    rows = sort_servers(rows_of(results, "memory"))
    memory = Axis("all processes, a connection", "KiB")
    yield from draw_chart(
        "Memory of open connections", rows, Axis("open connections"), memory, "connections", "server", "kib"
    )
    figures = {"worker": "worker_mib", "recorder": "recorder_mib", "inventory": "inventory_mib"}
    grown = {
        place_of(row, "known clients"): row
        for name in ("known_clients_1m", "known_clients_10m")
        for row in rows_of(results, name)
        if isinstance(row.labels.get("known clients"), int)
    }
    points = sorted(grown)
    if len(points) > 1:
        yield Chart(
            title="Growth with known clients",
            x=Axis("known clients"),
            y=Axis("memory and disk", "MiB"),
            points=points,
            series=[Series(name, [grown[x].median(figure) for x in points]) for name, figure in figures.items()],
            note="Memory of worker and recorder, the inventory on disk.",
        )


def draw_request(results: Results) -> Iterator[Part]:
    rows = rows_of(results, "request")
    if rows:
        yield Chart(
            title="One request through the core, by stages",
            x=Axis("requests of a batch", log=True),
            y=Axis("time of a request", "µs", log=True),
            points=[place_of(row, "batch") for row in rows],
            series=[Series(name, [row.median(figure) for row in rows]) for name, figure in STAGES.items()],
            note="The signature is one a batch. An answer's time is mostly the kernel's, which takes it.",
        )


def draw_kernels(results: Results) -> Iterator[Part]:
    rows = sorted(rows_of(results, "kernels"), key=lambda row: (row.labels["kernel"], row.labels["bytes"]))
    for (kernel, size), alike in groupby(rows, key=lambda row: (row.labels["kernel"], row.labels["bytes"])):
        values = [(str(row.labels["by"]), row.median("ns"), row.median("cycles_per_byte")) for row in alike]
        cycles = [f"{by} {format_value(per_byte)}" for by, _, per_byte in values if per_byte]
        yield Bars(
            title=f"{kernel}, {size:,} bytes",
            values=[(by, ns) for by, ns, _ in values],
            unit="ns",
            note=f"Cycles a byte: {', '.join(cycles)}." if cycles else "",
        )


def draw_tables(results: Results) -> Iterator[Part]:
    """Medians of whatever has no plot of its own, and of what is worth to be read beside one."""
    for name in ("limits", "known_clients_10m", "inventory", "ledger", "shared_store"):
        rows = [row for row in rows_of(results, name) if "figure" not in row.labels]
        for labels in dict.fromkeys(tuple(row.labels) for row in rows):
            alike = [row for row in rows if tuple(row.labels) == labels]
            yield draw_table(f"{name.replace('_', ' ')}, by {' and '.join(labels)}", alike)


def draw_table(title: str, rows: list[Row]) -> Part:
    """The medians of rows with the same labels."""
    figures = list(dict.fromkeys(figure for row in rows for figure in row.rounds))
    return Table(
        title=title,
        columns=[*rows[0].labels, *(figure.replace("_", " ") for figure in figures)],
        rows=[[*row.labels.values(), *(row.median(figure) for figure in figures)] for row in rows],
    )


def draw_chart(title: str, rows: Sequence[Row], x: Axis, y: Axis, along: str, by: str, figure: str) -> Iterator[Part]:
    """A line for each value of the label ``by``, along the label ``along``; nothing when there are no rows."""
    points = sorted({place_of(row, along) for row in rows})
    names = list(dict.fromkeys(str(row.labels[by]) for row in rows))
    found = {(str(row.labels[by]), place_of(row, along)): row.median(figure) for row in rows}
    series = [Series(name, [found.get((name, point)) for point in points]) for name in names]
    if points:
        yield Chart(title=title, x=x, y=y, points=points, series=series)


def rows_of(results: Results, name: str) -> list[Row]:
    """The rows of one benchmark; none when it was not measured."""
    return read_rows(results.get(name, {}))


def keep_together(text: str) -> str:
    """The text with no place where a line may end."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def place_of(row: Row, label: str) -> int:
    """A label that is a number, as the place on an axis. Raises ValueError for one that is none."""
    return int(row.labels[label])


def sort_servers(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: SERVERS.index(str(row.labels["server"])))
