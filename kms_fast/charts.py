"""Pages with figures, tables and charts: one HTML file each, which needs no other file and no network.

    page = Page(title="A load", parts=[Chart(
        title="Rate", x=Axis("time", "s"), y=Axis("activations", "1/s"), points=[1, 2, 3],
        series=[Series("granted", [900, 950, None])],
    )])
    path.write_bytes(draw_page(page))

A page is values; `draw_page` makes the file. Charts are drawn by uPlot, which stands in the file itself; the same
values stand below each chart as a table, for readers without scripts. All text is escaped, so it may come from
anywhere; the page's policy allows its own script and style by their hashes, and no address at all.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from itertools import pairwise
from typing import Any, Literal

from kms_fast import __version__

Cell = str | int | float | None
Tone = Literal["", "good", "bad", "muted"]

_STATIC = files("kms_fast") / "static"


@dataclass(frozen=True, slots=True)
class Figure:
    """A number to be seen first: what it is, the number as text, its unit, and perhaps a few words on it."""

    label: str
    value: str
    unit: str = ""
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows and its unit; ``log`` for a logarithmic one, on which only values above 0 are drawn."""

    label: str
    unit: str = ""
    log: bool = False

    @property
    def title(self) -> str:
        """Label and unit as they stand beside the axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


@dataclass(frozen=True, slots=True)
class Series:
    """Values along a chart's points; None leaves a gap. ``tone`` gives a meaning instead of the next colour."""

    name: str
    values: Sequence[float | None]
    tone: Tone = ""
    dashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Series over numbers that rise.

    ``line``: a value of each series at each point. ``histogram``: the points are the edges of ranges, and a series has
    a value for each range, so one less. Raises ValueError where numbers of values do not fit, there is no point or
    series, or a logarithmic x axis has a point that is not above 0.
    """

    title: str
    x: Axis
    y: Axis
    points: Sequence[float]
    series: Sequence[Series]
    kind: Literal["line", "histogram"] = "line"
    note: str = ""

    def __post_init__(self) -> None:
        wanted = len(self.points) - (self.kind == "histogram")
        if wanted < 1 or not self.series or any(len(series.values) != wanted for series in self.series):
            raise ValueError(f"{self.title}: a {self.kind} needs series of {max(wanted, 1)} values")
        if self.x.log and min(self.points) <= 0:
            raise ValueError(f"{self.title}: a logarithmic axis begins above 0")

    def rows(self) -> Iterator[list[Cell]]:
        """The values as a table: first the point, or the range, then what each series has there."""
        starts: Iterable[Cell] = self.points
        if self.kind == "histogram":
            starts = (f"{format_cell(low)} – {format_cell(high)}" for low, high in pairwise(self.points))
        for start, *values in zip(starts, *(series.values for series in self.series), strict=self.kind == "line"):
            yield [start, *values]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """Numbers from 0 on compared by length, each with its name; they need no script. None is shown as missing."""

    title: str
    values: Sequence[tuple[str, float | None]]
    unit: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows below named columns, as many cells as columns; columns of numbers stand to the right.

    When no column has a name there is no head.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Text to be read as it stands, as a command."""

    title: str
    text: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole page: title, a line below it, a ``notice`` of what went wrong, key figures, then its parts in order."""

    title: str
    subtitle: str = ""
    notice: str = ""
    figures: Sequence[Figure] = ()
    parts: Sequence[Chart | Bars | Table | Listing] = ()


def draw_page(page: Page) -> bytes:
    """The page as an HTML file. Raises ValueError for a number that is not finite."""
    charts = [_describe_chart(part) for part in page.parts if isinstance(part, Chart)]
    style, script = _read_style(), _read_script() if charts else ""
    policy = [
        "default-src 'none'",
        f"script-src {_hash_source(script)}",
        f"style-src {_hash_source(style)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    text = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{"; ".join(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(page.title)}</title>
<style>{style}</style>
</head>
<body>
<header>{_draw_header(page)}</header>
<dl class="figures">{"".join(map(_draw_figure, page.figures))}</dl>
<main>
{"".join(map(_draw_part, page.parts))}</main>
<footer>kms_fast {__version__}</footer>
<script type="application/json" id="charts">{_write_json(charts)}</script>
<script>{script}</script>
</body>
</html>
"""
    # A file name that is no text stands in an argument as lone surrogates, which UTF-8 does not have.
    return text.encode("utf-8", "backslashreplace")


def format_cell(value: Cell) -> str:
    """A value as people read it: four digits that count, but never less than the whole number; None as a dash.

    Raises ValueError for a number that is not finite.
    """
    if value is None:
        return "–"
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be shown: it is not finite")
        decimals = min(9, max(0, 3 - math.floor(math.log10(abs(value))))) if value else 0
        text = f"{value:,.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return value if isinstance(value, str) else f"{value:,}"


def _draw_header(page: Page) -> str:
    subtitle = f"<p>{escape(page.subtitle)}</p>" if page.subtitle else ""
    notice = f'<p class="notice">{escape(page.notice)}</p>' if page.notice else ""
    unscripted = "<noscript><p>The charts need JavaScript. Their values are below them as tables.</p></noscript>"
    return f"<h1>{escape(page.title)}</h1>{subtitle}{notice}{unscripted}"


def _draw_figure(figure: Figure) -> str:
    unit = f" <small>{escape(figure.unit)}</small>" if figure.unit else ""
    note = f'<dd class="note">{escape(figure.note)}</dd>' if figure.note else ""
    value = f'<dd class="value {figure.tone}">{escape(figure.value)}{unit}</dd>'
    return f"<div><dt>{escape(figure.label)}</dt>{value}{note}</div>"


def _draw_part(part: Chart | Bars | Table | Listing) -> str:
    note = f'<p class="note">{escape(part.note)}</p>' if part.note else ""
    match part:
        case Chart():
            heads = [part.x.title, *(series.name for series in part.series)]
            table = _draw_table(heads, part.rows(), caption=part.y.title)
            values = f"<details><summary>Values</summary>{table}</details>"
            inner = f'<div class="plot" role="img" aria-label="{escape(part.title)}"></div>{note}{values}'
        case Bars():
            inner = f"{_draw_bars(part)}{note}"
        case Table():
            inner = f"{_draw_table(part.columns, part.rows)}{note}"
        case Listing():
            inner = f"<pre>{escape(part.text)}</pre>{note}"
    return f'<section class="{type(part).__name__.lower()}"><h2>{escape(part.title)}</h2>{inner}</section>\n'


def _draw_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, caption: str = "") -> str:
    rows = list(rows)
    kinds = ["" if any(isinstance(row[i], str) for row in rows) else ' class="number"' for i in range(len(columns))]
    head = _draw_cells("th", kinds, columns)
    body = "".join(f"<tr>{_draw_cells('td', kinds, row)}</tr>" for row in rows)
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    above += f"<thead><tr>{head}</tr></thead>" if any(columns) else ""
    return f'<div class="scroll"><table>{above}<tbody>{body}</tbody></table></div>'


def _draw_cells(tag: str, kinds: Sequence[str], cells: Sequence[Cell]) -> str:
    pairs = zip(kinds, cells, strict=True)
    return "".join(f"<{tag}{kind}>{escape(format_cell(cell))}</{tag}>" for kind, cell in pairs)


def _draw_bars(bars: Bars) -> str:
    most = max((value for _, value in bars.values if value is not None), default=0) or 1
    unit = f" {bars.unit}" if bars.unit else ""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{escape(format_cell(value) + unit)}</td>'
        f'<td class="bar"><svg aria-hidden="true"><rect width="{100 * (value or 0) / most:.2f}%" height="100%"/></svg>'
        "</td></tr>"
        for name, value in bars.values
    )
    return f"<table>{rows}</table>"


def _describe_chart(chart: Chart) -> dict[str, Any]:
    """A chart as static/charts.js takes it."""
    return {
        "histogram": chart.kind == "histogram",
        "axes": [{"title": axis.title, "unit": axis.unit, "log": axis.log} for axis in (chart.x, chart.y)],
        "points": list(chart.points),
        "series": [
            {"name": series.name, "tone": series.tone, "dashed": series.dashed, "values": list(series.values)}
            for series in chart.series
        ],
    }


def _write_json(value: object) -> str:
    """JSON that ends no element: within a script element only ``<`` could."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _hash_source(text: str) -> str:
    """How a Content-Security-Policy names one inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _read_style() -> str:
    return "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in ("uplot/uPlot.min.css", "charts.css"))


@cache
def _read_script() -> str:
    """uPlot with its licence, then ours. Its first line is a comment with an address: the licence stands instead."""
    version = json.loads((_STATIC / "uplot/package.json").read_text(encoding="utf-8"))["version"]
    licence = (_STATIC / "uplot/LICENSE").read_text(encoding="utf-8")
    program = (_STATIC / "uplot/uPlot.iife.min.js").read_text(encoding="utf-8").partition("*/")[2]
    return f"/*! uPlot {version}\n\n{licence}*/{program}\n" + (_STATIC / "charts.js").read_text(encoding="utf-8")
