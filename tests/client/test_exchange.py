"""One host, one connection: every kind of answer becomes the outcome that a round needs."""

import struct
from typing import Any

import pytest

from kms_fast._core import RpcCounters, Session, build_bind
from kms_fast.client import Client
from kms_fast.client.exchange import HostExchange, Kind, Outcome
from kms_fast.discovery.address import HostAddress
from kms_fast.results import BY_NAME
from tests.client.world import HOUR_MS, FakeClock, ScriptedHost, make_revocations, talk
from tests.hosts import Realm
from tests.rpc.pdus import NOT_OURS, UNKNOWN_INTERFACE, bind_ack, bind_nak, fault


def begin(client: Client) -> HostExchange:
    client.set_host("host")
    task = client.begin().next_task()
    assert isinstance(task, HostExchange)
    return task


def ask(client: Client, host: ScriptedHost) -> Outcome:
    exchange = begin(client)
    talk(exchange, host)
    assert exchange.outcome is not None
    return exchange.outcome


def test_a_grant_comes_with_its_checked_answer(client: Client, realm: Realm, clock: FakeClock) -> None:
    outcome = ask(client, ScriptedHost(realm, clock))
    assert outcome.kind is Kind.GRANTED
    assert outcome.code == 0
    assert outcome.checked is not None
    assert outcome.checked.leaf[4:8] == bytes(4)


def test_a_refusal_is_signed(client: Client, realm: Realm, clock: FakeClock) -> None:
    outcome = ask(client, ScriptedHost(realm, clock, count=3, threshold=25))
    assert outcome.kind is Kind.REFUSED
    assert outcome.code == BY_NAME["COUNT_TOO_LOW"].code


@pytest.mark.parametrize("name", ["HOST_NOT_ACTIVATED", "REQUEST_UNREADABLE", "SERVER_BUSY"])
def test_an_unsigned_result_is_its_code(client: Client, realm: Realm, clock: FakeClock, name: str) -> None:
    outcome = ask(client, ScriptedHost(realm, clock, unsigned=BY_NAME[name].code))
    assert (outcome.kind, outcome.code) == (Kind.UNSIGNED, BY_NAME[name].code)


def test_an_answer_that_fails_a_check_is_rejected_by_its_name(client: Client, realm: Realm, clock: FakeClock) -> None:
    outcome = ask(client, ScriptedHost(realm, clock, leaf={"cmid": bytes(16)}))
    assert (outcome.kind, outcome.code) == (Kind.REJECTED, BY_NAME["CMID_MISMATCH"].code)
    assert outcome.details == {"step": 6}


def test_a_time_out_of_bounds_shows_both_times(client: Client, realm: Realm, clock: FakeClock) -> None:
    outcome = ask(client, ScriptedHost(realm, clock, time_shift_ms=5 * HOUR_MS, leaf={"result": 0, "validity": 60}))
    assert outcome.code == BY_NAME["ANSWER_TIME"].code
    assert outcome.details["client_time"] == "2027-01-15 08:00:00 UTC"
    assert outcome.details["host_time"] == "2027-01-15 13:00:00 UTC"


def test_result_0_without_an_answer_is_malformed(client: Client, realm: Realm, clock: FakeClock) -> None:
    host = ScriptedHost(realm, clock)
    host.answer = lambda *_: (None, 0)  # type: ignore[method-assign]
    assert ask(client, host).code == BY_NAME["ANSWER_MALFORMED"].code


def test_the_request_is_sent_after_the_bind_was_accepted(client: Client) -> None:
    exchange = begin(client)
    assert exchange.start() == build_bind(1)
    session = Session(RpcCounters())
    session.receive(exchange.start())
    request = exchange.receive(session.take_output())
    assert len(request) == 252
    assert not exchange.done


def end_with(client: Client, data: bytes) -> Outcome:
    exchange = begin(client)
    exchange.start()
    assert exchange.receive(data) == b""
    assert exchange.done
    assert exchange.outcome is not None
    return exchange.outcome


def test_a_server_that_rejects_the_interface_is_foreign(client: Client) -> None:
    assert end_with(client, bind_ack(NOT_OURS)).kind is Kind.FOREIGN


def test_a_server_that_refuses_the_bind_is_foreign(client: Client) -> None:
    assert end_with(client, bind_nak(call_id=1, reason=4)).kind is Kind.FOREIGN


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\5\0\2\3\x10\0\0\0\x10\0\0\0\1\0\0\0"])
def test_what_does_not_speak_the_protocol_is_rejected(client: Client, data: bytes) -> None:
    outcome = end_with(client, data)
    assert (outcome.kind, outcome.code) == (Kind.REJECTED, BY_NAME["RPC_REFUSED"].code)


def test_a_fault_is_an_unsigned_refusal(client: Client) -> None:
    outcome = end_with(client, fault(2, UNKNOWN_INTERFACE))
    assert (outcome.kind, outcome.code) == (Kind.UNSIGNED, BY_NAME["RPC_REFUSED"].code)
    assert "0x1C010003" in outcome.text


def test_a_lost_connection_is_unreachable(client: Client) -> None:
    exchange = begin(client)
    exchange.lose("Connection refused")
    assert exchange.outcome is not None
    assert exchange.outcome.to_json() == {
        "host": "host:1688",
        "outcome": "unreachable",
        "code": None,
        "text": "Connection refused",
    }


def test_a_newer_revocation_list_is_fetched_and_heeded(client: Client, realm: Realm, clock: FakeClock) -> None:
    host = ScriptedHost(realm, clock, header={"revocation_list": 4}, revocations=make_revocations(realm, [1], 4))
    outcome = ask(client, host)
    assert host.queries == [struct.pack("<BBHI", 1, 3, 0, 0)]
    assert (outcome.kind, outcome.code) == (Kind.REJECTED, BY_NAME["CERTIFICATE_REVOKED"].code)


@pytest.mark.parametrize("case", ["none", "garbage", "forged", "others"])
def test_a_list_that_does_not_come_or_verify_or_name_the_host_changes_nothing(
    client: Client, realm: Realm, clock: FakeClock, case: str
) -> None:
    forged = bytearray(make_revocations(realm, [1], 4))
    forged[32] = 9
    data: dict[str, Any] = {
        "none": None,
        "garbage": b"\1\4",
        "forged": bytes(forged),
        "others": make_revocations(realm, [7], 4),
    }
    host = ScriptedHost(realm, clock, header={"revocation_list": 4}, revocations=data[case])
    assert ask(client, host).kind is Kind.GRANTED
    assert len(host.queries) == 1


def test_a_connection_lost_while_the_list_is_on_its_way_keeps_the_grant(
    client: Client, realm: Realm, clock: FakeClock
) -> None:
    exchange, host = begin(client), ScriptedHost(realm, clock, header={"revocation_list": 4})
    session = Session(RpcCounters())
    request = exchange.receive(host.serve(session, exchange.start()))
    assert exchange.receive(host.serve(session, request)) != b""
    assert not exchange.done
    exchange.lose("no answer within 10 s")
    assert exchange.outcome is not None
    assert exchange.outcome.kind is Kind.GRANTED


def test_hosts_are_named_as_users_write_them() -> None:
    assert Outcome(HostAddress("2001:db8::7"), Kind.FOREIGN, "", 0).to_json()["host"] == "[2001:db8::7]:1688"
