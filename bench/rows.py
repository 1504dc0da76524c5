"""What benchmarks report: rows, each of one thing that was measured, with every round's value of each of its figures.

A report is one JSON object. Its ``rows`` is a list of ``{"labels": {name: value}, "rounds": {figure: [value, …]}}``;
beside it stand the machine and whatever else a program tells. Figures carry their unit in the name.
"""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

Label = str | int
DIGITS = 5  # more than any of these figures is exact to


@dataclass(frozen=True)
class Row:
    """One thing that was measured: what tells it from the other rows, and each round's value of each figure."""

    labels: dict[str, Label]
    rounds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The labels as people read them."""
        return ", ".join(label if isinstance(label, str) else f"{key} {label:,}" for key, label in self.labels.items())

    def median(self, figure: str) -> float | None:
        """Median of the rounds; None for a figure that this row has not."""
        values = self.rounds.get(figure)
        return statistics.median(values) if values else None


class Table:
    """The rows of one program, filled round by round."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, labels: Mapping[str, Label], figures: Mapping[str, float | None]) -> None:
        """One round's figures of a row; those that are None are left out."""
        row = next((row for row in self.rows if row.labels == labels), None)
        if row is None:
            row = Row(dict(labels))
            self.rows.append(row)
        for figure, value in figures.items():
            if value is not None:
                row.rounds.setdefault(figure, []).append(shorten(value))

    def to_json(self) -> list[dict[str, Any]]:
        return [{"labels": row.labels, "rounds": row.rounds} for row in self.rows]


def shorten(value: float) -> float:
    """The value with as many digits as mean something."""
    return float(f"{value:.{DIGITS}g}")


def read_rows(report: Mapping[str, Any]) -> list[Row]:
    """The rows of a report; none of one that has no rows."""
    return [Row(row["labels"], row["rounds"]) for row in report.get("rows", [])]


def format_rows(rows: list[Row]) -> Iterator[str]:
    """Lines of tables: a heading, then one for each row with the median of each figure. Rows with other labels make
    another table."""
    for number, (_, alike) in enumerate(groupby(rows, key=lambda row: list(row.labels))):
        yield from [""] * (number > 0)
        yield from _format_table(list(alike))


def _format_table(rows: list[Row]) -> Iterator[str]:
    figures = list(dict.fromkeys(figure for row in rows for figure in row.rounds))
    widths = [max(10, len(figure) + 2) for figure in figures]
    width = max((len(row.name) for row in rows), default=0) + 2
    yield " " * width + "".join(f"{figure:>{size}}" for figure, size in zip(figures, widths, strict=True))
    for row in rows:
        medians = (format_value(row.median(figure)) for figure in figures)
        yield f"{row.name:{width}}" + "".join(f"{text:>{size}}" for text, size in zip(medians, widths, strict=True))


def format_value(value: float | None) -> str:
    """Three or more significant digits, thousands parted; a dash for what was not measured."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 100 else f"{value:.3g}"
