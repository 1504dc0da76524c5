"""A host's side of the exchange: what it keeps, what it installs, and what it refuses to install."""

import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kms_fast.errors import ConfigurationError, KeyInvalid
from kms_fast.files import write_atomically
from kms_fast.host import enrolment
from kms_fast.host.enrolment import (
    apply_answer,
    make_request,
    read_certificate,
    read_host_key,
    read_installation,
)
from kms_fast.host.host_keys import find_installation_id, read_keys
from kms_fast.model import signing
from kms_fast.model.exchange import HostRequest
from kms_fast.publisher.exporting import export_publisher_file, read_exported
from kms_fast.publisher.issuing import certify
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.revoking import revoke
from tests.publishing import NOW_MS, PASSPHRASE, certify_host, make_publisher, request_certificate


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return tmp_path / "host"


@pytest.fixture
def key(publisher: Publisher) -> str:
    return publisher.make_host_key(now_ms=NOW_MS).key.text


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_first_requests_at_once_are_of_one_host(
    publisher: Publisher, host: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_slowly(path: Path, data: bytes, *, mode: int) -> None:
        time.sleep(0.1)
        write_atomically(path, data, mode=mode)

    monkeypatch.setattr(enrolment, "write_atomically", write_slowly)
    data = (publisher.folder / "publisher.json").read_bytes()

    def request(_: int) -> bytes:
        return make_request(host, [key], publisher_data=data, now_ms=NOW_MS)

    with ThreadPoolExecutor(4) as pool:
        requests = [HostRequest.parse(text) for text in pool.map(request, range(4))]
    assert {one.public_key for one in requests} == {signing.public_bytes(read_host_key(host))}


def test_secrets_are_readable_for_the_owner_alone(publisher: Publisher, host: Path, key: str) -> None:
    certify_host(publisher, host, key)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in host.iterdir() if path.is_file()}
    assert modes == {
        "host.key": 0o600,
        "keys.json": 0o600,
        "catalog.json": 0o600,
        "host.cert": 0o644,
        "publisher.json": 0o644,
    }
    assert list((host / "pending").iterdir()) == []


def test_the_host_key_is_kept_nowhere(publisher: Publisher, host: Path, key: str) -> None:
    certify_host(publisher, host, key)
    stored = read_keys(host)
    assert stored is not None
    assert [secrets.last_five for secrets in stored.keys] == [key[-5:]]
    assert not any(key.encode() in data for data in read_all(host).values())


def test_a_renewal_needs_no_key_and_keeps_the_private_key(publisher: Publisher, host: Path, key: str) -> None:
    certified = certify_host(publisher, host, key)
    request = HostRequest.parse(make_request(host, now_ms=NOW_MS))
    assert request.public_key == certified.certificate.public_key
    assert request.installation_id == b"i" * 16


def last_fives(folder: Path) -> list[str]:
    stored = read_keys(folder)
    return [] if stored is None else [secrets.last_five for secrets in stored.keys]


def test_keys_of_a_request_count_when_it_is_answered(publisher: Publisher, host: Path, key: str) -> None:
    """Whichever of two outstanding requests is answered, and in which form."""
    issuer_key = publisher.read_issuer_key(PASSPHRASE)
    second, third = (publisher.make_host_key(now_ms=NOW_MS).key.text for _ in range(2))
    certify_host(publisher, host, key)
    renewal = make_request(host, now_ms=NOW_MS)
    request_of_second = request_certificate(publisher, host, second)
    assert last_fives(host) == [key[-5:]]
    apply_answer(host, certify(publisher, renewal, issuer_key, now_ms=NOW_MS).answer, now_ms=NOW_MS)
    assert last_fives(host) == [key[-5:]]
    apply_answer(host, certify(publisher, request_of_second, issuer_key, now_ms=NOW_MS).answer, now_ms=NOW_MS)
    assert last_fives(host) == [second[-5:]]
    # An answer in its compact form names no key: it is that of the request made last.
    for typed, kept in (((), second), ((third,), third)):
        data = request_certificate(publisher, host, *typed)
        certified = certify(publisher, data, issuer_key, now_ms=NOW_MS)
        apply_answer(host, certified.compact, now_ms=NOW_MS)
        assert last_fives(host) == [kept[-5:]]
    assert list((host / "pending").iterdir()) == []


def test_a_key_that_both_have_tells_nothing(publisher: Publisher, host: Path, key: str) -> None:
    certify_host(publisher, host, key)
    request_certificate(publisher, host, key, publisher.make_host_key(now_ms=NOW_MS).key.text)
    renewed = certify(
        publisher, make_request(host, now_ms=NOW_MS), publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS
    )
    apply_answer(host, renewed.answer, now_ms=NOW_MS)
    assert last_fives(host) == [key[-5:]]


def test_the_first_request_needs_publisher_and_key(publisher: Publisher, host: Path, key: str) -> None:
    publisher_data = (publisher.folder / "publisher.json").read_bytes()
    with pytest.raises(ConfigurationError, match="--publisher"):
        make_request(host, [key], now_ms=NOW_MS)
    with pytest.raises(ConfigurationError, match="--key"):
        make_request(host, publisher_data=publisher_data, now_ms=NOW_MS)
    assert not host.exists()


def test_a_setup_key_is_no_host_key(publisher: Publisher, host: Path) -> None:
    with pytest.raises(KeyInvalid, match="This is a client setup key"):
        request_certificate(publisher, host, publisher.find_sku("Desktop 1").setup_key(publisher.publisher_id).text)
    assert not host.exists()


def test_another_publishers_key_or_file_is_refused(publisher: Publisher, host: Path, key: str, tmp_path: Path) -> None:
    other = make_publisher(tmp_path / "other")
    certify_host(publisher, host, key)
    with pytest.raises(ConfigurationError, match="is installed"):
        request_certificate(other, host, other.make_host_key(now_ms=NOW_MS).key.text)


def test_an_answer_without_a_request_is_refused(host: Path) -> None:
    with pytest.raises(ConfigurationError, match="host request first"):
        apply_answer(host, b"", now_ms=NOW_MS)


def test_what_is_wrong_installs_nothing(publisher: Publisher, host: Path, key: str) -> None:
    certified = certify(
        publisher, request_certificate(publisher, host, key), publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS
    )
    before = read_all(host)
    damaged = certified.answer.replace(b'"sealed_catalog": "', b'"sealed_catalog": "00')
    for data in (b"", damaged, certified.answer[:-20]):
        with pytest.raises(ConfigurationError) as caught:
            apply_answer(host, data, now_ms=NOW_MS)
        assert caught.value.result.name == "OFFLINE_DATA_MALFORMED"
    assert read_all(host) == before


def test_another_hosts_answer_is_refused(publisher: Publisher, host: Path, key: str, tmp_path: Path) -> None:
    request_certificate(publisher, host, key)
    other = certify_host(publisher, tmp_path / "other", key)
    with pytest.raises(ConfigurationError, match="belongs to another host"):
        apply_answer(host, other.answer, now_ms=NOW_MS)


def test_nothing_goes_back(publisher: Publisher, host: Path, key: str) -> None:
    first = certify_host(publisher, host, key)
    second = certify(publisher, make_request(host, now_ms=NOW_MS), publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS)
    publisher.add_product("Desktop 2", "desktop")
    export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS)
    third = certify(publisher, make_request(host, now_ms=NOW_MS), publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS)
    apply_answer(host, second.answer, now_ms=NOW_MS)
    with pytest.raises(ConfigurationError, match="certificate has serial 1, the installed one 2") as caught:
        apply_answer(host, first.answer, now_ms=NOW_MS)
    assert caught.value.result.name == "VERSION_WENT_BACK"
    assert apply_answer(host, third.answer, now_ms=NOW_MS).catalog.number == 2
    apply_answer(host, third.answer, now_ms=NOW_MS)
    with pytest.raises(ConfigurationError, match="publisher file has number 1, the installed one 2"):
        apply_answer(host, second.answer, now_ms=NOW_MS)


def test_a_lower_catalog_number_is_refused(publisher: Publisher, host: Path, key: str) -> None:
    certify_host(publisher, host, key)
    with publisher.records.transaction():
        assert publisher.records.number_for("catalog", b"other") == 2
    raised = certify(publisher, make_request(host, now_ms=NOW_MS), publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS)
    assert apply_answer(host, raised.answer, now_ms=NOW_MS).catalog.number == 3
    kept = (host / "catalog.json").read_bytes()
    publisher.records._connection.execute("UPDATE numbers SET number = 0, digest = x'' WHERE kind = 'catalog'")
    lower = certify(publisher, make_request(host, now_ms=NOW_MS), publisher.read_issuer_key(PASSPHRASE), now_ms=NOW_MS)
    with pytest.raises(ConfigurationError, match="catalog has number 1, the installed one 3"):
        apply_answer(host, lower.answer, now_ms=NOW_MS)
    assert (host / "catalog.json").read_bytes() == kept


def test_another_private_key_does_not_go_on_with_a_ledger(publisher: Publisher, host: Path, key: str) -> None:
    certify_host(publisher, host, key)
    (host / "ledger").mkdir()
    (host / "ledger" / "segment-00000001.kfl").touch()
    certify_host(publisher, host, key)
    (host / "host.key").unlink()
    with pytest.raises(ConfigurationError, match="move that folder away"):
        certify_host(publisher, host, key)
    assert read_certificate(host).serial == 2
    (host / "ledger").rename(host / "ledger.old")
    certify_host(publisher, host, key)
    assert read_certificate(host).serial == 4


def test_a_revoked_host_does_not_start(publisher: Publisher, host: Path, key: str) -> None:
    serial = certify_host(publisher, host, key).certificate.serial
    revoke(publisher, [serial], PASSPHRASE, now_ms=NOW_MS)
    export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS)
    (host / "publisher.json").write_bytes((publisher.folder / "publisher.json").read_bytes())
    with pytest.raises(ConfigurationError) as caught:
        read_installation(host)
    assert caught.value.result.name == "CERTIFICATE_REVOKED"


def test_an_installation_is_read_whole(publisher: Publisher, host: Path, key: str) -> None:
    certified = certify_host(publisher, host, key)
    installed = read_installation(host)
    assert installed.chain_data == certified.certificate.to_bytes() + publisher.issuer.to_bytes()
    assert installed.publisher == read_exported(publisher, publisher.read_catalog())[1]
    private = installed.private_key.private_bytes_raw()
    assert repr(private) not in repr(installed)


def test_a_host_without_certificate_is_not_activated(publisher: Publisher, host: Path, key: str) -> None:
    request_certificate(publisher, host, key)
    with pytest.raises(ConfigurationError) as caught:
        read_installation(host)
    assert caught.value.result.name == "HOST_NOT_ACTIVATED"


def test_another_private_key_is_noticed(publisher: Publisher, host: Path, key: str, tmp_path: Path) -> None:
    certify_host(publisher, host, key)
    certify_host(publisher, tmp_path / "other", key)
    (tmp_path / "other" / "host.key").replace(host / "host.key")
    with pytest.raises(ConfigurationError, match="is not the key"):
        read_installation(host)
    (host / "host.key").write_bytes(b"nothing")
    with pytest.raises(ConfigurationError, match="damaged"):
        read_host_key(host)


@pytest.mark.parametrize("name", ["publisher.json", "host.cert", "catalog.json"])
def test_a_damaged_file_is_named(publisher: Publisher, host: Path, key: str, name: str) -> None:
    certify_host(publisher, host, key)
    damaged = host / name
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ConfigurationError) as caught:
        read_installation(host)
    assert caught.value.message.startswith(f"{damaged}: ")
    assert caught.value.details["file"] == str(damaged)
    assert caught.value.result.name == "OFFLINE_DATA_MALFORMED"


def test_the_installation_id_stays_and_differs_for_every_publisher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_id = tmp_path / "machine-id"
    machine_id.write_text("0123456789abcdef0123456789abcdef\n")
    monkeypatch.setattr("kms_fast.host.host_keys._MACHINE_ID_FILES", (tmp_path / "none", machine_id))
    assert find_installation_id(bytes(16)) == find_installation_id(bytes(16)) != find_installation_id(b"p" * 16)
    machine_id.write_text("")
    assert find_installation_id(bytes(16)) != find_installation_id(bytes(16))
