"""Certifying: what is checked, what a host key allows, and that a failure takes nothing from it."""

import json
from pathlib import Path

import pytest

from kms_fast.errors import ConfigurationError
from kms_fast.host.enrolment import make_request, read_installation
from kms_fast.model.catalog_toml import PublisherCatalog
from kms_fast.model.exchange import HostKeySecrets, build_host_request
from kms_fast.model.keys import KeyKind, new_key
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.publisher.exporting import export_publisher_file, read_exported
from kms_fast.publisher.issuing import Certified, certify
from kms_fast.publisher.publisher import Publisher
from tests.publishing import (
    DAY_MS,
    NOW_MS,
    PASSPHRASE,
    certify_host,
    make_private_key,
    make_publisher,
    request_certificate,
)


def certify_new(publisher: Publisher, key: str, host: int, activation: int) -> Certified:
    """Certify a new private key (number ``activation``) of a host (number ``host``)."""
    folder = publisher.folder.parent / f"host {host}.{activation}"
    request = request_certificate(publisher, folder, key, installation=bytes([host]) * 16)
    return certify(publisher, request, publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS)


def test_a_certificate_holds_what_the_key_entitles_to(publisher: Publisher, tmp_path: Path) -> None:
    key = publisher.make_host_key({"server": 7}, now_ms=NOW_MS, customer_id=4711).key.text
    certificate = certify_host(publisher, tmp_path / "host", key).certificate
    (family,) = certificate.families
    assert (family.number, family.generation, family.minimum_threshold, family.maximum_validity_min) == (
        2,
        7,
        5,
        259_200,
    )
    assert certificate.customer_id == 4711
    assert certificate.not_after_ms == NOW_MS + 365 * DAY_MS
    installed = read_installation(tmp_path / "host")
    assert installed.certificate == certificate
    assert [sku.name for sku in installed.catalog.skus] == ["Desktop 1", "Server 2"]


def test_a_certificate_never_outlives_its_issuer(publisher: Publisher, tmp_path: Path) -> None:
    key = publisher.make_host_key(now_ms=NOW_MS).key.text
    request = request_certificate(publisher, tmp_path / "host", key)
    certified = certify(publisher, request, publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS + 700 * DAY_MS)
    assert certified.certificate.not_after_ms == publisher.issuer.not_after_ms
    with pytest.raises(ConfigurationError) as caught:
        certify(publisher, request, publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS + 731 * DAY_MS)
    assert caught.value.result.name == "ISSUER_DATES"


def test_several_keys_merge_into_one_certificate(publisher: Publisher, tmp_path: Path) -> None:
    keys = [
        publisher.make_host_key(families, now_ms=NOW_MS).key.text
        for families in ({"desktop": 1}, {"desktop": 3, "server": 1})
    ]
    certified = certify(
        publisher,
        request_certificate(publisher, tmp_path / "host", *keys),
        publisher.read_issuer_key(PASSPHRASE),
        now_ms=NOW_MS,
    )
    assert [(family.number, family.generation) for family in certified.certificate.families] == [(1, 3), (2, 1)]
    assert [use.hosts for _, use in certified.uses] == [1, 1]


def test_keys_of_different_customers_do_not_merge(publisher: Publisher, tmp_path: Path) -> None:
    keys = [publisher.make_host_key(now_ms=NOW_MS, customer_id=number).key.text for number in (1, 2)]
    request = request_certificate(publisher, tmp_path / "host", *keys)
    with pytest.raises(ConfigurationError, match="different customers"):
        certify(publisher, request, publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS)


def test_the_export_is_read_while_nobody_can_change_it(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revocation in between would go into no answer that says it is of the newest list."""
    key = publisher.make_host_key(now_ms=NOW_MS).key.text
    asked = []

    def read_within(publisher: Publisher, catalog: PublisherCatalog) -> tuple[bytes, PublisherFile]:
        asked.append(publisher.records._connection.in_transaction)
        return read_exported(publisher, catalog)

    monkeypatch.setattr("kms_fast.publisher.issuing.read_exported", read_within)
    certify_host(publisher, tmp_path / "host", key)
    assert asked == [True]


def test_an_edit_meanwhile_goes_into_no_part_of_an_answer(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = publisher.make_host_key(now_ms=NOW_MS).key.text
    path, next_serial = publisher.folder / "catalog.toml", publisher.records.next_serial
    before = path.read_bytes()
    publisher.add_product("Desktop 2", "desktop")
    after = path.read_bytes()
    path.write_bytes(before)

    def edit_and_go_on() -> int:
        path.write_bytes(after)
        return next_serial()

    monkeypatch.setattr(publisher.records, "next_serial", edit_and_go_on)
    certify_host(publisher, tmp_path / "host", key)
    installed = read_installation(tmp_path / "host")
    assert [sku.id for sku in installed.catalog.skus] == [sku.id for sku in installed.publisher.skus]


def test_a_renewal_takes_nothing_from_the_key(publisher: Publisher, tmp_path: Path) -> None:
    key = publisher.make_host_key(now_ms=NOW_MS, hosts=1, activations=1).key.text
    first = certify_host(publisher, tmp_path / "host", key)
    request = make_request(tmp_path / "host", now_ms=NOW_MS)
    again = certify(publisher, request, publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS)
    assert (first.renewal, again.renewal) == (False, True)
    assert again.certificate.serial == first.certificate.serial + 1
    assert again.uses[0][1] == first.uses[0][1]


def test_a_key_activates_so_many_hosts_so_often(publisher: Publisher) -> None:
    key = publisher.make_host_key(now_ms=NOW_MS, hosts=2, activations=3).key.text
    for host in (1, 2):
        for activation in (1, 2, 3):
            use = certify_new(publisher, key, host, activation).uses[0][1]
            assert (use.hosts, use.activations_of_host) == (host, activation)
    for host, problem in ((1, "this host 3 of 3 times"), (3, "activated 2 of 2 hosts")):
        with pytest.raises(ConfigurationError, match=problem) as caught:
            certify_new(publisher, key, host, 4)
        assert caught.value.result.hex == "0xC004C008"


def test_the_defaults_are_six_hosts_and_ten_activations(publisher: Publisher) -> None:
    key = publisher.make_host_key(now_ms=NOW_MS).key.text
    for host in range(6):
        certify_new(publisher, key, host, 0)
    with pytest.raises(ConfigurationError, match="activated 6 of 6 hosts, and this host 0 of 10 times"):
        certify_new(publisher, key, 6, 0)
    for activation in range(1, 10):
        certify_new(publisher, key, 0, activation)
    with pytest.raises(ConfigurationError, match="and this host 10 of 10 times"):
        certify_new(publisher, key, 0, 10)


def test_a_failure_takes_nothing_from_the_key(publisher: Publisher, tmp_path: Path) -> None:
    made = publisher.make_host_key(now_ms=NOW_MS)
    used_up = publisher.make_host_key(now_ms=NOW_MS, activations=1).key.text
    certify_new(publisher, used_up, 1, 1)
    keys = (made.key.text, used_up)
    request = request_certificate(publisher, tmp_path / "host", *keys, installation=bytes([1]) * 16)
    with pytest.raises(ConfigurationError, match="this host 1 of 1 times"):
        certify(publisher, request, publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS)
    key_id = HostKeySecrets.derive(made.key, publisher.publisher_id).key_id
    assert publisher.records.count_activations(key_id, bytes([1]) * 16).hosts == 0
    assert publisher.records.next_serial() == 2


def test_an_unknown_key_or_a_false_mac_is_refused(publisher: Publisher) -> None:
    known = HostKeySecrets.derive(publisher.make_host_key(now_ms=NOW_MS).key, publisher.publisher_id)
    unknown = HostKeySecrets.derive(new_key(KeyKind.HOST, publisher.publisher_id), publisher.publisher_id)
    forged = HostKeySecrets(known.key_id, known.last_five, unknown.mac_key, unknown.seal_key)
    for secrets, problem in ((unknown, "this publisher did not make"), (forged, "was not made with the host key")):
        request = build_host_request(
            make_private_key("host"),
            [secrets],
            publisher_id=publisher.publisher_id,
            installation_id=bytes(16),
            created_ms=NOW_MS,
        )
        with pytest.raises(ConfigurationError, match=problem) as caught:
            certify(publisher, request, publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS)
        assert caught.value.result.name == "KEY_INVALID"


def test_a_request_for_another_publisher_or_changed_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    other = make_publisher(tmp_path / "other")
    key = other.make_host_key(now_ms=NOW_MS).key.text
    request = request_certificate(other, tmp_path / "host", key)
    changed = json.loads(request)
    changed["body"]["created_ms"] += 1
    for data, problem in ((request, "another publisher"), (json.dumps(changed).encode(), "not signed by its host")):
        with pytest.raises(ConfigurationError, match=problem):
            certify(publisher, data, publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS)


def test_a_catalog_that_changed_must_be_exported_first(publisher: Publisher, tmp_path: Path) -> None:
    key = publisher.make_host_key(now_ms=NOW_MS).key.text
    request = request_certificate(publisher, tmp_path / "host", key)
    publisher.add_product("Desktop 2", "desktop")
    with pytest.raises(ConfigurationError, match="run kms-fast publisher export"):
        certify(publisher, request, publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS)
    export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS)
    assert certify(publisher, request, publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS).certificate.serial == 1


def test_a_family_that_left_the_catalog_is_left_out(publisher: Publisher, tmp_path: Path) -> None:
    both = publisher.make_host_key(now_ms=NOW_MS).key.text
    only = publisher.make_host_key({"server": 2}, now_ms=NOW_MS).key.text
    certify_host(publisher, tmp_path / "host", both)
    path = publisher.folder / "catalog.toml"
    text = path.read_text()
    path.write_text(text[: text.index("[[family]]\nnumber = 2")])
    export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS)
    renewed = certify_host(publisher, tmp_path / "host", both)
    assert ([family.number for family in renewed.certificate.families], renewed.renewal) == ([1], True)
    with pytest.raises(ConfigurationError, match=r"no longer has any family .*\(number 2\).*catalog\.toml and export"):
        certify_new(publisher, only, host=2, activation=1)
    assert publisher.records.count_activations(publisher.records.name_host_key(only[-5:]).secrets.key_id).hosts == 0
    path.write_text(text)
    export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS)
    assert certify_new(publisher, only, host=2, activation=1).certificate.serial == 3
