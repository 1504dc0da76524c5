"""A publisher's folder: made once, catalog by hand and by command, exports whose numbers only rise."""

import stat
from pathlib import Path

import pytest

from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.files import write_atomically
from kms_fast.host.enrolment import apply_answer, make_request
from kms_fast.model.catalog import Catalog
from kms_fast.model.keys import KeyKind, parse_key
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.publisher.exporting import export_publisher_file, read_exported, sign_catalog
from kms_fast.publisher.issuing import certify
from kms_fast.publisher.making import check_unused
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.revoking import revoke
from tests.publishing import DAY_MS, NOW_MS, PASSPHRASE, certify_host, make_publisher


def test_a_new_publisher_is_complete_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "publisher"
    made = Publisher.create(folder, "Example", PASSPHRASE, now_ms=NOW_MS)
    assert made.read_catalog().skus == ()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("root.key", "issuer.key", "catalog.toml", "publisher.db"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    assert PASSPHRASE not in b"".join(path.read_bytes() for path in folder.iterdir())


def test_an_existing_publisher_is_never_overwritten(publisher: Publisher) -> None:
    before = {path.name: path.read_bytes() for path in publisher.folder.iterdir()}
    with pytest.raises(ConfigurationError, match="already holds a publisher"):
        Publisher.create(publisher.folder, "Other", PASSPHRASE, now_ms=NOW_MS)
    assert {path.name: path.read_bytes() for path in publisher.folder.iterdir()} == before


def test_an_unfinished_publisher_is_named(tmp_path: Path) -> None:
    (tmp_path / "root.key").touch()
    with pytest.raises(ConfigurationError, match="was not finished"):
        Publisher.create(tmp_path, "Example", PASSPHRASE, now_ms=NOW_MS)
    with pytest.raises(ConfigurationError, match="kms-fast publisher init"):
        Publisher(tmp_path)


def test_a_publisher_that_lost_its_catalog_is_not_given_up(publisher: Publisher) -> None:
    (publisher.folder / "catalog.toml").unlink()
    for use in (Publisher, check_unused):
        with pytest.raises(ConfigurationError, match=r"catalog\.toml is missing.*kms-fast publisher restore") as caught:
            use(publisher.folder)
        assert "remove" not in caught.value.message
    assert (publisher.folder / "root.key").exists()


def test_a_bad_name_or_passphrase_makes_no_files(tmp_path: Path) -> None:
    folder = tmp_path / "publisher"
    for name, passphrase in (("a\nb", PASSPHRASE), ("Example", b"short")):
        with pytest.raises(ConfigurationError):
            Publisher.create(folder, name, passphrase, now_ms=NOW_MS)
        assert not folder.exists()


def test_adding_a_product_keeps_what_people_wrote(publisher: Publisher) -> None:
    path = publisher.folder / "catalog.toml"
    text = "# my own words\n" + path.read_text() + "# at the end, without a line end"
    path.write_text(text)
    sku, family = publisher.add_product("Desktop 2", "desktop", generation=2, validity_min=60)
    assert path.read_text().startswith(text + "\n")
    assert (family.number, family.threshold) == (1, 25)
    assert (sku.reference, sku.generation, sku.validity_min) == (3, 2, 60)
    assert publisher.find_sku("Desktop 2") == publisher.find_sku("3") == publisher.find_sku(str(sku.id)) == sku


def test_usual_families_have_usual_thresholds_and_others_need_one(publisher: Publisher) -> None:
    assert publisher.add_product("Suite 1", "suite")[1].threshold == 5
    with pytest.raises(ConfigurationError, match="--threshold"):
        publisher.add_product("Runner", "ci")
    family = publisher.add_product("Runner", "ci", threshold=1, validity_min=400_000)[1]
    assert (family.threshold, family.minimum_threshold, family.maximum_validity_min) == (1, 1, 400_000)


def test_a_new_family_gets_no_number_that_a_host_key_covers(publisher: Publisher) -> None:
    """Or the customers of a family that was given up would have the new one as well."""
    publisher.make_host_key({"server": 2}, now_ms=NOW_MS)
    path = publisher.folder / "catalog.toml"
    text = path.read_text()
    path.write_text(text[: text.index("[[family]]\nnumber = 2")])
    assert publisher.add_product("Suite 1", "suite")[1].number == 3


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        ({"generation": 0}, "generation"),
        ({"validity_min": 259_201}, "longer than family desktop allows"),
        ({"renewal_interval_min": 43_200}, "misses one renewal"),
        ({"threshold": 5}, "already in the catalog"),
    ],
)
def test_a_product_that_does_not_fit_changes_nothing(
    publisher: Publisher, numbers: dict[str, int], problem: str
) -> None:
    before = (publisher.folder / "catalog.toml").read_bytes()
    with pytest.raises(ConfigurationError, match=problem):
        publisher.add_product("Desktop 9", "desktop", **numbers)
    assert (publisher.folder / "catalog.toml").read_bytes() == before


def test_a_second_product_of_the_same_name_is_refused(publisher: Publisher) -> None:
    with pytest.raises(ConfigurationError, match="Desktop 1 occurs twice"):
        publisher.add_product("Desktop 1", "desktop")


def test_setup_keys_are_the_skus_own(publisher: Publisher) -> None:
    made = publisher.find_sku("Server 2").setup_key(publisher.publisher_id)
    key = parse_key(made.text, publisher_id=publisher.publisher_id)
    assert (key.kind, key.reference) == (KeyKind.CLIENT_SETUP, 2)
    with pytest.raises(ConfigurationError, match="its products: Desktop 1, Server 2"):
        publisher.find_sku("Server 3")


def test_a_host_key_covers_what_was_asked_for(publisher: Publisher) -> None:
    everything = publisher.make_host_key(now_ms=NOW_MS).entitlement
    assert (everything.families, everything.hosts, everything.activations) == ({1: 1, 2: 2}, 6, 10)
    some = publisher.make_host_key({"server": 7}, now_ms=NOW_MS, hosts=1, customer_id=4711).entitlement
    assert (some.families, some.hosts, some.customer_id) == ({2: 7}, 1, 4711)
    with pytest.raises(ConfigurationError, match="no family 'suite'; its families: desktop, server"):
        publisher.make_host_key({"suite": None}, now_ms=NOW_MS)


def test_a_host_key_is_stored_nowhere(publisher: Publisher) -> None:
    key = publisher.make_host_key(now_ms=NOW_MS).key
    publisher.close()
    stored = b"".join(path.read_bytes() for path in publisher.folder.iterdir())
    assert key.secret not in stored
    assert key.text.encode() not in stored


def test_without_a_family_there_is_no_host_key(tmp_path: Path) -> None:
    empty = Publisher.create(tmp_path, "Example", PASSPHRASE, now_ms=NOW_MS)
    with pytest.raises(ConfigurationError, match="add a product first"):
        empty.make_host_key(now_ms=NOW_MS)


def test_an_export_gets_a_new_number_only_when_it_changed(publisher: Publisher) -> None:
    assert export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS + 1).number == 1
    publisher.add_product("Desktop 2", "desktop")
    with pytest.raises(ConfigurationError, match="run kms-fast publisher export"):
        read_exported(publisher, publisher.read_catalog())
    exported = export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS + 2)
    assert exported.number == 2
    assert PublisherFile.parse((publisher.folder / "publisher.json").read_bytes()) == exported
    assert read_exported(publisher, publisher.read_catalog())[1] == exported


def test_a_damaged_export_is_to_be_exported_again(publisher: Publisher) -> None:
    path = publisher.folder / "publisher.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        ConfigurationError, match=r"publisher\.json is damaged: run kms-fast publisher export"
    ) as caught:
        read_exported(publisher, publisher.read_catalog())
    assert caught.value.result.name == "EXPORT_DUE"
    export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS)
    read_exported(publisher, publisher.read_catalog())


def test_a_number_whose_export_was_interrupted_is_given_to_nothing_else(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends between the file, which hosts may take, and the end of the transaction."""

    def write_and_end(path: Path, data: bytes, *, mode: int) -> None:
        write_atomically(path, data, mode=mode)
        raise KeyboardInterrupt

    def interrupt_export() -> None:
        with monkeypatch.context() as patched:
            patched.setattr("kms_fast.publisher.exporting.write_atomically", write_and_end)
            with pytest.raises(KeyboardInterrupt):
                export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS)

    before = (publisher.folder / "catalog.toml").read_text()
    publisher.add_product("Desktop 2", "desktop")
    interrupt_export()
    on_disk = (publisher.folder / "publisher.json").read_bytes()
    assert PublisherFile.parse(on_disk).number == 2
    assert export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS + 1).number == 2
    (publisher.folder / "catalog.toml").write_text(before)
    interrupt_export()
    publisher.add_product("Desktop 4", "desktop")
    assert export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS).number == 4
    for damaged in (b"", b"{}"):
        (publisher.folder / "publisher.json").write_bytes(damaged)
        assert export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS).number == 4


def test_a_lost_database_is_not_replaced(tmp_path: Path) -> None:
    make_publisher(tmp_path).close()
    (tmp_path / "publisher.db").unlink()
    with pytest.raises(ConfigurationError, match=r"publisher\.db is missing.*kms-fast publisher restore"):
        Publisher(tmp_path)
    assert not (tmp_path / "publisher.db").exists()


def test_a_wrong_activation_address_makes_no_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'activation_url' cannot be used: .*is not encrypted"):
        Publisher.create(
            tmp_path / "new", "Example", PASSPHRASE, now_ms=NOW_MS, activation_url="http://activation.example"
        )
    assert not (tmp_path / "new").exists()


def test_a_wrong_passphrase_exports_nothing(publisher: Publisher) -> None:
    before = (publisher.folder / "publisher.json").read_bytes()
    with pytest.raises(ConfigurationError) as caught:
        export_publisher_file(publisher, b"wrong passphrase", now_ms=NOW_MS)
    assert caught.value.result.name == "KEY_FILE_LOCKED"
    assert (publisher.folder / "publisher.json").read_bytes() == before


def test_a_changed_publisher_id_is_noticed(publisher: Publisher) -> None:
    path = publisher.folder / "catalog.toml"
    old = str(publisher.read_catalog().publisher_id)
    path.write_text(path.read_text().replace(old, old[:-1] + ("0" if old[-1] != "0" else "1")))
    with pytest.raises(ConfigurationError, match=f"must be {old}"):
        publisher.read_catalog()


def test_a_catalog_that_is_no_text_is_refused(publisher: Publisher) -> None:
    (publisher.folder / "catalog.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        publisher.read_catalog()


def test_revocation_lists_count_up_and_are_exported(publisher: Publisher, tmp_path: Path) -> None:
    key = publisher.make_host_key(now_ms=NOW_MS).key.text
    serials = [certify_host(publisher, tmp_path / f"host{number}", key).certificate.serial for number in range(2)]
    for number, serial in enumerate(serials, 1):
        assert revoke(publisher, [serial], PASSPHRASE, now_ms=NOW_MS).number == number
    exported = export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS)
    assert (exported.revoked, exported.revocations_number, exported.number) == (tuple(serials), 2, 2)
    with pytest.raises(ConfigurationError, match="revoked already"):
        revoke(publisher, serials[:1], PASSPHRASE, now_ms=NOW_MS)
    with pytest.raises(ConfigurationError, match="serial 99"):
        revoke(publisher, [99], PASSPHRASE, now_ms=NOW_MS)
    assert publisher.records.newest_revocation_list()[0] == 2


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    make_publisher(tmp_path).close()
    (tmp_path / "publisher.db").write_bytes(b"nothing of a database" * 100)
    with pytest.raises(KmsFastError, match=r"publisher\.db") as caught:
        Publisher(tmp_path)
    assert caught.value.result.name == "STORAGE_FAILED"


def test_a_signed_catalog_stays_the_same_file_until_it_changes(publisher: Publisher) -> None:
    kept = publisher.folder / "catalog.json"
    issuer_key = publisher.read_issuer_key(PASSPHRASE)

    def sign(now_ms: int) -> bytes:
        with publisher.records.transaction():
            return sign_catalog(publisher, publisher.read_catalog(), issuer_key, now_ms=now_ms)

    first = sign(NOW_MS)
    assert sign(NOW_MS + DAY_MS) == first == kept.read_bytes()
    assert kept.stat().st_mode & 0o777 == 0o600
    publisher.add_product("Another", "desktop")
    export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS)
    second = sign(NOW_MS + DAY_MS)
    _, exported = read_exported(publisher, publisher.read_catalog())
    assert Catalog.parse(second, roots=exported.roots, publisher_id=publisher.publisher_id).number == 2
    for damaged in (first, second[:100], second.replace(b"Another", b"Changed"), b""):
        kept.write_bytes(damaged)
        assert sign(NOW_MS + 2 * DAY_MS) not in (first, second, damaged)


def test_another_issuer_certifies_hosts_of_the_one_before(publisher: Publisher, tmp_path: Path) -> None:
    key = publisher.make_host_key(now_ms=NOW_MS).key.text
    first = certify_host(publisher, tmp_path / "host", key)
    revoke(publisher, [certify_host(publisher, tmp_path / "stolen", key).certificate.serial], PASSPHRASE, now_ms=NOW_MS)
    old_key, old_cert = ((publisher.folder / name).read_bytes() for name in ("issuer.key", "issuer.cert"))
    later_ms = NOW_MS + 600 * DAY_MS
    issuer = publisher.renew_issuer(PASSPHRASE, now_ms=later_ms)
    assert (issuer.serial, issuer.not_after_ms) == (2, later_ms - 4 * 3_600_000 + 730 * DAY_MS)
    export_publisher_file(publisher, PASSPHRASE, now_ms=later_ms)
    request = make_request(tmp_path / "host", now_ms=later_ms)
    certified = certify(publisher, request, publisher.read_issuer_key(PASSPHRASE), now_ms=later_ms)
    applied = apply_answer(tmp_path / "host", certified.answer, now_ms=later_ms)
    assert (applied.issuer.serial, certified.renewal) == (2, True)
    assert applied.certificate.host_id == first.certificate.host_id
    assert len(applied.publisher.revoked) == 1
    # As a crash between the two files, or a copy of one of them, leaves them.
    (publisher.folder / "issuer.key").write_bytes(old_key)
    with pytest.raises(ConfigurationError, match="publisher renew-issuer"):
        publisher.read_issuer_key(PASSPHRASE)
    (publisher.folder / "issuer.cert").write_bytes(old_cert)
    Publisher(publisher.folder).read_issuer_key(PASSPHRASE)


def test_a_key_that_is_kept_elsewhere_is_asked_for(publisher: Publisher) -> None:
    (publisher.folder / "root.key").unlink()
    for needs_root in (
        lambda: export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS),
        lambda: publisher.renew_issuer(PASSPHRASE, now_ms=NOW_MS),
    ):
        with pytest.raises(ConfigurationError, match=r"root\.key is not here.*bring it back for the time"):
            needs_root()
    assert publisher.change_passphrase(PASSPHRASE, b"new passphrase") == [publisher.folder / "issuer.key"]
    (publisher.folder / "issuer.key").unlink()
    with pytest.raises(ConfigurationError, match=r"issuer\.key is not here.*publisher renew-issuer"):
        publisher.read_issuer_key(PASSPHRASE)
    with pytest.raises(ConfigurationError, match="Neither root"):
        publisher.change_passphrase(PASSPHRASE, b"new passphrase")


def test_a_lost_issuer_certificate_is_replaced_by_another_issuer(publisher: Publisher, tmp_path: Path) -> None:
    key = publisher.make_host_key(now_ms=NOW_MS).key.text
    certify_host(publisher, tmp_path / "host", key)
    path = publisher.folder / "issuer.cert"
    for serial, damage in enumerate((path.unlink, lambda: path.write_bytes(path.read_bytes()[:20])), 2):
        damage()
        damaged = Publisher(publisher.folder)
        with pytest.raises(ConfigurationError, match=r"issuer\.cert is missing or damaged.*publisher renew-issuer"):
            damaged.read_catalog()
        damaged.renew_issuer(PASSPHRASE, now_ms=NOW_MS)
        mended = Publisher(publisher.folder)
        assert (mended.publisher_id, mended.issuer.serial) == (publisher.publisher_id, serial)
        assert certify_host(mended, tmp_path / "host", key).renewal
