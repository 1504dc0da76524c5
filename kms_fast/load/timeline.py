"""How a load went on: what its processes told on the way, as samples of what happened between one time and the next."""

from dataclasses import dataclass, replace
from typing import Final

from kms_fast._core import LatencyHistogram
from kms_fast.load.plan import LoadResult

PERIOD_NS: Final = 500_000_000  # run.py reports as often
SAMPLES_PER_PERIOD: Final = 500
PERCENTS: Final = (50.0, 90.0, 99.0, 99.9, 100.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened in ``seconds`` up to ``end_s`` after the load's start.

    ``answers_per_batch``: mean tree size in the answers' headers, ``latencies_ns``: the percentiles of PERCENTS; each
    None when there was no answer.
    """

    end_s: float
    seconds: float
    activations: int
    refused: int
    failed: int
    answers_per_batch: float | None
    latencies_ns: tuple[int, ...] | None


class Timeline:
    """Gathers the results so far of a load, as `run_load` reports them, into samples.

    Processes report at the same times, so the last result before the next such time holds all of them. The period
    between samples doubles after every 500 of them: a long load has a few thousand.
    """

    def __init__(self) -> None:
        self._samples: list[Sample] = []
        self._borders = (LoadResult(), LoadResult())  # what the last sample lies between
        self._newest = LoadResult()

    def add(self, result: LoadResult) -> None:
        """Take the result so far."""
        period_ns = self._period_ns()
        if result.end_ns // period_ns > self._newest.end_ns // period_ns:
            self._close(self._newest)
        self._newest = result

    def finish(self, result: LoadResult) -> list[Sample]:
        """All samples; the last ends with ``result``, the whole load. A short rest belongs to the one before."""
        whole = replace(result, end_ns=max(result.end_ns, self._newest.end_ns))
        self.add(whole)
        before, last = self._borders
        if _measure_ns(last, whole) >= self._period_ns() // 2:
            return [*self._samples, _make_sample(last, whole)]
        if _measure_ns(before, whole) > 0:
            return [*self._samples[:-1], _make_sample(before, whole)]
        return []

    def _period_ns(self) -> int:
        return PERIOD_NS << (len(self._samples) // SAMPLES_PER_PERIOD)

    def _close(self, result: LoadResult) -> None:
        if _measure_ns(self._borders[1], result) >= self._period_ns() // 2:
            self._samples.append(_make_sample(self._borders[1], result))
            self._borders = (self._borders[1], result)


def _measure_ns(before: LoadResult, after: LoadResult) -> int:
    return after.end_ns - (before.end_ns or after.start_ns)


def _make_sample(before: LoadResult, after: LoadResult) -> Sample:
    answers = after.activations + after.refused - before.activations - before.refused
    batches = after.batches - before.batches
    latency = _subtract(before, after)
    return Sample(
        end_s=(after.end_ns - after.start_ns) / 1e9,
        seconds=_measure_ns(before, after) / 1e9,
        activations=after.activations - before.activations,
        refused=after.refused - before.refused,
        failed=after.failed - before.failed,
        answers_per_batch=answers / batches if answers and batches else None,
        latencies_ns=tuple(map(latency.percentile_ns, PERCENTS)) if latency.count else None,
    )


def _subtract(before: LoadResult, after: LoadResult) -> LatencyHistogram:
    """The latencies that came after ``before``; their maximum is known to the bucket."""
    counts = dict(before.latencies)
    new = [(ns, count - counts.get(ns, 0)) for ns, count in after.latencies if count > counts.get(ns, 0)]
    histogram = LatencyHistogram()
    histogram.merge(new, min(new[-1][0], after.latency_max_ns) if new else 0)
    return histogram
