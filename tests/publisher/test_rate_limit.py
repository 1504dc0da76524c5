"""Token buckets: bursts, refilling, and a bound on what is remembered."""

from kms_fast.publisher import rate_limit
from kms_fast.publisher.rate_limit import RateLimit


def test_a_burst_and_then_at_the_rate() -> None:
    limit = RateLimit(per_hour=60, burst=3)
    assert [limit.take("a", 100.0) for _ in range(5)] == [0, 0, 0, 60, 60]
    assert limit.take("b", 100.0) == 0
    assert limit.take("a", 130.0) == 30
    assert [limit.take("a", 160.0) for _ in range(2)] == [0, 60]
    assert [limit.take("a", 100_000.0) for _ in range(4)] == [0, 0, 0, 60]


def test_it_remembers_those_who_asked_last() -> None:
    limit = RateLimit(per_hour=1, burst=1)
    for number in range(3 * rate_limit.MAX_BUCKETS):
        assert limit.take(str(number), 0.0) == 0
        assert limit.take("again and again", 0.0) == (3600 if number else 0)
    assert len(limit._buckets) == rate_limit.MAX_BUCKETS
