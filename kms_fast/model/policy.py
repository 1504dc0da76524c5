"""The numbers of volume activation, licence states and rules. Spans are minutes, times milliseconds."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

from kms_fast.model.quantities import format_quantity

MINUTE_MS: Final = 60_000
DAY_MIN: Final = 1440
DAY_MS: Final = DAY_MIN * MINUTE_MS

THRESHOLDS: Final = {"desktop": 25, "server": 5, "suite": 5}
CAP_FACTOR: Final = 2
RETENTION_MIN: Final = 30 * DAY_MIN

VALIDITY_MIN: Final = 180 * DAY_MIN
SHORTEST_VALIDITY_MIN: Final = 1
MAX_VALIDITY_MIN: Final = 365 * DAY_MIN
INITIAL_GRACE_MIN: Final = 30 * DAY_MIN
OUT_OF_TOLERANCE_GRACE_MIN: Final = 30 * DAY_MIN

ACTIVATION_INTERVAL_MIN: Final = 120
RENEWAL_INTERVAL_MIN: Final = 7 * DAY_MIN
SHORTEST_INTERVAL_MIN: Final = 15
LONGEST_INTERVAL_MIN: Final = 30 * DAY_MIN
JITTER: Final = 0.1

CLOCK_TOLERANCE_MS: Final = 4 * 60 * MINUTE_MS
SET_BACK_TOLERANCE_MS: Final = 8 * 60 * MINUTE_MS
RESEND_MS: Final = 60 * MINUTE_MS
MAX_REARMS: Final = 5
EXPIRY_WARNING_DAYS: Final = (30, 7, 1)

HOSTS_PER_KEY: Final = 6
ACTIVATIONS_PER_HOST: Final = 10
HOST_CERTIFICATE_DAYS: Final = 365
CERTIFICATE_WARNING_DAYS: Final = 60
CERTIFICATE_URGENT_DAYS: Final = 7
ISSUER_WARNING_DAYS: Final = 180

SRV_NAME: Final = "_kms-fast._tcp"


class LicenceState(IntEnum):
    """Licence states, by the codes administrators know."""

    UNLICENSED = 0
    LICENSED = 1
    INITIAL_GRACE = 2
    OUT_OF_TOLERANCE_GRACE = 3
    NOTIFICATION = 5


@dataclass(frozen=True, slots=True)
class LicenceStatus:
    """A state and the whole minutes until it ends, 0 for states that do not end."""

    state: LicenceState
    minutes_left: int


def cap(threshold: int) -> int:
    """The highest count that a family shows: past it a new machine replaces the oldest."""
    return CAP_FACTOR * threshold


def clamp_interval(interval_min: int) -> int:
    """An interval a client adopts: within 15 minutes … 30 days."""
    return min(max(interval_min, SHORTEST_INTERVAL_MIN), LONGEST_INTERVAL_MIN)


def renewal_delay_ms(renewal_interval_min: int, validity_min: int, jitter: float) -> int:
    """How long after receipt a client renews: min(interval, validity / 2), and up to 10 % more.

    ``jitter`` is a random number in [0, 1), so that a fleet does not return in step.
    """
    shortest_ms = min(clamp_interval(renewal_interval_min) * MINUTE_MS, validity_min * MINUTE_MS // 2)
    return int(shortest_ms * (1 + JITTER * jitter))


def retry_delay_ms(activation_interval_min: int, validity_min: int, jitter: float) -> int:
    """How long a client waits after a failed attempt: min(interval, validity / 4), and up to 10 % more.

    A renewal begins at half the validity, so a lease shorter than the interval is tried for again before it ends.
    """
    shortest_ms = min(clamp_interval(activation_interval_min) * MINUTE_MS, validity_min * MINUTE_MS // 4)
    return int(shortest_ms * (1 + JITTER * jitter))


def expiry_warning_days(validity_min: int, minutes_left: int) -> int | None:
    """The smallest of 30, 7 and 1 days that a lease does not exceed any more; None while there is nothing to warn of.

    A span that a lease which is renewed in time reaches as well is no warning.
    """
    latest_renewal_left_min = validity_min * (1 - JITTER) / 2
    days = [days for days in EXPIRY_WARNING_DAYS if minutes_left <= days * DAY_MIN < latest_renewal_left_min]
    return min(days, default=None)


def out_of_tolerance_grace_min(validity_min: int, grace_min: int = OUT_OF_TOLERANCE_GRACE_MIN) -> int:
    """The grace after a lease's end: never longer than the lease's own validity."""
    return min(grace_min, validity_min)


def licence_status(
    now_ms: int,
    *,
    grace_started_ms: int,
    initial_grace_min: int = INITIAL_GRACE_MIN,
    received_ms: int | None = None,
    validity_min: int = 0,
    grace_min: int = OUT_OF_TOLERANCE_GRACE_MIN,
    revoked_ms: int | None = None,
) -> LicenceStatus:
    """The licence state of a machine with a setup key.

    Without a lease the initial grace runs from ``grace_started_ms`` (installation or rearm). With one received at
    ``received_ms`` it is licensed for its validity, then in out-of-tolerance grace, then in notification. A revoked
    certificate ends the validity at ``revoked_ms``, when the client learned of it.
    """
    if received_ms is None:
        ends = [(LicenceState.INITIAL_GRACE, grace_started_ms + initial_grace_min * MINUTE_MS)]
    else:
        expires_ms = received_ms + validity_min * MINUTE_MS
        if revoked_ms is not None:
            expires_ms = min(expires_ms, revoked_ms)
        grace_ms = out_of_tolerance_grace_min(validity_min, grace_min) * MINUTE_MS
        ends = [
            (LicenceState.LICENSED, expires_ms),
            (LicenceState.OUT_OF_TOLERANCE_GRACE, expires_ms + grace_ms),
        ]
    for state, end_ms in ends:
        if now_ms < end_ms:
            return LicenceStatus(state, -(-(end_ms - now_ms) // MINUTE_MS))
    return LicenceStatus(LicenceState.NOTIFICATION, 0)


def check_intervals(
    *, activation_min: int, renewal_min: int, validity_min: int, retention_min: int = RETENTION_MIN
) -> str | None:
    """What is wrong between these numbers, as a clause, or None. Catalog and hosts ask the same question.

    A machine that renews as slowly as it may (interval and jitter) must be seen at least twice within the retention, or
    counts fall below thresholds although every machine is well.
    """
    for name, interval_min in (("activation", activation_min), ("renewal", renewal_min)):
        if not SHORTEST_INTERVAL_MIN <= interval_min <= LONGEST_INTERVAL_MIN:
            return f"the {name} interval must be between 15 minutes and 30 days"
    if activation_min > renewal_min:
        return "the activation (retry) interval must not be longer than the renewal interval"
    effective_min = min(renewal_min, validity_min / 2)
    if effective_min * (1 + JITTER) > retention_min / 2:
        every, retention = format_quantity(int(effective_min), "min"), format_quantity(retention_min, "min")
        return (
            f"a machine that renews every {every} and misses one renewal is forgotten: the renewal interval plus 10 % "
            f"must be at most half the retention of {retention}"
        )
    return None


def days_until(time_ms: int, now_ms: int) -> int:
    """The whole days until a time; below 0 when it is past."""
    return (time_ms - now_ms) // DAY_MS


def format_span(minutes: int) -> str:
    """Days, hours and minutes as users read them; the two largest that count."""
    days, rest = divmod(minutes, DAY_MIN)
    hours, minutes = divmod(rest, 60)
    parts = [f"{days} d" if days else "", f"{hours} h" if hours else "", f"{minutes} min" if minutes else ""]
    return " ".join([part for part in parts if part][:2]) or "0 min"


def format_time(time_ms: int) -> str:
    """A time in UTC as users read it; times beyond the calendar as their number."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"
