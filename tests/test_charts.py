"""Pages as files: what is in them, that nothing breaks out of them, and that they name no address."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest

from kms_fast.charts import Axis, Bars, Chart, Figure, Listing, Page, Series, Table, draw_page, format_cell

BREAKING_OUT = "</script></style></title><script>alert(1)</script>\"'&<!--"
LINE = Chart(
    title="Rate", x=Axis("time", "s"), y=Axis("granted", "1/s"), points=[1, 2.5], series=[Series("all", [7.25, None])]
)
HISTOGRAM = Chart(
    title="Latency",
    kind="histogram",
    x=Axis("latency", "ms", log=True),
    y=Axis("requests"),
    points=[1.0, 2.0, 4.0],
    series=[Series("all", [31_000, 2])],
)


class Reader(HTMLParser):
    """A page's elements, its text, its scripts and styles, and its policy."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.sources: dict[str, list[str]] = {"script": [], "style": []}
        self.attributes: list[tuple[str, str | None]] = []
        self.policy = ""
        self._within = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._within = tag
        if dict(attrs).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attrs)["content"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in self.sources:
            self.sources[self._within].append(data)
        elif data.strip():
            self.text.append(data)


def read_charts(page: Reader) -> list[dict[str, Any]]:
    charts: list[dict[str, Any]] = json.loads(page.sources["script"][0])
    return charts


def test_values_stand_in_the_page_for_the_script_and_as_tables() -> None:
    page = Reader(draw_page(Page(title="Both", parts=[LINE, HISTOGRAM])))
    line, histogram = read_charts(page)
    assert (line["points"], line["series"][0]["values"], line["histogram"]) == ([1, 2.5], [7.25, None], False)
    assert (histogram["points"], histogram["series"][0]["values"]) == ([1.0, 2.0, 4.0], [31_000, 2])
    assert histogram["axes"] == [
        {"title": "latency (ms)", "unit": "ms", "log": True},
        {"title": "requests", "unit": "", "log": False},
    ]
    assert page.tags.count("table") == 2
    for cells in (["time (s)", "all", "1", "7.25", "2.5", "–"], ["1 – 2", "31,000", "2 – 4", "2"]):
        assert ", ".join(cells) in ", ".join(page.text)


def test_everything_else_needs_no_script() -> None:
    page = Reader(
        draw_page(
            Page(
                title="Title",
                subtitle="below it",
                notice="went wrong",
                figures=[Figure("p99", "10.68", "ms", "of all", "bad")],
                parts=[
                    Bars(title="Parts", values=[("seal", 0.5), ("sign", None), ("write", 2.0)], unit="µs", note="each"),
                    Table(title="Counts", columns=["what", "count"], rows=[["errors", 1234567], ["rest", None]]),
                    Listing(title="Command", text="kms-fast load  x"),
                ],
            )
        )
    )
    said = "|".join(page.text)
    for words in ("Title", "below it", "went wrong", "p99", "10.68", "of all", "0.5 µs", "each", "1,234,567"):
        assert words in said
    assert "kms-fast load  x" in page.text
    assert [value for name, value in page.attributes if name == "width"] == ["25.00%", "0.00%", "100.00%"]
    assert "canvas" not in page.tags
    assert page.sources["script"] == ["[]"]


def test_no_text_breaks_out_of_its_place() -> None:
    series = [Series(BREAKING_OUT, [1.0, 2.0])]
    text = BREAKING_OUT
    page = draw_page(
        Page(
            title=text,
            subtitle=text,
            notice=text,
            figures=[Figure(text, text, text, text)],
            parts=[
                Chart(title=text, x=Axis(text, text), y=Axis(text, text), points=[1, 2], series=series, note=text),
                Bars(title=text, values=[(text, 1.0)], unit=text, note=text),
                Table(title=text, columns=[text], rows=[[text]], note=text),
                Listing(title=text, text=text, note=text),
            ],
        )
    )
    read = Reader(page)
    assert read.tags.count("script") == len(read.sources["script"]) == 2
    assert read.tags.count("style") == read.tags.count("title") == 1
    assert b"<script>alert" not in page
    assert read_charts(read)[0]["series"][0]["name"] == BREAKING_OUT
    assert f"kms_fast {BREAKING_OUT}" not in read.text
    assert sum(part == BREAKING_OUT for part in read.text) >= 12


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else() -> None:
    page = Reader(draw_page(Page(title="x", parts=[LINE])))
    (style,), (_, script) = page.sources["style"], page.sources["script"]
    hashes = {
        kind: "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        for kind, source in (("script-src", script), ("style-src", style))
    }
    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert rules == {kind: f"'{name}'" for kind, name in hashes.items()} | {
        "default-src": "'none'", "img-src": "data:", "base-uri": "'none'", "form-action": "'none'"
    }  # fmt: skip
    assert not [name for name, _ in page.attributes if name == "style" or name.startswith("on")]


def test_a_page_names_no_address() -> None:
    page = draw_page(Page(title="x", parts=[LINE, HISTOGRAM, Bars(title="b", values=[("a", 1.0)])])).decode()
    assert "://" not in page
    read = Reader(page.encode())
    assert [value for name, value in read.attributes if name in {"src", "href", "action", "data"}] == ["data:,"]
    assert not re.search(r"url\(|@import", read.sources["style"][0])


def test_uplot_is_unmodified_and_its_licence_goes_with_it() -> None:
    uplot = files("kms_fast") / "static" / "uplot"
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in uplot.iterdir()}
    assert digests == UPLOT_1_6_32
    page = draw_page(Page(title="x", parts=[LINE])).decode()
    assert "uPlot 1.6.32" in page
    assert (uplot / "LICENSE").read_text() in page


# Of the files in the package ``uplot`` 1.6.32 as its author published it.
UPLOT_1_6_32 = {
    "LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "package.json": "6bfea8e275a2f8194e2395d2dc15f64151e69f141db19741e5a5afe75ba4180b",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), ("as it is", "as it is"), (1234567, "1,234,567"), (53156.21, "53,156"), (999.96, "1,000"),
        (4.2901, "4.29"), (0.0123456, "0.01235"), (0.0, "0"), (100.0, "100"), (-2.5, "-2.5"),
    ],
)  # fmt: skip
def test_numbers_are_short_but_whole(value: str | float | None, text: str) -> None:
    assert format_cell(value) == text


@pytest.mark.parametrize(
    ("points", "values", "kind", "log"),
    [
        ([], [], "line", False),
        ([1.0], [1.0, 2.0], "line", False),
        ([1.0, 2.0], [1.0, 2.0], "histogram", False),
        ([1.0], [], "histogram", False),
        ([0.0, 1.0], [1.0, 2.0], "line", True),
    ],
)
def test_a_chart_that_cannot_be_drawn_is_refused(
    points: list[float], values: list[float], kind: Any, log: bool
) -> None:
    with pytest.raises(ValueError, match="Odd"):
        Chart(title="Odd", kind=kind, x=Axis("x", log=log), y=Axis("y"), points=points, series=[Series("s", values)])


def test_a_number_that_is_not_finite_is_refused() -> None:
    chart = Chart(title="x", x=Axis("x"), y=Axis("y"), points=[1], series=[Series("s", [float("nan")])])
    with pytest.raises(ValueError, match="finite"):
        draw_page(Page(title="x", parts=[chart]))


def test_a_name_that_is_no_text_can_be_shown() -> None:
    assert b"\\udcff.html" in draw_page(Page(title=b"\xff.html".decode("utf-8", "surrogateescape")))
