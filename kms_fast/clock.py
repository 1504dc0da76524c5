"""The wall clock, in the one unit of times here."""

import time


def wall_clock_ms() -> int:
    """This machine's time: milliseconds since 1970-01-01 00:00 UTC."""
    return time.time_ns() // 1_000_000
