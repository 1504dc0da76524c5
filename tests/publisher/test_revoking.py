"""Revoking by host and by key, and what a revoked host may not do any more."""

from pathlib import Path

import pytest

from kms_fast.errors import ConfigurationError
from kms_fast.host.enrolment import make_request
from kms_fast.publisher import revoking
from kms_fast.publisher.exporting import export_publisher_file
from kms_fast.publisher.issuing import certify
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.revoking import find_serials_of_host, find_serials_of_key, revoke
from tests.publishing import DAY_MS, NOW_MS, PASSPHRASE, certify_host, request_certificate


def test_all_certificates_of_a_key_or_a_host(publisher: Publisher, tmp_path: Path) -> None:
    stolen, other = (publisher.make_host_key(now_ms=NOW_MS).key for _ in range(2))
    first = certify_host(publisher, tmp_path / "first", stolen.text).certificate
    second = certify_host(publisher, tmp_path / "second", stolen.text).certificate
    certify_host(publisher, tmp_path / "third", other.text)
    renewed = certify_host(publisher, tmp_path / "first", stolen.text).certificate
    key = publisher.records.name_host_key(stolen.last_five)
    assert find_serials_of_host(publisher, first.host_id, NOW_MS) == [first.serial, renewed.serial]
    assert find_serials_of_key(publisher, key, NOW_MS) == [first.serial, second.serial, renewed.serial]
    revoke(publisher, [second.serial], PASSPHRASE, now_ms=NOW_MS)
    assert find_serials_of_key(publisher, key, NOW_MS) == [first.serial, renewed.serial]
    with pytest.raises(ConfigurationError, match="no certificate that could be revoked"):
        find_serials_of_key(publisher, key, NOW_MS + 400 * DAY_MS)
    with pytest.raises(ConfigurationError, match="no certificate that could be revoked"):
        find_serials_of_host(publisher, bytes(16), NOW_MS)


def test_one_that_cannot_be_revoked_revokes_none(publisher: Publisher, tmp_path: Path) -> None:
    key = publisher.make_host_key(now_ms=NOW_MS).key.text
    serial = certify_host(publisher, tmp_path / "host", key).certificate.serial
    with pytest.raises(ConfigurationError, match="serial 99"):
        revoke(publisher, [serial, 99], PASSPHRASE, now_ms=NOW_MS)
    assert publisher.records.list_revoked() == []


def test_a_revoked_host_needs_another_private_key(publisher: Publisher, tmp_path: Path) -> None:
    key = publisher.make_host_key(now_ms=NOW_MS).key.text
    serial = certify_host(publisher, tmp_path / "host", key).certificate.serial
    revoke(publisher, [serial], PASSPHRASE, now_ms=NOW_MS)
    export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS)
    issuer_key = publisher.read_issuer_key(PASSPHRASE)
    with pytest.raises(ConfigurationError, match=f"revoked certificate {serial}") as caught:
        certify(publisher, make_request(tmp_path / "host", now_ms=NOW_MS), issuer_key, now_ms=NOW_MS)
    assert caught.value.result.name == "CERTIFICATE_REVOKED"
    (tmp_path / "host" / "host.key").unlink()
    again = certify(publisher, make_request(tmp_path / "host", now_ms=NOW_MS), issuer_key, now_ms=NOW_MS)
    assert (again.renewal, again.uses[0][1].activations_of_host) == (False, 2)


def test_what_ended_longer_ago_than_any_lease_leaves_the_list(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revoking, "MAX_SERIALS", 2)
    key = publisher.make_host_key(now_ms=NOW_MS).key.text
    first, second = (certify_host(publisher, tmp_path / f"host{number}", key).certificate for number in range(2))
    request = request_certificate(publisher, tmp_path / "later", key)
    later = certify(publisher, request, publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS + DAY_MS).certificate
    assert revoke(publisher, [first.serial, second.serial], PASSPHRASE, now_ms=NOW_MS).serials == (1, 2)
    last_ms = first.not_after_ms + 365 * DAY_MS
    with pytest.raises(ConfigurationError, match=r"at most 2;.*disable-key.*leaves the list on 2029-01-14 08:00:00"):
        revoke(publisher, [later.serial], PASSPHRASE, now_ms=last_ms)
    assert len(publisher.records.list_revoked()) == 2
    assert revoke(publisher, [later.serial], PASSPHRASE, now_ms=last_ms + 1).serials == (later.serial,)
    # It stays revoked: its host gets no other certificate for the same private key.
    assert publisher.records.find_revoked(first.host_id) == first.serial
