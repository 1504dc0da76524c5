"""Results so far of a load, as samples of what happened in between."""

import random

import pytest

from kms_fast._core import LatencyHistogram
from kms_fast.load.plan import LoadResult, merge_results
from kms_fast.load.timeline import PERCENTS, PERIOD_NS, SAMPLES_PER_PERIOD, Timeline

START_NS = 7 * PERIOD_NS + 30_000_000
MS = 1_000_000


def make_result(end_ms: float, activations: int, **fields: object) -> LoadResult:
    """The result so far, ``end_ms`` after the start."""
    end_ns = START_NS + round(end_ms * MS)
    return LoadResult(start_ns=START_NS, end_ns=end_ns, activations=activations, **fields)  # type: ignore[arg-type]


def follow(*results: LoadResult) -> list[tuple[float, float, int]]:
    """End, length and activations of each sample; the last result is that of the whole load."""
    timeline = Timeline()
    for result in results[:-1]:
        timeline.add(result)
    return [(sample.end_s, sample.seconds, sample.activations) for sample in timeline.finish(results[-1])]


def test_a_sample_is_what_happened_since_the_one_before() -> None:
    results = (make_result(470, 100), make_result(970, 350), make_result(1470, 360), make_result(1970, 400))
    assert follow(*results) == [(0.47, 0.47, 100), (0.97, 0.5, 250), (1.47, 0.5, 10), (1.97, 0.5, 40)]


def test_results_of_one_moment_are_one_sample() -> None:
    """Two processes report one after the other; what the first alone says is not the whole of that moment."""
    results = (make_result(471, 50), make_result(472, 100), make_result(971, 225), make_result(973, 350))
    assert follow(*results, make_result(1472, 600)) == [(0.472, 0.472, 100), (0.973, 0.501, 250), (1.472, 0.499, 250)]


def test_a_short_rest_belongs_to_the_last_sample() -> None:
    assert follow(make_result(470, 100), make_result(970, 350), make_result(1010, 380)) == [
        (0.47, 0.47, 100), (1.01, pytest.approx(0.54), 280)
    ]  # fmt: skip


def test_a_short_beginning_belongs_to_the_first_sample() -> None:
    assert follow(make_result(3, 1), make_result(470, 100), make_result(970, 101))[0] == (0.47, 0.47, 100)


def test_a_short_load_is_one_sample() -> None:
    assert follow(make_result(3, 30)) == [(0.003, 0.003, 30)]


def test_a_load_that_never_began_has_no_sample() -> None:
    assert follow(LoadResult()) == []
    assert follow(LoadResult(failed=1, start_ns=START_NS, end_ns=START_NS)) == []


def test_errors_that_come_to_light_at_the_end_are_in_the_last_sample() -> None:
    """A host that is gone: the whole ends with its last answer, which the results on the way were past already."""
    timeline = Timeline()
    for end_ms in (470, 970, 1470, 1970):
        timeline.add(make_result(end_ms, 10))
    samples = timeline.finish(make_result(400, 10, failed=256))
    assert [sample.activations for sample in samples] == [10, 0, 0, 0]
    assert [sample.failed for sample in samples] == [0, 0, 0, 256]
    assert samples[-1].end_s == 1.97


@pytest.mark.parametrize("ended", [True, False])
def test_all_that_happened_is_in_exactly_one_sample(ended: bool) -> None:
    rng = random.Random(ended)
    timeline, result, end_ms = Timeline(), make_result(0, 0), 0.0
    for _ in range(200):
        end_ms += rng.expovariate(1 / 200)
        more = rng.randrange(100)
        result = make_result(end_ms, result.activations + more, refused=result.refused + 1, failed=result.failed + 2)
        timeline.add(result)
    whole = make_result(end_ms + 1, result.activations + 5, refused=200, failed=400) if ended else result
    samples = timeline.finish(whole)
    assert sum(sample.activations for sample in samples) == whole.activations
    assert (sum(sample.refused for sample in samples), sum(sample.failed for sample in samples)) == (200, 400)
    assert sum(sample.seconds for sample in samples) == pytest.approx(samples[-1].end_s)
    assert all(sample.seconds > 0 for sample in samples)


def test_latencies_are_those_of_the_sample_alone() -> None:
    def record(*latencies_ms: float) -> LoadResult:
        histogram = LatencyHistogram()
        for ms in latencies_ms:
            histogram.record(round(ms * MS))
        return LoadResult(latencies=tuple(histogram.counts()), latency_max_ns=histogram.max_ns)

    first, later = [300.0] + [2.0] * 99, [5.0] * 98 + [40.0, 50.0]
    timeline, result = Timeline(), LoadResult()
    for end_ms, seen in ((470, first), (970, first), (1470, first + later)):
        told = record(*seen)
        result = make_result(end_ms, len(seen), latencies=told.latencies, latency_max_ns=told.latency_max_ns)
        timeline.add(result)
    one, nothing, two = timeline.finish(result)
    assert one.latencies_ns is not None
    assert two.latencies_ns is not None
    assert dict(zip(PERCENTS, one.latencies_ns, strict=True)) == {
        50.0: pytest.approx(2 * MS, rel=1 / 128), 90.0: pytest.approx(2 * MS, rel=1 / 128),
        99.0: pytest.approx(2 * MS, rel=1 / 128), 99.9: 300 * MS, 100.0: 300 * MS,
    }  # fmt: skip
    assert nothing.latencies_ns is None
    assert two.latencies_ns == pytest.approx((5 * MS, 5 * MS, 40 * MS, 50 * MS, 50 * MS), rel=1 / 128)


def test_batches_are_those_of_the_sample_alone() -> None:
    timeline = Timeline()
    timeline.add(make_result(470, 90, refused=10, batches=10.0))
    timeline.add(make_result(970, 90, refused=10, batches=10.0))
    sizes = [sample.answers_per_batch for sample in timeline.finish(make_result(1470, 290, refused=10, batches=15.0))]
    assert sizes == [10.0, None, 40.0]


def test_a_long_load_has_few_samples() -> None:
    timeline = Timeline()
    for number in range(1, 20_000):
        timeline.add(make_result(500 * number, number))
    samples = timeline.finish(make_result(500 * 20_000, 20_000))
    assert len(samples) < 6 * SAMPLES_PER_PERIOD
    assert sum(sample.activations for sample in samples) == 20_000
    assert samples[0].seconds < samples[-1].seconds


def test_merged_results_keep_the_latencies_on_the_way() -> None:
    one = LoadResult(latencies=((10, 1),), latency_max_ns=10)
    assert merge_results([one, one]).latencies == ((10, 2),)
