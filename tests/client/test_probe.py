"""Probes of real hosts: what they tell, and that they count nothing."""

import time
from pathlib import Path

from kms_fast.client.blocking import ask
from kms_fast.client.exchange import Kind, Outcome
from kms_fast.client.machine import SystemClock
from kms_fast.client.probe import build_probe
from kms_fast.client.trust import Trust
from kms_fast.discovery.address import HostAddress
from kms_fast.model.keys import KeyKind, parse_key
from kms_fast.model.lease import Answer, Leaf
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.results import BY_NAME
from tests.client.world import SETUP_KEYS, listening
from tests.hosts import Realm, make_realm, run_cli, serve


def probe(realm: Realm, host: HostAddress, name: str = "desktop") -> Outcome:
    publisher = PublisherFile.parse(realm.publisher_json.read_bytes())
    key = parse_key(SETUP_KEYS[name], expect=KeyKind.CLIENT_SETUP, publisher_id=publisher.publisher_id)
    exchange = build_probe(host, Trust(publisher, publisher.sku(key.reference), key), SystemClock())
    ask(exchange)
    assert exchange.outcome
    return exchange.outcome


def test_a_certified_host_signs_its_refusal_and_counts_nothing(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    with serve(realm) as running:
        outcomes = [probe(realm, HostAddress(*running.address)) for _ in range(2)]
        counted = run_cli("host", "status", home=realm.home)[1]["families"]["desktops"]["count"]
    for outcome in outcomes:
        assert (outcome.kind, outcome.code) == (Kind.REFUSED, BY_NAME["CLOCKS_DIFFER"].code)
        assert Answer.parse(outcome.answer).host_certificate.serial == 1
        assert outcome.checked
        assert Leaf.parse(outcome.checked.leaf).count == 0
    assert counted == 0


def test_a_host_without_the_family_is_one_of_the_publishers_too(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    with serve(realm) as running:
        outcome = probe(realm, HostAddress(*running.address), "server")
    assert (outcome.kind, outcome.code) == (Kind.REFUSED, BY_NAME["HOST_CANNOT_SERVE"].code)


def test_a_revoked_host_is_rejected(tmp_path: Path) -> None:
    realm = make_realm(tmp_path / "host")
    revoking = make_realm(tmp_path / "client", revoked=[1], now_ms=time.time_ns() // 1_000_000)
    with serve(realm) as running:
        outcome = probe(revoking, HostAddress(*running.address))
    assert (outcome.kind, outcome.code) == (Kind.REJECTED, BY_NAME["CERTIFICATE_REVOKED"].code)


def test_what_is_no_host_is_told_apart(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        name, _, port = address.rpartition(":")
        assert probe(realm, HostAddress(name, int(port))).kind is Kind.REJECTED
    assert probe(realm, HostAddress(name, int(port))).kind is Kind.UNREACHABLE
