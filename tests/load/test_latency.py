"""The latency histogram, against HdrHistogram."""

import random

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from kms_fast._core import LatencyHistogram

POINTS = (0, 1, 25, 50, 75, 90, 99, 99.9, 100)


def record(values: list[int]) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for value in values:
        histogram.record(value)
    return histogram


@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_percentiles_agree_with_hdrhistogram(spread: float) -> None:
    rng = random.Random(spread)
    values = [int(rng.lognormvariate(13, spread)) + 1 for _ in range(20_000)]
    ours, oracle = record(values), HdrHistogram(1, 1 << 41, 4)
    for value in values:
        oracle.record_value(value)
    for point in POINTS:
        assert ours.percentile_ns(point) == pytest.approx(oracle.get_value_at_percentile(point), rel=1 / 100)
    assert ours.max_ns == max(values)
    assert ours.count == oracle.total_count


@given(st.lists(st.integers(0, (1 << 41) - 1), min_size=1), st.integers(0, 1000))
def test_a_percentile_is_at_most_one_bucket_above_the_true_one(values: list[int], tenths: int) -> None:
    exact = sorted(values)[max(1, -(-tenths * len(values) // 1000)) - 1]
    assert exact <= record(values).percentile_ns(tenths / 10) <= exact + exact / 128


@given(st.lists(st.integers(0, 1 << 50)), st.lists(st.integers(0, 1 << 50)))
def test_merged_histograms_are_the_histogram_of_all(first: list[int], second: list[int]) -> None:
    merged = record(first)
    other = record(second)
    merged.merge(other.counts(), other.max_ns)
    whole = record(first + second)
    assert merged.counts() == whole.counts()
    assert (merged.count, merged.max_ns) == (whole.count, whole.max_ns)


def test_an_empty_histogram_has_no_latency() -> None:
    assert LatencyHistogram().percentile_ns(50) == 0


@pytest.mark.parametrize("point", [-0.1, 100.1, float("nan")])
def test_a_percentile_outside_0_to_100_is_refused(point: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        LatencyHistogram().percentile_ns(point)
