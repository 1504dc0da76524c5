"""The numbers of volume activation, and the rules between them."""

import pytest

from kms_fast.model import policy
from kms_fast.model.policy import DAY_MIN, DAY_MS, MINUTE_MS, LicenceState, LicenceStatus, licence_status


def test_a_client_renews_at_the_interval_or_half_the_validity() -> None:
    week = policy.renewal_delay_ms(policy.RENEWAL_INTERVAL_MIN, policy.VALIDITY_MIN, 0)
    assert week == 7 * DAY_MS
    assert policy.renewal_delay_ms(policy.RENEWAL_INTERVAL_MIN, 60, 0) == 30 * MINUTE_MS
    assert policy.renewal_delay_ms(1, policy.VALIDITY_MIN, 0) == 15 * MINUTE_MS
    assert policy.renewal_delay_ms(policy.RENEWAL_INTERVAL_MIN, policy.VALIDITY_MIN, 0.5) == int(week * 1.05)


def test_a_client_tries_again_after_the_interval_or_a_quarter_of_the_validity() -> None:
    assert policy.retry_delay_ms(policy.ACTIVATION_INTERVAL_MIN, policy.VALIDITY_MIN, 0) == 120 * MINUTE_MS
    assert policy.retry_delay_ms(policy.ACTIVATION_INTERVAL_MIN, 60, 0) == 15 * MINUTE_MS
    assert policy.retry_delay_ms(1, policy.VALIDITY_MIN, 0.5) == int(15 * MINUTE_MS * 1.05)


@pytest.mark.parametrize(
    ("validity_days", "days_left", "warning"),
    [
        (180, 31, None),
        (180, 30, 30),
        (180, 7.1, 30),
        (180, 7, 7),
        (180, 1, 1),
        (180, 0, 1),
        # A lease of 10 days is renewed with 4.5 days left at the latest: 7 days left is no warning.
        (10, 7, None),
        (10, 1, 1),
        (2, 0.9, None),
    ],
)
def test_expiry_is_warned_of_only_past_the_latest_renewal(
    validity_days: int, days_left: float, warning: int | None
) -> None:
    assert policy.expiry_warning_days(validity_days * DAY_MIN, int(days_left * DAY_MIN)) == warning


@pytest.mark.parametrize(
    ("day", "state", "minutes_left"),
    [
        (0, LicenceState.LICENSED, 180 * DAY_MIN),
        (179.999, LicenceState.LICENSED, 2),
        (180, LicenceState.OUT_OF_TOLERANCE_GRACE, 30 * DAY_MIN),
        (209, LicenceState.OUT_OF_TOLERANCE_GRACE, DAY_MIN),
        (210, LicenceState.NOTIFICATION, 0),
    ],
)
def test_states_after_an_activation(day: float, state: LicenceState, minutes_left: int) -> None:
    now_ms = int(day * DAY_MS)
    status = licence_status(now_ms, grace_started_ms=0, received_ms=0, validity_min=policy.VALIDITY_MIN)
    assert status == LicenceStatus(state, minutes_left)


@pytest.mark.parametrize(
    ("day", "state"),
    [(0, LicenceState.INITIAL_GRACE), (29, LicenceState.INITIAL_GRACE), (30, LicenceState.NOTIFICATION)],
)
def test_states_before_the_first_activation(day: int, state: LicenceState) -> None:
    assert licence_status(day * DAY_MS, grace_started_ms=0).state is state


def test_grace_is_never_longer_than_the_validity() -> None:
    hour = licence_status(61 * MINUTE_MS, grace_started_ms=0, received_ms=0, validity_min=60)
    assert hour == LicenceStatus(LicenceState.OUT_OF_TOLERANCE_GRACE, 59)
    assert licence_status(120 * MINUTE_MS, grace_started_ms=0, received_ms=0, validity_min=60).minutes_left == 0


def test_a_revoked_certificate_ends_the_activation_when_the_client_learns_of_it() -> None:
    status = licence_status(
        10 * DAY_MS, grace_started_ms=0, received_ms=0, validity_min=policy.VALIDITY_MIN, revoked_ms=5 * DAY_MS
    )
    assert status == LicenceStatus(LicenceState.OUT_OF_TOLERANCE_GRACE, 25 * DAY_MIN)


def check(
    activation: int = policy.ACTIVATION_INTERVAL_MIN,
    renewal: int = policy.RENEWAL_INTERVAL_MIN,
    validity: int = policy.VALIDITY_MIN,
    retention: int = policy.RETENTION_MIN,
) -> str | None:
    return policy.check_intervals(
        activation_min=activation, renewal_min=renewal, validity_min=validity, retention_min=retention
    )


def test_defaults_do_not_fight_each_other() -> None:
    assert check() is None
    assert check(validity=1) is None


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        ({"activation": 14}, "activation interval must be between"),
        ({"renewal": 43_201}, "renewal interval must be between"),
        ({"activation": 300, "renewal": 299}, "longer than the renewal"),
        ({"renewal": 14 * DAY_MIN}, "every 14d and misses one renewal"),
        ({"retention": 15 * DAY_MIN}, "retention of 15d"),
    ],
)
def test_numbers_that_fight_each_other_are_named(numbers: dict[str, int], problem: str) -> None:
    assert problem in (check(**numbers) or "")


def test_the_longest_renewal_that_fits_the_retention() -> None:
    longest = int(policy.RETENTION_MIN / 2 / 1.1)
    assert check(renewal=longest) is None
    assert check(renewal=longest + 1) is not None
    assert check(renewal=longest + 1, validity=2 * longest) is None


def test_whole_days_until_a_time() -> None:
    assert [policy.days_until(end_ms, 0) for end_ms in (2 * DAY_MS, 2 * DAY_MS - 1, 0, -1)] == [2, 1, 0, -1]


def test_times_are_shown_in_utc() -> None:
    assert policy.format_time(1_800_000_000_000) == "2027-01-15 08:00:00 UTC"
    assert policy.format_time(2**64 - 1) == "18446744073709551615 ms"


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0, "0 min"), (59, "59 min"), (60, "1 h"), (90, "1 h 30 min"), (1500, "1 d 1 h"), (43_201, "30 d 1 min")],
)
def test_spans_are_written_as_people_say_them(minutes: int, text: str) -> None:
    assert policy.format_span(minutes) == text
