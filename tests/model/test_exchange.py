"""Host requests and answers: what they prove, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from kms_fast.errors import ConfigurationError
from kms_fast.model import signing
from kms_fast.model.certificate import CertifiedFamily, issue_host_certificate
from kms_fast.model.document import canonical_json
from kms_fast.model.exchange import HostAnswer, HostKeySecrets, HostRequest, build_host_answer, build_host_request
from kms_fast.model.keys import KeyKind, ProductKey
from kms_fast.model.publisher_file import PublisherFile
from tests.model.test_catalog import CATALOG, make_publisher_file
from tests.publishing import DAY_MS, NOW_MS, PUBLISHER_ID, Authority, make_authority, make_private_key

AUTHORITY = make_authority()
HOST = make_private_key("host")
KEY = ProductKey(KeyKind.HOST, 0, 0, b"host key 1")
SECRETS = HostKeySecrets.derive(KEY, PUBLISHER_ID)
OTHER_SECRETS = HostKeySecrets.derive(ProductKey(KeyKind.HOST, 0, 0, b"host key 2"), PUBLISHER_ID)

Change = Callable[[dict[str, Any]], Any]


def edit(data: bytes, change: Change) -> bytes:
    document = json.loads(data)
    change(document)
    return json.dumps(document).encode()


def make_request(*keys: HostKeySecrets) -> bytes:
    return build_host_request(
        HOST, keys or [SECRETS], publisher_id=PUBLISHER_ID, installation_id=b"i" * 16, created_ms=NOW_MS
    )


def test_a_request_is_read_back_and_proves_its_keys() -> None:
    request = HostRequest.parse(make_request(SECRETS, OTHER_SECRETS))
    assert request.public_key == signing.public_bytes(HOST)
    assert request.key_ids == (SECRETS.key_id, OTHER_SECRETS.key_id)
    request.check_mac(SECRETS)
    request.check_mac(OTHER_SECRETS)


def test_a_request_carries_neither_the_key_nor_what_is_derived_from_it() -> None:
    text = make_request().decode()
    assert all(secret.hex() not in text for secret in (KEY.secret, SECRETS.mac_key, SECRETS.seal_key))


def test_a_mac_under_another_key_is_refused() -> None:
    forged = HostKeySecrets(SECRETS.key_id, SECRETS.last_five, OTHER_SECRETS.mac_key, bytes(32))
    request = HostRequest.parse(make_request(forged))
    with pytest.raises(ConfigurationError, match=f"ends in {SECRETS.last_five}") as caught:
        request.check_mac(SECRETS)
    assert caught.value.result.name == "KEY_INVALID"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda document: document["body"].update(installation_id="00" * 16), "not signed by its host"),
        (lambda document: document.update(signature="00" * 64), "not signed by its host"),
        (lambda document: document.update(macs=[]), "each with its MAC"),
        (lambda document: document["body"].update(key_ids=[]), "1 to 8 different keys"),
        (lambda document: document["body"].pop("created_ms"), "'created_ms' is missing"),
    ],
)
def test_a_changed_request_is_refused(change: Change, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        HostRequest.parse(edit(make_request(), change))
    assert caught.value.result.name == "OFFLINE_DATA_MALFORMED"


@dataclass
class Exchange:
    """What a host knows, and the answer it got."""

    answer: bytes
    trusted: PublisherFile

    def open(self, answer: bytes | None = None, **changes: Any) -> HostAnswer:
        values: dict[str, Any] = {
            "trusted": self.trusted,
            "public_key": signing.public_bytes(HOST),
            "keys": {SECRETS.key_id: SECRETS},
            "now_ms": NOW_MS,
        }
        return HostAnswer.open(answer or self.answer, **values | changes)


def make_exchange(authority: Authority = AUTHORITY, secrets: HostKeySecrets = SECRETS) -> Exchange:
    certificate = issue_host_certificate(
        authority.issuer_key,
        authority.issuer,
        public_key=signing.public_bytes(HOST),
        serial=1,
        not_before_ms=NOW_MS,
        not_after_ms=NOW_MS + DAY_MS,
        families=[CertifiedFamily(1, 2, 25, 259_200)],
    )
    answer = build_host_answer(
        certificate,
        authority.issuer,
        catalog=CATALOG.to_signed_json(authority.issuer_key, authority.issuer),
        secrets=secrets,
        publisher_data=make_publisher_file(authority).to_signed_json(authority.root_key),
    )
    return Exchange(answer, make_publisher_file())


def test_an_answer_opens_for_its_host() -> None:
    exchange = make_exchange()
    answer = exchange.open()
    assert answer.catalog == CATALOG
    assert answer.publisher == make_publisher_file()
    assert PublisherFile.parse(answer.publisher_data) == answer.publisher
    assert answer.chain_data == answer.certificate.to_bytes() + answer.issuer.to_bytes()
    assert CATALOG.skus[0].secret.hex() not in exchange.answer.decode()


def flip(body: dict[str, Any], name: str, at: int) -> None:
    data = bytearray.fromhex(body[name])
    data[at] ^= 1
    body[name] = data.hex()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda body: flip(body, "host_certificate", 20), "CERTIFICATE_SIGNATURE"),
        (lambda body: flip(body, "issuer_certificate", 50), "ISSUER_SIGNATURE"),
        (lambda body: flip(body, "sealed_catalog", 30), "OFFLINE_DATA_MALFORMED"),
        (lambda body: flip(body, "catalog_key_id", 0), "OFFLINE_DATA_MALFORMED"),
        (lambda body: flip(body, "publisher_id", 0), "OFFLINE_DATA_MALFORMED"),
        (lambda body: body["publisher"]["body"].update(number=9), "OFFLINE_DATA_MALFORMED"),
        (lambda body: body["publisher"].update(format="other"), "OFFLINE_DATA_MALFORMED"),
        (lambda body: body.update(extra=1), "OFFLINE_DATA_MALFORMED"),
    ],
)
def test_a_changed_answer_is_refused(change: Change, name: str) -> None:
    exchange = make_exchange()
    with pytest.raises(ConfigurationError) as caught:
        exchange.open(edit(exchange.answer, lambda document: change(document["body"])))
    assert caught.value.result.name == name


@pytest.mark.parametrize(
    ("changes", "name", "problem"),
    [
        ({"public_key": bytes(32)}, "OFFLINE_DATA_MALFORMED", "belongs to another host"),
        ({"keys": {OTHER_SECRETS.key_id: OTHER_SECRETS}}, "OFFLINE_DATA_MALFORMED", "sealed for another host key"),
        ({"keys": {SECRETS.key_id: OTHER_SECRETS}}, "OFFLINE_DATA_MALFORMED", "does not open"),
        ({"trusted": make_publisher_file(number=7)}, "VERSION_WENT_BACK", "number 6, the installed one 7"),
        ({"trusted": make_publisher_file(publisher_id=bytes(16))}, "OFFLINE_DATA_MALFORMED", "not one of Example"),
        ({"trusted": make_publisher_file(make_authority("other"))}, "ROOT_UNKNOWN", "not trusted here"),
        ({"now_ms": NOW_MS + 2 * DAY_MS}, "CERTIFICATE_DATES", "is valid from"),
    ],
)
def test_an_answer_for_somebody_else_is_refused(changes: dict[str, Any], name: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        make_exchange().open(**changes)
    assert caught.value.result.name == name


def test_a_request_as_answer_is_named() -> None:
    with pytest.raises(ConfigurationError, match="has format 'kms_fast host request 1'"):
        make_exchange().open(make_request())


def test_the_mac_covers_the_canonical_body() -> None:
    document = json.loads(make_request())
    assert document["macs"] == [SECRETS.mac(canonical_json(document["body"])).hex()]
