"""What the history keeps of an attempt, and the events that are logged for each host of a round."""

import logging
from collections.abc import Iterator

import pytest

from kms_fast.client import ActivationError, Client
from kms_fast.client.history import show_attempt
from kms_fast.client.state import Attempt
from tests.client.world import HOUR_MS, NOW_MS, FakeClock, ScriptedHost, carry_out
from tests.hosts import SKUS, Realm

SKU = str(SKUS["desktop"].id)


def ask(client: Client, hosts: dict[str, ScriptedHost | str], found: list[str] | None = None) -> None:
    round_ = client.begin()
    carry_out(round_, hosts, found)
    try:
        client.finish(round_)
    except ActivationError:
        return


def last(client: Client) -> Attempt:
    return client.history()[0][1][-1]


def test_a_grant(client: Client, realm: Realm, clock: FakeClock) -> None:
    ask(client, {"a:1688": ScriptedHost(realm, clock, count=30, threshold=25, time_shift_ms=2000)}, ["a"])
    assert show_attempt(last(client)) == {
        "time": "2027-01-15 08:00:00 UTC",
        "last": "2027-01-15 08:00:00 UTC",
        "times": 1,
        "host": "a:1688",
        "code": "0x00000000",
        "name": "ACTIVATED",
        "message": "The machine is activated.",
        "count": 30,
        "threshold": 25,
        "host_ahead_ms": 2000,
    }


def test_a_signed_refusal_tells_count_and_clock(client: Client, realm: Realm, clock: FakeClock) -> None:
    hosts: dict[str, ScriptedHost | str] = {
        "a:1688": "down",
        "b:1688": ScriptedHost(realm, clock, count=3, threshold=9, time_shift_ms=-HOUR_MS),
    }
    ask(client, hosts, ["a", "b"])
    attempt = last(client)
    assert (attempt.host, attempt.code, attempt.count, attempt.threshold) == ("b:1688", 0xC004F038, 3, 9)
    assert attempt.host_ahead_ms == -HOUR_MS


def test_nobody_answered(client: Client) -> None:
    ask(client, {"a:1688": "down"}, ["a"])
    assert (last(client).host, last(client).code, last(client).count) == ("a:1688", 0xC004F074, None)
    ask(client, {"a:1688": "down", "b:1688": "away"}, ["a", "b"])
    assert (last(client).host, "a:1688: down; b:1688: away" in last(client).message) == (None, True)
    ask(client, {}, None)
    assert (last(client).host, last(client).code) == (None, 0x8007232B)


def test_an_outage_is_one_line_between_two_grants(client: Client, realm: Realm, clock: FakeClock) -> None:
    up: dict[str, ScriptedHost | str] = {"a:1688": ScriptedHost(realm, clock)}
    ask(client, up, ["a"])
    for _ in range(50):
        clock.sleep(2 * HOUR_MS)
        ask(client, {"a:1688": "down"}, ["a"])
    ask(client, up, ["a"])
    [(_, attempts)] = client.history()
    assert [(attempt.code, attempt.times) for attempt in attempts] == [(0, 1), (0xC004F074, 50), (0, 1)]
    assert (attempts[1].time_ms, attempts[1].last_ms) == (NOW_MS + 2 * HOUR_MS, NOW_MS + 100 * HOUR_MS)


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="kms_fast"):
        yield caplog


def test_a_request_and_an_answer_are_logged(
    client: Client, realm: Realm, clock: FakeClock, events: pytest.LogCaptureFixture
) -> None:
    ask(client, {"a:1688": ScriptedHost(realm, clock, count=7, threshold=1)}, ["a"])
    cmid = client.status().cmid
    assert events.messages == [
        f"12288 0x00000000,0x00000000,a:1688,{cmid},2027/01/15 08:00,0,2,43200,{SKU},1",
        "12289 0x00000000,0x00000001,1,0,7,120,10080,2027/01/15 08:00",
    ]
    assert [record.__dict__["event"] for record in events.records] == ["HOST_ASKED", "HOST_ANSWERED"]


def test_each_host_of_a_round_has_its_events(
    client: Client, realm: Realm, clock: FakeClock, events: pytest.LogCaptureFixture
) -> None:
    hosts: dict[str, ScriptedHost | str] = {
        "a:1688": "down",
        "b:1688": ScriptedHost(realm, clock, unsigned=0xE04B0003),
        "c:1688": ScriptedHost(realm, clock, count=1, threshold=9),
    }
    ask(client, hosts, ["a", "b", "c"])
    told = [message.split(",") for message in events.messages]
    assert [(fields[0], fields[1]) for fields in told] == [
        ("12288 0xC004F074", "0x00000000"),
        ("12288 0x00000000", "0x00000000"),
        ("12289 0xE04B0003", "0x00000000"),
        ("12288 0x00000000", "0x00000000"),
        ("12289 0xC004F038", "0x00000001"),
    ]
    assert [fields[2] for fields in told] == ["a:1688", "b:1688", "0", "c:1688", "0"]


def test_a_request_sent_again_is_flagged(
    client: Client, realm: Realm, clock: FakeClock, events: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        ask(client, {"a:1688": "down"}, ["a"])
    assert [message.split(",")[1] for message in events.messages] == ["0x00000000", "0x00000001"]
