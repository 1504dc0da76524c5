"""Times and sizes as people write them: ``30d``, ``64MiB``."""

import re
from typing import Any, Final

_TIMES_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
# A unit -> the scales it may be written in, how much one of it is in them, an example.
UNITS: Final = {
    "ms": (_TIMES_MS, 1, "2ms"),
    "s": (_TIMES_MS, 1_000, "30s"),
    "min": (_TIMES_MS, 60_000, "2h"),
    "bytes": (_SIZES, 1, "64MiB"),
}


def parse_quantity(text: Any, unit: str) -> int:
    """``"30d"`` or ``"64MiB"`` as a whole number of ``unit``.

    Raises:
        ValueError: no number with one of the unit's scales, or not a whole number of ``unit``.
    """
    scales, one, example = UNITS[unit]
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]+)", text) if isinstance(text, str) else None
    if match is None or match[2] not in scales:
        raise ValueError(f'expected a whole number and one of {", ".join(scales)}, such as "{example}"')
    number, rest = divmod(int(match[1]) * scales[match[2]], one)
    if rest:
        raise ValueError(f"{text} is not a whole number of {unit}")
    return number


def format_quantity(number: int, unit: str) -> str:
    """The shortest text that :func:`parse_quantity` reads as ``number``."""
    scales, one, _ = UNITS[unit]
    if number == 0:
        return f"0{next(iter(scales))}"
    name, scale = max((item for item in scales.items() if number * one % item[1] == 0), key=lambda item: item[1])
    return f"{number * one // scale}{name}"
