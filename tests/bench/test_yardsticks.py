"""What a figure means at the borders of its yardstick, and that every row of the design's table is there."""

import pytest
from yardsticks import HOST_RATE, YARDSTICKS, format_yardsticks, judge

# The keys of the table of yardsticks, written down a second time.
KEYS = {
    "cpu_ratio_kept_open",
    "cpu_ratio_per_connection",
    "echo_ratio_kept_open",
    "echo_ratio_per_connection",
    "rate_ratio_uvloop",
    "cpu_ratio_at_20k",
    "p99_ms_half_load",
    "rss_kib_per_idle_connection",
    "siv_ratio",
    "load_ratio_verify_none",
    "load_ratio_verify_all",
    "rate_ratio_10m",
    "recorder_per_s",
    "dashboard_ms",
}


def test_every_yardstick_is_there_and_stretches_further_than_it_reaches() -> None:
    assert set(YARDSTICKS) == KEYS
    for yardstick in YARDSTICKS.values():
        assert yardstick.keeps(yardstick.stretch, yardstick.reach)
        assert not yardstick.keeps(yardstick.reach, yardstick.stretch)


@pytest.mark.parametrize(
    ("key", "value", "meaning"),
    [
        ("cpu_ratio_kept_open", 1.351, "not reached"),
        ("cpu_ratio_kept_open", 1.35, "reached"),
        ("cpu_ratio_kept_open", 1.151, "reached"),
        ("cpu_ratio_kept_open", 1.15, "stretch"),
        ("rate_ratio_uvloop", 0.699, "not reached"),
        ("rate_ratio_uvloop", 0.7, "reached"),
        ("rate_ratio_uvloop", 0.9, "stretch"),
        ("rate_ratio_uvloop", None, "not reached"),
        ("p99_ms_half_load", 10, "reached"),
    ],
)
def test_a_figure_at_the_border(key: str, value: float | None, meaning: str) -> None:
    assert judge(key, {key: value}) == meaning


def test_what_no_benchmark_measured_is_neither() -> None:
    assert {judge(key, {}) for key in YARDSTICKS} == {"not measured"}


@pytest.mark.parametrize(
    ("records", "host", "meaning"),
    [
        (120_000, 100_000, "reached"),
        (119_999, 100_000, "not reached"),
        (99_999, 50_000, "not reached"),
        (250_000, 100_000, "stretch"),
        (250_000, 210_000, "not reached"),
        (250_000, None, "not measured"),
    ],
)
def test_the_recorder_must_also_be_faster_than_the_host(records: int, host: int | None, meaning: str) -> None:
    assert judge("recorder_per_s", {"recorder_per_s": records, HOST_RATE: host}) == meaning


def test_the_table_says_of_each_figure_what_it_means() -> None:
    _, *lines = format_yardsticks({"siv_ratio": 0.06, "rate_ratio_uvloop": None, "dashboard_ms": 200})
    said = dict(zip(YARDSTICKS, lines, strict=True))
    assert said["siv_ratio"].split()[-6:] == ["0.06", "≤", "0.1", "≤", "0.06", "stretch"]
    assert said["rate_ratio_uvloop"].endswith("not reached")
    assert said["dashboard_ms"].endswith("  reached")
    assert said["recorder_per_s"].endswith("not measured")
