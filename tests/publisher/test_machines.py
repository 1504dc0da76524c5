"""Activating machines: what a multiple-activation key allows, that a failure takes nothing from it, and the log."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from kms_fast.errors import ConfigurationError
from kms_fast.model.keys import ProductKey, parse_key
from kms_fast.model.machine_activation import ActivationKeySecrets, MachineRequest
from kms_fast.publisher.exporting import read_exported
from kms_fast.publisher.machines import ActivatedMachine, activate_machine, make_activation_key
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.service import PEER_BURST, ActivationService
from tests.publishing import DAY_MS, NOW_MS, PASSPHRASE


def make_key(publisher: Publisher, machines: int = 2, product: str = "Desktop 1") -> ProductKey:
    made, _ = make_activation_key(publisher, product, now_ms=NOW_MS, machines=machines, customer_id=4711)
    return parse_key(made.text)


def make_request(publisher: Publisher, key: ProductKey, machine: int, product: str = "Desktop 1") -> MachineRequest:
    """The request of the machine with this number."""
    secrets = ActivationKeySecrets.derive(key, publisher.publisher_id)
    sku = publisher.find_sku(product).id
    request = MachineRequest(
        publisher.publisher_id, secrets.key_id, sku, UUID(int=machine), bytes([machine]) * 16, NOW_MS
    )
    return request.seal(secrets)


def activate(publisher: Publisher, request: MachineRequest, now_ms: int = NOW_MS) -> ActivatedMachine:
    return activate_machine(publisher, request.to_json(), publisher.read_issuer_key(PASSPHRASE), now_ms=now_ms)


def test_a_key_activates_so_many_machines_and_each_as_often_as_it_asks(publisher: Publisher) -> None:
    key = make_key(publisher)
    done = [activate(publisher, make_request(publisher, key, machine)) for machine in (1, 2, 1)]
    assert [(one.machines, one.again) for one in done] == [(1, False), (2, False), (2, True)]
    with pytest.raises(ConfigurationError, match=f"ends in {key.last_five} has activated 2 of 2 machines") as caught:
        activate(publisher, make_request(publisher, key, 3))
    assert caught.value.result.name == "MULTIPLE_ACTIVATION_KEY_USED_UP"
    assert caught.value.details == {"machines": 2, "machines_allowed": 2}
    assert activate(publisher, make_request(publisher, key, 2)).again


def test_who_asks_again_is_no_row_of_the_log(publisher: Publisher) -> None:
    """It costs nothing, so it could fill the log."""
    key = make_key(publisher)
    for _ in range(3):
        activate(publisher, make_request(publisher, key, 1))
    assert len(publisher.records.list_requests(limit=9)) == 1


def test_two_services_give_the_last_place_once(publisher: Publisher) -> None:
    key = make_key(publisher, machines=1)
    services = [Publisher(publisher.folder) for _ in range(2)]
    issuer_key = publisher.read_issuer_key(PASSPHRASE)
    data = [make_request(publisher, key, machine).to_json() for machine in (1, 2)]
    outcomes: list[str] = []

    def ask(service: Publisher, request: bytes) -> None:
        try:
            activate_machine(service, request, issuer_key, now_ms=NOW_MS)
            outcomes.append("activated")
        except ConfigurationError as error:
            outcomes.append(error.result.name)

    with publisher.records.transaction():
        threads = [threading.Thread(target=ask, args=pair) for pair in zip(services, data, strict=True)]
        for thread in threads:
            thread.start()
    for thread, service in zip(threads, services, strict=True):
        thread.join()
        service.close()
    assert sorted(outcomes) == ["MULTIPLE_ACTIVATION_KEY_USED_UP", "activated"]


def test_one_installation_on_other_hardware_is_another_machine(publisher: Publisher) -> None:
    """A copied home would activate any number of machines otherwise."""
    key = make_key(publisher, machines=1)
    request = make_request(publisher, key, 1)
    activate(publisher, request)
    secrets = ActivationKeySecrets.derive(key, publisher.publisher_id)
    with pytest.raises(ConfigurationError) as caught:
        activate(publisher, replace(request, hardware_digest=b"another hardware").seal(secrets))
    assert caught.value.result.name == "MULTIPLE_ACTIVATION_KEY_USED_UP"


def test_an_activation_holds_what_was_asked(publisher: Publisher) -> None:
    key = make_key(publisher)
    request = make_request(publisher, key, 1)
    activation = activate(publisher, request).activation
    assert (activation.sku, activation.cmid, activation.hardware_digest) == (request.sku, request.cmid, b"\1" * 16)
    assert (activation.key_last_five, activation.customer_id, activation.issued_ms) == (key.last_five, 4711, NOW_MS)
    activation.verify(read_exported(publisher, publisher.read_catalog())[1])


def change_mac(request: MachineRequest) -> MachineRequest:
    return replace(request, mac=bytes(32))


@pytest.mark.parametrize(
    ("change", "name", "problem"),
    [
        (change_mac, "KEY_INVALID", "was not made with the multiple-activation key"),
        (lambda request: replace(request, key_id=bytes(8)), "KEY_INVALID", "did not make"),
        (lambda request: replace(request, publisher_id=bytes(16)), "OFFLINE_DATA_MALFORMED", "another publisher"),
    ],
)
def test_a_forged_request_takes_nothing(
    publisher: Publisher, change: Callable[[MachineRequest], MachineRequest], name: str, problem: str
) -> None:
    key = make_key(publisher)
    with pytest.raises(ConfigurationError, match=problem) as caught:
        activate(publisher, change(make_request(publisher, key, 1)))
    assert caught.value.result.name == name
    secrets = ActivationKeySecrets.derive(key, publisher.publisher_id)
    assert publisher.records.count_machines(secrets.key_id) == 0


def test_a_key_is_for_one_product(publisher: Publisher) -> None:
    with pytest.raises(ConfigurationError, match="activates another product") as caught:
        activate(publisher, make_request(publisher, make_key(publisher), 1, product="Server 2"))
    assert caught.value.result.name == "KEY_INVALID"


def test_a_disabled_key_activates_nothing_until_it_is_enabled(publisher: Publisher) -> None:
    key = make_key(publisher)
    record = publisher.records.name_key(key.last_five)
    publisher.records.disable_key(record.secrets.key_id, NOW_MS)
    with pytest.raises(ConfigurationError, match="has disabled") as caught:
        activate(publisher, make_request(publisher, key, 1))
    assert caught.value.result.name == "KEY_DISABLED"
    publisher.records.disable_key(record.secrets.key_id, None)
    assert activate(publisher, make_request(publisher, key, 1)).machines == 1


def test_nothing_is_activated_after_the_issuers_end(publisher: Publisher) -> None:
    request = make_request(publisher, make_key(publisher), 1)
    with pytest.raises(ConfigurationError) as caught:
        activate(publisher, request, NOW_MS + 731 * DAY_MS)
    assert caught.value.result.name == "ISSUER_DATES"


def test_a_product_that_was_not_exported_yet_is_activated(publisher: Publisher) -> None:
    """Whoever has the key has the product's publisher file; hosts' catalogs are another matter."""
    publisher.add_product("Desktop 2", "desktop")
    key = make_key(publisher, product="Desktop 2")
    assert activate(publisher, make_request(publisher, key, 1, product="Desktop 2")).machines == 1


def test_the_log_has_what_was_granted_and_what_was_refused(publisher: Publisher) -> None:
    key = make_key(publisher, machines=1)
    activate(publisher, make_request(publisher, key, 1))
    for data in (make_request(publisher, key, 2).to_json(), b"no request"):
        with pytest.raises(ConfigurationError):
            activate_machine(publisher, data, publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS, peer="192.0.2.1")
    rows = publisher.records.list_requests(limit=9)
    assert [(row.keys, row.result, row.installation_id, row.peer) for row in rows] == [
        ("", 0xC004F02C, None, "192.0.2.1"),
        (key.last_five, 0xC004C020, UUID(int=2).bytes, "192.0.2.1"),
        (key.last_five, 0, UUID(int=1).bytes, ""),
    ]
    assert [row.result for row in publisher.records.list_requests(limit=9, refused=False)] == [0]
    assert [row.result for row in publisher.records.list_requests(limit=9, refused=True)] == [0xC004F02C, 0xC004C020]


def test_the_service_lets_a_site_of_machines_in_as_its_peer_may_ask(publisher: Publisher) -> None:
    service = ActivationService(publisher, publisher.read_issuer_key(PASSPHRASE), peer_per_hour=1, key_per_hour=1)
    key = make_key(publisher, machines=PEER_BURST)
    requests = [make_request(publisher, key, machine).to_json() for machine in range(PEER_BURST + 1)]
    replies = [service.answer_machine_request(data, "192.0.2.1", now_ms=NOW_MS, now_s=0.0) for data in requests]
    assert [reply.status for reply in replies] == [200] * PEER_BURST + [429]
    reply = service.answer_machine_request(requests[-1], "192.0.2.2", now_ms=NOW_MS, now_s=0.0)
    assert (reply.status, json.loads(reply.body)["name"]) == (403, "MULTIPLE_ACTIVATION_KEY_USED_UP")
