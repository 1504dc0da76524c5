"""A round over several hosts: who is asked, in which order, and which error remains when nobody grants."""

from pathlib import Path
from typing import Any

import pytest

from kms_fast.client import Client
from kms_fast.client.exchange import HostExchange, Kind
from kms_fast.client.round import Plan, Round
from kms_fast.discovery.address import HostAddress
from kms_fast.discovery.srv import Service
from kms_fast.errors import ActivationError, AnswerRejected, NoHost, Refused, Unsigned
from kms_fast.results import BY_NAME
from tests.client.world import HOUR_MS, FakeClock, ScriptedHost, carry_out, make_client
from tests.hosts import Realm

SERVICE = Service("_kms-fast._tcp")
LOOKUP = "lookup _kms-fast._tcp"


def make_round(client: Client, *names: str, service: Service | None = None) -> Round:
    return Round(client.begin().inquiry, Plan([HostAddress(name) for name in names], service))


def run(round_: Round, found: list[str] | None = None, **hosts: Any) -> list[str]:
    return carry_out(round_, {f"{name}:1688": host for name, host in hosts.items()}, found)


def fail(client: Client, **hosts: Any) -> ActivationError:
    round_ = make_round(client, *hosts)
    run(round_, **hosts)
    assert round_.grant is None
    return round_.failure()


def test_the_round_ends_with_the_first_grant(client: Client, realm: Realm, clock: FakeClock) -> None:
    round_ = make_round(client, "a", "b", "c", service=SERVICE)
    done = run(round_, a="Connection refused", b=ScriptedHost(realm, clock), c="never asked")
    assert done == ["a:1688", "b:1688"]
    assert round_.grant is not None
    assert str(round_.grant.host) == "b:1688"


def test_hosts_are_looked_up_after_the_known_ones_and_asked_once(
    client: Client, realm: Realm, clock: FakeClock
) -> None:
    round_ = make_round(client, "a", service=SERVICE)
    done = run(round_, ["b", "a", "c", "b"], a="down", b="down", c=ScriptedHost(realm, clock))
    assert done == ["a:1688", LOOKUP, "b:1688", "c:1688"]


def test_every_host_gets_the_same_bytes(client: Client, realm: Realm, clock: FakeClock) -> None:
    refusing, granting = ScriptedHost(realm, clock, count=1, threshold=9), ScriptedHost(realm, clock)
    run(make_round(client, "a", "b"), a=refusing, b=granting)
    assert refusing.requests == granting.requests


@pytest.mark.parametrize("change", [{"count": 1, "threshold": 9}, {"sku": "desktop", "time_shift_ms": 5 * HOUR_MS}])
def test_a_signed_refusal_goes_on_with_the_round(
    client: Client, realm: Realm, clock: FakeClock, change: dict[str, Any]
) -> None:
    round_ = make_round(client, "a", "b")
    run(round_, a=ScriptedHost(realm, clock, **change), b=ScriptedHost(realm, clock))
    assert [outcome.kind for outcome in round_.outcomes] == [Kind.REFUSED, Kind.GRANTED]


def test_a_low_count_says_how_many_are_seen_and_needed(client: Client, realm: Realm, clock: FakeClock) -> None:
    error = fail(client, a=ScriptedHost(realm, clock, count=3, threshold=25))
    assert isinstance(error, Refused)
    assert error.signed
    assert error.message == "a:1688 has seen 3 of the 25 machines that Desktop 3 needs."
    assert (error.details["count"], error.details["threshold"]) == (3, 25)


def test_a_generation_that_is_not_certified_says_which_key_is_needed(
    tmp_path: Path, realm: Realm, clock: FakeClock
) -> None:
    client = make_client(tmp_path, realm, clock, key="newer")
    error = fail(client, a=ScriptedHost(realm, clock, sku="newer"))
    assert error.result.name == "HOST_CANNOT_SERVE"
    assert error.details["certified_generation"] == 3
    assert error.details["key_needed"] == "a host key for the family 'desktops' of generation 4 or later"
    assert "up to generation 3" in error.message


def test_a_family_that_is_not_certified_says_which_key_is_needed(
    tmp_path: Path, realm: Realm, clock: FakeClock
) -> None:
    client = make_client(tmp_path, realm, clock, key="server")
    error = fail(client, a=ScriptedHost(realm, clock, sku="server"))
    assert error.result.name == "HOST_CANNOT_SERVE"
    assert error.details["certified_generation"] is None
    assert error.details["key_needed"] == "a host key for the family 'servers' of generation 1 or later"


def test_clocks_that_differ_are_both_shown(client: Client, realm: Realm, clock: FakeClock) -> None:
    error = fail(client, a=ScriptedHost(realm, clock, time_shift_ms=5 * HOUR_MS))
    assert error.result.name == "CLOCKS_DIFFER"
    assert error.details["client_time"] == "2027-01-15 08:00:00 UTC"
    assert error.details["host_time"] == "2027-01-15 13:00:00 UTC"


def test_one_unsigned_code_of_all_that_answered_is_the_error(client: Client, realm: Realm, clock: FakeClock) -> None:
    busy = BY_NAME["SERVER_BUSY"].code
    error = fail(
        client, a=ScriptedHost(realm, clock, unsigned=busy), b="down", c=ScriptedHost(realm, clock, unsigned=busy)
    )
    assert isinstance(error, Unsigned)
    assert not error.signed
    assert error.result.name == "SERVER_BUSY"
    assert [host["outcome"] for host in error.details["hosts"]] == ["unsigned", "unreachable", "unsigned"]


def test_different_unsigned_codes_are_no_host_with_what_each_said(
    client: Client, realm: Realm, clock: FakeClock
) -> None:
    error = fail(
        client,
        a=ScriptedHost(realm, clock, unsigned=BY_NAME["SERVER_BUSY"].code),
        b=ScriptedHost(realm, clock, unsigned=BY_NAME["PRODUCT_UNKNOWN"].code),
    )
    assert isinstance(error, NoHost)
    assert error.result.name == "NO_HOST_REACHED"
    assert [host["code"] for host in error.details["hosts"]] == ["0xE04B0003", "0xE04B0002"]


def test_a_rejected_answer_is_the_error_when_nobody_else_answered(
    client: Client, realm: Realm, clock: FakeClock
) -> None:
    error = fail(client, a=ScriptedHost(realm, clock, leaf={"sku_id": bytes(16)}), b="down")
    assert isinstance(error, AnswerRejected)
    assert error.result.name == "SKU_MISMATCH"
    assert not error.signed


def test_a_signed_refusal_says_more_than_unsigned_words(client: Client, realm: Realm, clock: FakeClock) -> None:
    error = fail(
        client,
        a=ScriptedHost(realm, clock, unsigned=BY_NAME["SERVER_BUSY"].code),
        b=ScriptedHost(realm, clock, count=3, threshold=25),
    )
    assert error.result.name == "COUNT_TOO_LOW"


def test_no_record_is_the_error_only_when_there_was_nobody_to_ask(client: Client) -> None:
    round_ = make_round(client, service=SERVICE)
    run(round_)
    assert round_.failure().result.name == "NO_SRV_RECORD"
    round_ = make_round(client, "cached", service=SERVICE)
    run(round_, cached="down")
    error = round_.failure()
    assert error.result.name == "NO_HOST_REACHED"
    assert error.details["names"] == {"a.": "the name does not exist"}


def test_foreign_servers_are_skipped_and_listed(client: Client, realm: Realm, clock: FakeClock) -> None:
    round_ = make_round(client, "a", "b")
    task = round_.next_task()
    assert isinstance(task, HostExchange)
    task.receive(bytes.fromhex("05000d03100000001300000001000000" + "040000"))
    run(round_, b=ScriptedHost(realm, clock, unsigned=BY_NAME["SERVER_BUSY"].code))
    error = round_.failure()
    assert error.result.name == "SERVER_BUSY"
    assert error.details["hosts"][0]["outcome"] == "foreign"


def test_a_shell_that_leaves_an_exchange_out_is_told(client: Client) -> None:
    round_ = make_round(client, "a")
    round_.next_task()
    with pytest.raises(RuntimeError):
        round_.next_task()
