"""Token buckets: how often each of many may ask."""

import math
from collections import OrderedDict
from typing import Final

MAX_BUCKETS: Final = 10_000


class RateLimit:
    """At most ``per_hour`` takes an hour for each name, ``burst`` of them at once.

    It remembers the `MAX_BUCKETS` names that asked last: one that is forgotten begins with a full bucket.
    """

    def __init__(self, *, per_hour: int, burst: int) -> None:
        self._per_s = per_hour / 3600
        self._burst = burst
        # Of each name how many takes it had left, and when (s).
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, now_s: float) -> int:
        """Take once: 0, or how many seconds to wait when there is nothing left. ``now_s`` never goes back."""
        left, since_s = self._buckets.pop(name, (float(self._burst), now_s))
        left = min(self._burst, left + (now_s - since_s) * self._per_s)
        wait_s = 0 if left >= 1 else math.ceil((1 - left) / self._per_s)
        self._buckets[name] = (left if wait_s else left - 1, now_s)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return wait_s
