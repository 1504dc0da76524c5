"""What an activation sends, stores and leaves as it was, and when the next one is due."""

from contextlib import nullcontext

import pytest

from kms_fast.client import Client, LicenceState, Refused
from kms_fast.errors import ActivationError
from tests.client.world import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    NOW_MS,
    FakeClock,
    ScriptedHost,
    activate,
    carry_out,
    make_revocations,
    read_sent,
    reason,
)
from tests.hosts import PUBLISHER_ID, SKUS, Realm
from tests.reference.request import digest_hardware

DESKTOP = SKUS["desktop"]
STATES = LicenceState


def test_a_grant_licenses_for_its_validity(client: Client, realm: Realm, clock: FakeClock) -> None:
    lease = activate(client, ScriptedHost(realm, clock))
    assert lease.expires_ms == NOW_MS + 180 * DAY_MS
    status = client.status()
    assert (status.state, status.minutes_left, reason(status)) == (STATES.LICENSED, 180 * 1440, None)
    assert status.lease == lease
    clock.sleep(180 * DAY_MS - 1)
    assert client.status().state == STATES.LICENSED
    clock.sleep(1)
    status = client.status()
    assert (status.state, status.minutes_left) == (STATES.OUT_OF_TOLERANCE_GRACE, 30 * 1440)
    clock.sleep(30 * DAY_MS)
    status = client.status()
    assert (status.state, reason(status)) == (STATES.NOTIFICATION, "GRACE_ENDED")


def test_grace_is_not_longer_than_a_short_validity(client: Client, realm: Realm, clock: FakeClock) -> None:
    activate(client, ScriptedHost(realm, clock, leaf={"validity": 10}))
    clock.sleep(10 * MINUTE_MS)
    assert client.status().state == STATES.OUT_OF_TOLERANCE_GRACE
    clock.sleep(10 * MINUTE_MS)
    assert client.status().state == STATES.NOTIFICATION


def test_what_a_request_tells(client: Client, realm: Realm, clock: FakeClock) -> None:
    host = ScriptedHost(realm, clock)
    first = activate(client, host)
    fields = read_sent(host)
    assert fields.cmid == client.status().cmid.bytes
    assert fields.name == b"client-7"
    assert (fields.licence_state, fields.minutes_to_expiry) == (2, 30 * 1440)
    assert fields.client_time == NOW_MS
    assert fields.library_version == 1 << 16
    assert fields.predecessor == bytes(32)
    ids = b"machine-id\x000123456789abcdef\0"
    assert fields.hardware_digest == digest_hardware(fields.cmid, PUBLISHER_ID, ids)
    clock.sleep(DAY_MS)
    activate(client, host)
    fields = read_sent(host)
    assert (fields.licence_state, fields.minutes_to_expiry) == (1, 179 * 1440)
    assert fields.predecessor == first.leaf_hash


def test_a_request_without_answer_is_sent_again_for_an_hour(client: Client, realm: Realm, clock: FakeClock) -> None:
    host = ScriptedHost(realm, clock, unsigned=0xE04B0003)
    for wait_ms in (0, HOUR_MS - 1, 1):
        clock.sleep(wait_ms)
        with pytest.raises(ActivationError):
            activate(client, host)
    assert host.requests[0] == host.requests[1]
    assert host.requests[1] != host.requests[2]


def test_a_signed_answer_ends_a_request(client: Client, realm: Realm, clock: FakeClock) -> None:
    host = ScriptedHost(realm, clock, count=1, threshold=9)
    for _ in range(2):
        with pytest.raises(Refused):
            activate(client, host)
    assert host.requests[0] != host.requests[1]


def test_a_pending_request_of_an_earlier_cmid_is_not_sent(client: Client, realm: Realm, clock: FakeClock) -> None:
    host = ScriptedHost(realm, clock, unsigned=0xE04B0003)
    with pytest.raises(ActivationError):
        activate(client, host)
    client.rearm()
    with pytest.raises(ActivationError):
        activate(client, host)
    assert host.requests[0][20:36] != host.requests[1][20:36]


def test_a_failure_leaves_the_licence_as_it_was(client: Client, realm: Realm, clock: FakeClock) -> None:
    activate(client, ScriptedHost(realm, clock))
    for host in (
        ScriptedHost(realm, clock, count=1, threshold=9),
        ScriptedHost(realm, clock, unsigned=0xC004F041),
        ScriptedHost(realm, clock, leaf={"cmid": bytes(16)}),
    ):
        with pytest.raises(ActivationError) as caught:
            activate(client, host)
        status = client.status()
        assert status.state == STATES.LICENSED
        assert status.failure is not None
        assert status.failure.code == caught.value.result.code
    activate(client, ScriptedHost(realm, clock))
    assert client.status().failure is None


def test_a_key_changed_during_the_round_stores_nothing(client: Client, realm: Realm, clock: FakeClock) -> None:
    client.set_host("host")
    round_ = client.begin()
    carry_out(round_, {"host:1688": ScriptedHost(realm, clock)})
    client.rearm()
    with pytest.raises(ActivationError, match="activate again"):
        client.finish(round_)
    assert client.status().lease is None


def test_two_rounds_at_once_both_succeed(client: Client, realm: Realm, clock: FakeClock) -> None:
    client.set_host("host")
    rounds = [client.begin(), client.begin()]
    for round_ in rounds:
        carry_out(round_, {"host:1688": ScriptedHost(realm, clock)})
    assert [client.finish(round_).leaf.count for round_ in rounds] == [1, 1]
    assert [len(attempts) for _, attempts in client.history()] == [2]


@pytest.mark.parametrize("granted", [False, True])
@pytest.mark.parametrize("change", ["set_host", "clear_host", "set_domain"])
def test_a_host_set_during_a_round_is_asked_at_once(
    client: Client, realm: Realm, clock: FakeClock, granted: bool, change: str
) -> None:
    client.set_host("host")
    round_ = client.begin()
    carry_out(round_, {"host:1688": ScriptedHost(realm, clock) if granted else "it is down"})
    getattr(client, change)(*() if change == "clear_host" else ("new.example.test",))
    with nullcontext() if granted else pytest.raises(ActivationError):
        client.finish(round_)
    assert client.is_due()
    assert client.status().cached_host is None


def test_a_revocation_list_does_not_go_back(client: Client, realm: Realm, clock: FakeClock) -> None:
    client.set_host("host")
    rounds = []
    for number in (2, 3):
        rounds.append(client.begin())
        newer = make_revocations(realm, [9], number)
        host = ScriptedHost(realm, clock, header={"revocation_list": number}, revocations=newer)
        carry_out(rounds[-1], {"host:1688": host})
    for round_ in reversed(rounds):
        client.finish(round_)
    assert client.machine().revocations == 3


def test_renewal_is_due_after_the_interval_and_at_most_a_tenth_more(
    client: Client, realm: Realm, clock: FakeClock
) -> None:
    assert client.is_due()
    activate(client, ScriptedHost(realm, clock))
    clock.sleep(7 * DAY_MS - 1)
    assert not client.is_due()
    clock.sleep(7 * DAY_MS // 10 + 1)
    assert client.is_due()


def test_a_short_lease_is_renewed_at_half_its_validity(client: Client, realm: Realm, clock: FakeClock) -> None:
    activate(client, ScriptedHost(realm, clock, leaf={"validity": 60}))
    clock.sleep(30 * MINUTE_MS - 1)
    assert not client.is_due()
    clock.sleep(3 * MINUTE_MS + 1)
    assert client.is_due()


def test_a_short_lease_is_tried_for_again_before_it_ends(client: Client, realm: Realm, clock: FakeClock) -> None:
    activate(client, ScriptedHost(realm, clock, leaf={"validity": 60}))
    clock.sleep(33 * MINUTE_MS)
    with pytest.raises(Refused):
        activate(client, ScriptedHost(realm, clock, count=1, threshold=9, leaf={"validity": 60}))
    clock.sleep(15 * MINUTE_MS - 1)
    assert not client.is_due()
    clock.sleep(15 * MINUTE_MS // 10 + 1)
    assert client.is_due()


@pytest.mark.parametrize(("said", "minutes"), [(240, 240), (1, 15), (10**6, 43_200)])
def test_retries_follow_the_hosts_interval_within_bounds(
    client: Client, realm: Realm, clock: FakeClock, said: int, minutes: int
) -> None:
    with pytest.raises(Refused):
        activate(client, ScriptedHost(realm, clock, count=1, threshold=9, leaf={"activation_interval": said}))
    clock.sleep(minutes * MINUTE_MS - 1)
    assert not client.is_due()
    clock.sleep(minutes * MINUTE_MS // 10 + 1)
    assert client.is_due()


def test_a_new_host_is_asked_at_once(client: Client, realm: Realm, clock: FakeClock) -> None:
    with pytest.raises(ActivationError):
        activate(client, ScriptedHost(realm, clock, unsigned=0xE04B0003))
    assert not client.is_due()
    client.set_host("other")
    assert client.is_due()


def test_a_clock_that_was_ahead_does_not_stop_renewals(client: Client, realm: Realm, clock: FakeClock) -> None:
    activate(client, ScriptedHost(realm, clock))
    clock.wall_ms -= 60 * DAY_MS
    assert client.is_due()
