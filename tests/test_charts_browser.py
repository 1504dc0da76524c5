"""Pages in a browser without a network: every chart is drawn, nothing is asked for, nothing is complained of."""

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NoReturn

import pytest

from kms_fast.charts import Axis, Bars, Chart, Figure, Listing, Page, Series, Table, draw_page
from tests.browser import NAMES, Browser, open_browser
from tests.hosts import PUBLISHER_ID, RunningHost, run_cli
from tests.test_charts import BREAKING_OUT

TIMES = [0.5 * number for number in range(1, 21)]
PAGE = Page(
    title="All of it",
    notice=BREAKING_OUT,
    figures=[Figure("p99", "10.68", "ms")],
    parts=[
        Chart(
            title="Lines",
            x=Axis("time", "s"),
            y=Axis("rate", "1/s"),
            points=TIMES,
            series=[
                Series(BREAKING_OUT, [50_000 + 1000 * time for time in TIMES]),
                Series("gap", [None if time == 5 else 20_000.0 for time in TIMES], dashed=True),
            ],
        ),
        Chart(
            title="Histogram",
            kind="histogram",
            x=Axis("latency", "ms", log=True),
            y=Axis("share", "%"),
            points=[1.0, 2.0, 4.0, 8.0],
            series=[Series("requests", [20.0, 70.0, 10.0])],
        ),
        Chart(
            title="Logarithmic",
            x=Axis("one in", log=True),
            y=Axis("latency", "ms", log=True),
            points=[1, 10, 100_000],
            series=[Series("latency", [0.5, 0, 300.0])],
        ),
        Chart(title="One", x=Axis("time"), y=Axis("rate"), points=[3], series=[Series("alone", [2.0])]),
        Chart(title="None", x=Axis("time"), y=Axis("rate", log=True), points=[3], series=[Series("gone", [None])]),
        Bars(title="Bars", values=[("a", 1.0), ("b", 2.0)]),
        Table(title="Table", columns=["kind", "example"], rows=[["x", BREAKING_OUT]]),
        Listing(title="Command", text="kms-fast load " + "x" * 300),
    ],
)
# For each chart: how many points of its canvas have the very colour of its first series.
COUNT_DRAWN = """[...document.querySelectorAll(".plot")].map((place) => {
  const canvas = place.querySelector("canvas");
  const style = getComputedStyle(document.documentElement).getPropertyValue("--series-1").trim();
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(style.slice(at, at + 2), 16));
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let drawn = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] === red && data[i + 1] === green && data[i + 2] === blue && data[i + 3] === 255) drawn++;
  }
  return drawn;
})"""


@pytest.fixture
async def browser(unavailable: Callable[[str], NoReturn], tmp_path: Path) -> AsyncIterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None) or unavailable("Chromium is not installed")
    async with open_browser(program, tmp_path / "profile") as running:
        yield running


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    path.write_bytes(draw_page(PAGE))
    return path


@pytest.mark.parametrize("dark", [False, True])
async def test_every_chart_is_drawn_and_nothing_is_asked_for(browser: Browser, page: Path, dark: bool) -> None:
    await browser.open(page, dark=dark)
    *drawn, nothing = await browser.evaluate(COUNT_DRAWN)
    assert len(drawn) == 4
    assert min(drawn) > 0
    assert nothing == 0
    background = await browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 23, 27)" if dark else "rgb(246, 247, 249)")
    assert (browser.complaints, browser.requests) == ([], [])


async def test_values_are_shown_where_the_mouse_is(browser: Browser, page: Path) -> None:
    await browser.open(page)
    await browser.point_at(".chart:nth-of-type(2) .u-over")
    legend = await browser.evaluate("document.querySelector('.chart:nth-of-type(2) .u-legend').innerText")
    for words in ("2 – 4 ms", "70 %"):
        assert words in legend


async def test_a_narrow_window_shows_all_of_it(browser: Browser, page: Path) -> None:
    await browser.open(page)
    await browser.resize(360)
    root = "document.documentElement"
    room_px, needed_px = await browser.evaluate(f"[{root}.clientWidth, {root}.scrollWidth]")
    assert needed_px == room_px <= 360
    canvases_px = await browser.evaluate("[...document.querySelectorAll('canvas')].map((c) => c.clientWidth)")
    assert all(200 < canvas_px < room_px for canvas_px in canvases_px)
    assert min((await browser.evaluate(COUNT_DRAWN))[:4]) > 0


async def test_paper_is_light_whatever_the_screen_is(browser: Browser, page: Path) -> None:
    await browser.open(page, dark=True)
    series = "getComputedStyle(document.documentElement).getPropertyValue('--series-1').trim()"
    dark = await browser.evaluate(series)
    await browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert await browser.evaluate(series) == "#2563c9" != dark
    assert min((await browser.evaluate(COUNT_DRAWN))[:4]) > 0
    await browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert await browser.evaluate(series) == dark
    assert min((await browser.evaluate(COUNT_DRAWN))[:4]) > 0


async def test_what_is_planted_is_noticed(browser: Browser, page: Path) -> None:
    """The negative control: the policy stops what breaks out, and the browser of these tests tells."""
    page.write_bytes(page.read_bytes().replace(b"</main>", b"</main><script>document.title = 'planted'</script>"))
    await browser.open(page)
    assert await browser.evaluate("document.title") == "All of it"
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)
    page.write_text("<img src='http://127.0.0.1:9/planted.png'>", encoding="utf-8")
    await browser.open(page)
    assert browser.requests == ["http://127.0.0.1:9/planted.png"]


async def test_the_report_of_a_load_is_drawn(browser: Browser, real_host: RunningHost, tmp_path: Path) -> None:
    report = tmp_path / "load.html"
    key = real_host.realm.skus["desktop"].setup_key(PUBLISHER_ID).text
    code, _, _ = run_cli(
        *("load", f"127.0.0.1:{real_host.address[1]}", "--publisher", real_host.realm.publisher_json),
        *("--key", key, "--seconds", "1.2", "--report", report),
    )
    assert code == 0
    await browser.open(report)
    drawn = await browser.evaluate(COUNT_DRAWN)
    assert len(drawn) == 5
    assert min(drawn) > 0
    assert (browser.complaints, browser.requests) == ([], [])
