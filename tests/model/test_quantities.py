"""Times and sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms_fast.model.quantities import format_quantity, parse_quantity


@given(st.integers(0, 1 << 50), st.sampled_from(["ms", "s", "min", "bytes"]))
def test_quantities_read_back(number: int, unit: str) -> None:
    assert parse_quantity(format_quantity(number, unit), unit) == number


@pytest.mark.parametrize(
    ("text", "unit", "number"),
    [("30s", "s", 30), ("15m", "min", 15), ("180d", "s", 180 * 86_400), ("2ms", "ms", 2), ("64MiB", "bytes", 64 << 20)],
)
def test_quantities(text: str, unit: str, number: int) -> None:
    assert parse_quantity(text, unit) == number
    assert format_quantity(number, unit) == text


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1.5s", "30 sec", "30S", "1MiB", 30, None])
def test_quantities_that_are_none(text: object) -> None:
    with pytest.raises(ValueError, match="expected a whole number and one of ms, s, m, h, d"):
        parse_quantity(text, "s")
