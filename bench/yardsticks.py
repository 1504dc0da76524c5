"""The yardsticks of a host's speed: what is measured, what is to be reached, and whether a report reaches it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NOT_MEASURED, NOT_REACHED, REACHED, STRETCH = "not measured", "not reached", "reached", "stretch"
RECORDER_OVER_HOST = 1.2
HOST_RATE = "host_rate"  # beside the figures: activations a second, kept open; the recorder must be faster


@dataclass(frozen=True)
class Yardstick:
    """One figure: ``sign`` tells whether it must be at most (≤) or at least (≥) ``reach``, better still ``stretch``."""

    what: str
    sign: str
    reach: float
    stretch: float

    def keeps(self, value: float, bound: float) -> bool:
        return value <= bound if self.sign == "≤" else value >= bound


# Those that only inventory.py and known_clients.py measure, with so many clients.
KNOWN_CLIENTS = 10_000_000
OF_KNOWN_CLIENTS = ("rate_ratio_10m", "recorder_per_s", "dashboard_ms")

YARDSTICKS = {
    "cpu_ratio_kept_open": Yardstick("server CPU ÷ uvloop limit, kept open", "≤", 1.35, 1.15),
    "cpu_ratio_per_connection": Yardstick("server CPU ÷ uvloop limit, a connection each", "≤", 1.35, 1.15),
    "echo_ratio_kept_open": Yardstick("server CPU ÷ echo limit, kept open", "≤", 2.0, 1.5),
    "echo_ratio_per_connection": Yardstick("server CPU ÷ echo limit, a connection each", "≤", 1.6, 1.35),
    "rate_ratio_uvloop": Yardstick("rate ÷ uvloop limit's, kept open", "≥", 0.7, 0.9),
    "cpu_ratio_at_20k": Yardstick("server CPU ÷ uvloop limit at 20,000 offered a second", "≤", 1.6, 1.3),
    "p99_ms_half_load": Yardstick("p99 at half the peak rate, open loop, ms", "≤", 10, 3),
    "rss_kib_per_idle_connection": Yardstick("RSS per connection, 10,000 open, KiB", "≤", 2.5, 2),
    "siv_ratio": Yardstick("AES-SIV open of a request ÷ cryptography", "≤", 0.1, 0.06),
    "load_ratio_verify_none": Yardstick("load CPU ÷ uvloop limit, verify none", "≤", 1.3, 1.1),
    "load_ratio_verify_all": Yardstick("load CPU ÷ uvloop limit, verify all", "≤", 2.0, 1.5),
    "rate_ratio_10m": Yardstick("rate with 10 M known clients ÷ with none", "≥", 0.95, 0.99),
    "recorder_per_s": Yardstick("recorder, records a second, and ≥ 1.2 × the host's rate", "≥", 100_000, 250_000),
    "dashboard_ms": Yardstick("dashboard over 10 M clients, ms", "≤", 200, 50),
}


def judge(key: str, figures: Mapping[str, Any]) -> str:
    """What a report's figure means: a key that is missing was not measured, one that is null was not reached.

    The recorder counts as not measured without the host's rate beside it.
    """
    if key not in figures or (key == "recorder_per_s" and figures.get(HOST_RATE) is None):
        return NOT_MEASURED
    yardstick, value = YARDSTICKS[key], figures[key]
    if value is None or not yardstick.keeps(value, yardstick.reach):
        return NOT_REACHED
    if key == "recorder_per_s" and value < RECORDER_OVER_HOST * figures[HOST_RATE]:
        return NOT_REACHED
    return STRETCH if yardstick.keeps(value, yardstick.stretch) else REACHED


def format_yardsticks(figures: Mapping[str, Any]) -> Iterator[str]:
    """Lines of the table: each figure, its bounds, and what it means."""
    yield f"{'figure':56}{'measured':>10}{'reach':>12}{'stretch':>12}  meaning"
    for key, yardstick in YARDSTICKS.items():
        value = figures.get(key)
        bounds = "".join(f"{f'{yardstick.sign} {bound:,}':>12}" for bound in (yardstick.reach, yardstick.stretch))
        yield f"{yardstick.what:56}{'–' if value is None else f'{value:,}':>10}{bounds}  {judge(key, figures)}"
