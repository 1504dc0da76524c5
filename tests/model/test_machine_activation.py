"""Machine requests and activations: what they prove, by the reference too, and what is refused."""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from kms_fast.errors import ConfigurationError
from kms_fast.model.certificate import Rights, issue_issuer_certificate
from kms_fast.model.keys import KeyKind, ProductKey
from kms_fast.model.machine_activation import (
    ActivationKeySecrets,
    MachineActivation,
    MachineRequest,
    issue_machine_activation,
)
from kms_fast.model.signing import public_bytes
from tests.model.test_catalog import SKU, edit, make_publisher_file
from tests.publishing import DAY_MS, NOW_MS, PUBLISHER_ID, Authority, make_authority
from tests.reference.machine_activation import make_machine_activation, make_machine_request

AUTHORITY = make_authority()
KEY = ProductKey(KeyKind.MULTIPLE_ACTIVATION, 0, SKU.reference, b"multiple 1")
SECRETS = ActivationKeySecrets.derive(KEY, PUBLISHER_ID)
CMID = UUID("d1f1c7d4-5f5b-4d2b-9c39-6f2a2f5b7a10")
REQUEST = MachineRequest(PUBLISHER_ID, SECRETS.key_id, SKU.id, CMID, b"hardware digest!", NOW_MS).seal(SECRETS)


def make_activation(authority: Authority = AUTHORITY) -> MachineActivation:
    return issue_machine_activation(
        authority.issuer_key,
        authority.issuer,
        REQUEST,
        key_last_five=KEY.last_five,
        customer_id=7,
        issued_ms=NOW_MS + 5,
    )


def test_a_request_is_that_of_the_reference() -> None:
    expected = make_machine_request(PUBLISHER_ID, KEY.secret, str(SKU.id), str(CMID), b"hardware digest!", NOW_MS)
    assert json.loads(REQUEST.to_json()) == expected
    assert MachineRequest.parse(json.dumps(expected).encode()) == REQUEST
    REQUEST.check_mac(SECRETS)


def test_an_activation_is_that_of_the_reference() -> None:
    request = json.loads(REQUEST.to_json())
    issuer = AUTHORITY.issuer.to_bytes()
    expected = make_machine_activation(request, KEY.last_five, 7, AUTHORITY.issuer_key, issuer, NOW_MS + 5)
    assert json.loads(make_activation().to_json()) == expected
    activation = MachineActivation.parse(json.dumps(expected).encode())
    assert activation == make_activation()
    activation.verify(make_publisher_file())


def test_neither_carries_the_key_nor_what_is_derived_from_it() -> None:
    texts = REQUEST.to_json().decode(), make_activation().to_json().decode(), repr(SECRETS), repr(REQUEST)
    for text in texts:
        assert KEY.secret.hex() not in text
        assert SECRETS.mac_key.hex() not in text
        assert repr(SECRETS.mac_key) not in text


def test_a_mac_under_another_key_is_refused() -> None:
    other = ActivationKeySecrets(SECRETS.key_id, SECRETS.last_five, bytes(32))
    with pytest.raises(ConfigurationError, match=f"ends in {SECRETS.last_five}") as caught:
        REQUEST.seal(other).check_mac(SECRETS)
    assert caught.value.result.name == "KEY_INVALID"


@pytest.mark.parametrize("name", ["publisher_id", "key_id", "hardware_digest"])
def test_the_mac_covers_every_byte_string(name: str) -> None:
    def change(document: dict[str, Any]) -> None:
        document["body"][name] = "00" * (len(document["body"][name]) // 2)

    with pytest.raises(ConfigurationError, match="was not made with"):
        MachineRequest.parse(edit(REQUEST.to_json(), change)).check_mac(SECRETS)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda document: document["body"].pop("cmid"), "'cmid' is missing"),
        (lambda document: document["body"].update(sku="5"), "'sku' must be a UUID"),
        (lambda document: document["body"].update(more=1), "'more' is not known"),
        (lambda document: document.update(mac="00"), "'mac' must be 32 bytes"),
        (lambda document: document.update(format="kms_fast host request 1"), "has format 'kms_fast host request 1'"),
    ],
)
def test_a_damaged_request_is_refused(change: Callable[[dict[str, Any]], None], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        MachineRequest.parse(edit(REQUEST.to_json(), change))
    assert caught.value.result.name == "OFFLINE_DATA_MALFORMED"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda document: document["body"].update(cmid=str(UUID(int=1))), "OFFLINE_DATA_MALFORMED"),
        (lambda document: document["body"].update(hardware_digest="00" * 16), "OFFLINE_DATA_MALFORMED"),
        (lambda document: document["body"].update(customer_id=0), "OFFLINE_DATA_MALFORMED"),
        (lambda document: document["body"].update(publisher_id="00" * 16), "OFFLINE_DATA_MALFORMED"),
        (lambda document: document["body"].update(issued_ms=NOW_MS - DAY_MS), "ISSUER_DATES"),
        (lambda document: document.update(signature="00" * 64), "OFFLINE_DATA_MALFORMED"),
        (lambda document: document.update(issuer_certificate="01" * 144), "ROOT_UNKNOWN"),
    ],
)
def test_a_changed_activation_is_refused(change: Callable[[dict[str, Any]], None], name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MachineActivation.parse(edit(make_activation().to_json(), change)).verify(make_publisher_file())
    assert caught.value.result.name == name


def test_another_publishers_activation_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_activation(make_authority("other")).verify(make_publisher_file())
    assert caught.value.result.name == "ROOT_UNKNOWN"


def test_an_issuer_that_may_not_certify_hosts_activates_no_machine() -> None:
    issuer = issue_issuer_certificate(
        AUTHORITY.root_key,
        public_key=public_bytes(AUTHORITY.issuer_key),
        publisher_id=PUBLISHER_ID,
        serial=2,
        not_before_ms=NOW_MS,
        days=1,
        rights=Rights.CATALOGS | Rights.REVOCATION_LISTS,
    )
    activation = issue_machine_activation(
        AUTHORITY.issuer_key, issuer, REQUEST, key_last_five="ABCDE", customer_id=0, issued_ms=NOW_MS
    )
    with pytest.raises(ConfigurationError) as caught:
        activation.verify(make_publisher_file())
    assert caught.value.result.name == "ISSUER_RIGHTS"
