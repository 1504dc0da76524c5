"""The rules of the activation service, without the network."""

import json
from pathlib import Path

import pytest

from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.service import KEY_BURST, PEER_BURST, ActivationService
from tests.publishing import NOW_MS, PASSPHRASE, request_certificate


@pytest.fixture
def service(publisher: Publisher) -> ActivationService:
    return ActivationService(publisher, publisher.read_issuer_key(PASSPHRASE), peer_per_hour=3600, key_per_hour=1)


def ask(service: ActivationService, data: bytes, peer: str, now_s: float = 0.0) -> tuple[int, str]:
    reply = service.answer_host_request(data, peer, now_ms=NOW_MS, now_s=now_s)
    told = json.loads(reply.body)
    return reply.status, told.get("name", told.get("format"))


def test_machines_of_one_ipv6_network_are_one_peer(service: ActivationService) -> None:
    answers = [ask(service, b"", f"2001:db8::{number:x}") for number in range(PEER_BURST + 1)]
    assert answers == [(400, "OFFLINE_DATA_MALFORMED")] * PEER_BURST + [(429, "TOO_MANY_REQUESTS")]
    assert ask(service, b"", "2001:db8:0:1::1") == (400, "OFFLINE_DATA_MALFORMED")
    assert ask(service, b"", "2001:db8::1", now_s=1.0) == (400, "OFFLINE_DATA_MALFORMED")


def test_ipv4_addresses_in_ipv6_form_are_each_their_own(service: ActivationService) -> None:
    """As a listener for both sees them."""
    answers = [ask(service, b"", f"::ffff:10.0.0.{number}") for number in range(PEER_BURST + 1)]
    assert answers == [(400, "OFFLINE_DATA_MALFORMED")] * (PEER_BURST + 1)
    for _ in range(PEER_BURST - 1):
        ask(service, b"", "10.0.0.1")
    assert ask(service, b"", "::ffff:10.0.0.1") == (429, "TOO_MANY_REQUESTS")


def test_a_flood_fills_no_log(service: ActivationService, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(PEER_BURST + 1000):
        ask(service, b"", "10.0.0.1", now_s=100.0)
    ask(service, b"", "10.0.0.2", now_s=160.0)
    for _ in range(PEER_BURST + 1000):
        ask(service, b"", "10.0.0.2", now_s=160.0)
    lines = [record.getMessage() for record in caplog.records if "too many requests" in record.getMessage()]
    assert lines == [
        "too many requests of the address 10.0.0.1; refused so since the last such line: 1",
        "too many requests of the address 10.0.0.2; refused so since the last such line: 1000",
    ]


def test_only_who_holds_a_key_uses_up_its_limit(
    service: ActivationService, publisher: Publisher, tmp_path: Path
) -> None:
    """The ID of a key is no secret: a request with a false MAC takes nothing from its customer."""
    key = publisher.make_host_key(now_ms=NOW_MS).key.text
    data = request_certificate(publisher, tmp_path / "host", key)
    forged = json.loads(data)
    forged["macs"] = ["00" * 32]
    for number in range(2 * KEY_BURST):
        assert ask(service, json.dumps(forged).encode(), f"10.0.0.{number}") == (403, "KEY_INVALID")
    for number in range(KEY_BURST):
        assert ask(service, data, f"10.0.1.{number}") == (200, "kms_fast host answer 1")
    assert ask(service, data, "10.0.2.1") == (429, "TOO_MANY_REQUESTS")
    assert ask(service, data, "10.0.2.1", now_s=3600.0) == (200, "kms_fast host answer 1")


def test_without_an_export_there_is_nothing_to_give(service: ActivationService, publisher: Publisher) -> None:
    assert service.describe().startswith("publisher file 1, revoked certificates: 0, issuer until 2029-01-")
    (publisher.folder / "publisher.json").unlink()
    reply = service.show_publisher_file("10.0.0.1", now_s=0.0)
    assert (reply.status, json.loads(reply.body)["name"]) == (503, "PUBLISHER_FAILED")
    assert "Until then no host is certified" in service.describe()
