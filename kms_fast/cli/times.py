"""Times on the command line."""

from datetime import UTC, datetime

import click

from kms_fast.clock import wall_clock_ms
from kms_fast.model.quantities import parse_quantity


class TimeType(click.ParamType[int]):
    """A time in ms: an ISO 8601 date or time (UTC unless it says otherwise), or a span that has passed since.

    What lies before 1970 is 0: nothing was signed before.
    """

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value)
        try:
            return max(0, wall_clock_ms() - parse_quantity(text, "ms"))
        except ValueError:
            pass
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            self.fail(
                f"{text!r} is no time: write 2026-01-31, 2026-01-31T12:00 or how long ago, such as 7d", param, ctx
            )
        return max(0, int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000))
