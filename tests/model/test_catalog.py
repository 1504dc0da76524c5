"""Catalog and publisher file: signed, verified, and refused when their numbers fight each other."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from kms_fast.errors import ConfigurationError
from kms_fast.model import signing
from kms_fast.model.catalog import Catalog, Family, Sku, check_catalog
from kms_fast.model.certificate import Rights
from kms_fast.model.document import canonical_json
from kms_fast.model.keys import derive_sku_keys
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.revocation import issue_revocation_list
from tests.publishing import NOW_MS, PUBLISHER_ID, Authority, make_authority

DESKTOP = Family(1, "desktop", threshold=25, minimum_threshold=20)
SKU = Sku(UUID(int=5), "Desktop 1", reference=3, family=1, generation=2, secret=b"0123456789")
CATALOG = Catalog(4, PUBLISHER_ID, NOW_MS, (DESKTOP,), (SKU,))
AUTHORITY = make_authority()


def make_publisher_file(authority: Authority = AUTHORITY, number: int = 6, **changes: Any) -> PublisherFile:
    revocations = issue_revocation_list(authority.issuer_key, authority.issuer, number=2, issued_ms=NOW_MS, serials=[8])
    values: dict[str, Any] = {
        "publisher_id": PUBLISHER_ID,
        "name": "Example & Söhne",
        "issued_ms": NOW_MS,
        "roots": authority.roots,
        "activation_url": "https://activate.example",
        "srv_name": "_kms-fast._tcp",
        "families": (DESKTOP,),
        "skus": (replace(SKU, secret=b""),),
        "revocations": revocations,
    }
    return PublisherFile(number, **values | changes)


def parse_catalog(data: bytes, authority: Authority = AUTHORITY) -> Catalog:
    return Catalog.parse(data, roots=authority.roots, publisher_id=PUBLISHER_ID)


def edit(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    document = json.loads(data)
    change(document)
    return json.dumps(document).encode()


def test_a_catalog_is_read_back() -> None:
    catalog = parse_catalog(CATALOG.to_signed_json(AUTHORITY.issuer_key, AUTHORITY.issuer))
    assert catalog == CATALOG
    assert catalog.sku(3) == catalog.sku(UUID(int=5)) == SKU
    assert catalog.sku(4) is None
    assert catalog.family(1) == DESKTOP
    assert DESKTOP.cap == 50
    assert SKU.derive_keys(PUBLISHER_ID) == derive_sku_keys(SKU.secret, PUBLISHER_ID, SKU.id.bytes)


def test_no_repr_shows_a_secret() -> None:
    assert "0123456789" not in repr(CATALOG)


def test_a_publisher_file_is_read_back_without_secrets() -> None:
    publisher = make_publisher_file()
    data = publisher.to_signed_json(AUTHORITY.root_key)
    assert PublisherFile.parse(data) == publisher
    assert PublisherFile.parse(data, trusted_roots=AUTHORITY.roots) == publisher
    assert SKU.secret.hex() not in data.decode()
    assert "secret" not in data.decode()
    assert (publisher.revoked, publisher.revocations_number) == ((8,), 2)
    assert publisher.sku(3).name == "Desktop 1"
    assert publisher.family(1) == DESKTOP


def test_what_a_publisher_file_lacks_is_named() -> None:
    publisher = make_publisher_file(revocations=None)
    assert (publisher.revoked, publisher.revocations_number) == ((), 0)
    with pytest.raises(ConfigurationError, match="no product 9"):
        publisher.sku(9)
    with pytest.raises(ConfigurationError, match="no family 9"):
        publisher.family(9)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["body"].update(number=5),
        lambda document: document["body"]["skus"][0].update(validity_min=1),
        lambda document: document.update(signature="00" * 64),
    ],
)
def test_a_changed_file_does_not_verify(change: Callable[[dict[str, Any]], None]) -> None:
    catalog = CATALOG.to_signed_json(AUTHORITY.issuer_key, AUTHORITY.issuer)
    with pytest.raises(ConfigurationError, match="catalog is not signed by the publisher's issuer"):
        parse_catalog(edit(catalog, change))
    publisher = make_publisher_file().to_signed_json(AUTHORITY.root_key)
    with pytest.raises(ConfigurationError, match="publisher file is not signed by its root key"):
        PublisherFile.parse(edit(publisher, change))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda document: document["body"].pop("number"), "'number' is missing"),
        (lambda document: document["body"].update(extra=1), "'extra' is not known"),
        (lambda document: document.update(extra=1), "'extra' is not known"),
        (lambda document: document["body"]["skus"][0].update(generation=0), "skus 1: field 'generation' must be"),
        (lambda document: document["body"]["families"][0].update(name="a\0"), "families 1: field 'name' must be"),
    ],
)
def test_a_field_that_is_wrong_is_named(change: Callable[[dict[str, Any]], None], problem: str) -> None:
    catalog = CATALOG.to_signed_json(AUTHORITY.issuer_key, AUTHORITY.issuer)
    with pytest.raises(ConfigurationError, match=problem):
        parse_catalog(edit(catalog, change))
    publisher = make_publisher_file().to_signed_json(AUTHORITY.root_key)
    with pytest.raises(ConfigurationError, match=problem):
        PublisherFile.parse(edit(publisher, change))


def test_an_issuer_without_the_right_signs_no_catalog() -> None:
    weak = replace(AUTHORITY.issuer, rights=Rights.HOST_CERTIFICATES)
    weak = replace(weak, signature=signing.sign(AUTHORITY.root_key, signing.ISSUER_CERTIFICATE, weak.body))
    with pytest.raises(ConfigurationError) as caught:
        parse_catalog(CATALOG.to_signed_json(AUTHORITY.issuer_key, weak))
    assert caught.value.result.name == "ISSUER_RIGHTS"


def test_another_publishers_catalog_is_refused() -> None:
    data = replace(CATALOG, publisher_id=bytes(16)).to_signed_json(AUTHORITY.issuer_key, AUTHORITY.issuer)
    with pytest.raises(ConfigurationError, match="another publisher's"):
        parse_catalog(data)


def test_a_file_of_another_root_is_refused_where_roots_are_known() -> None:
    other = make_authority("other")
    data = make_publisher_file(other).to_signed_json(other.root_key)
    assert PublisherFile.parse(data).roots == other.roots
    with pytest.raises(ConfigurationError) as caught:
        PublisherFile.parse(data, trusted_roots=AUTHORITY.roots)
    assert caught.value.result.name == "ROOT_UNKNOWN"


def test_a_new_root_comes_in_a_file_signed_by_the_old_one() -> None:
    other = make_authority("other")
    data = make_publisher_file(roots=AUTHORITY.roots + other.roots).to_signed_json(AUTHORITY.root_key)
    assert PublisherFile.parse(data, trusted_roots=AUTHORITY.roots).roots == AUTHORITY.roots + other.roots


@pytest.mark.parametrize("roots", [(), AUTHORITY.roots * 3])
def test_a_publisher_file_has_one_or_two_roots(roots: tuple[bytes, ...]) -> None:
    data = make_publisher_file(roots=roots).to_signed_json(AUTHORITY.root_key)
    with pytest.raises(ConfigurationError, match="1 to 2 keys"):
        PublisherFile.parse(data)


def test_a_revocation_list_of_another_authority_is_refused() -> None:
    other = make_publisher_file(make_authority("other"))
    data = make_publisher_file(revocations=other.revocations).to_signed_json(AUTHORITY.root_key)
    with pytest.raises(ConfigurationError) as caught:
        PublisherFile.parse(data)
    assert caught.value.result.name == "ROOT_UNKNOWN"


def test_a_lower_number_or_another_publisher_replaces_nothing() -> None:
    installed = make_publisher_file(number=6)
    make_publisher_file(number=6).check_replaces(installed)
    make_publisher_file(number=7).check_replaces(installed)
    with pytest.raises(ConfigurationError, match="number 5, the installed one 6") as caught:
        make_publisher_file(number=5).check_replaces(installed)
    assert caught.value.result.name == "VERSION_WENT_BACK"
    with pytest.raises(ConfigurationError, match="Söhne's is installed"):
        make_publisher_file(number=7, publisher_id=bytes(16)).check_replaces(installed)


@pytest.mark.parametrize(
    ("families", "skus", "problem"),
    [
        ((DESKTOP, DESKTOP), (), "family number 1 occurs twice; the family name desktop occurs twice"),
        ((DESKTOP,), (SKU, replace(SKU, id=UUID(int=6), name="other")), "reference .setup key. 3 occurs twice"),
        ((DESKTOP,), (SKU, replace(SKU, reference=9)), "SKU ID .* twice; the SKU name Desktop 1 occurs twice"),
        ((DESKTOP,), (replace(SKU, name=" "),), "a family or SKU has no name"),
        ((replace(DESKTOP, minimum_threshold=26),), (), "minimum threshold 26 is above the threshold 25"),
        ((), (SKU,), "its family 1 is not in the catalog"),
        ((DESKTOP,), (replace(SKU, validity_min=259_201),), "longer than family desktop allows"),
        ((DESKTOP,), (replace(SKU, shortest_interval_min=200, longest_interval_min=100),), "shortest interval"),
        ((DESKTOP,), (replace(SKU, shortest_interval_min=180),), "activation interval is outside its own bounds"),
        ((DESKTOP,), (replace(SKU, longest_interval_min=10_000),), "renewal interval is outside its own bounds"),
        ((DESKTOP,), (replace(SKU, renewal_interval_min=43_200),), "misses one renewal is forgotten"),
    ],
)
def test_numbers_that_fight_each_other_are_refused(
    families: tuple[Family, ...], skus: tuple[Sku, ...], problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        check_catalog(families, skus)


def test_a_signed_catalog_that_contradicts_itself_is_refused() -> None:
    data = replace(CATALOG, families=()).to_signed_json(AUTHORITY.issuer_key, AUTHORITY.issuer)
    with pytest.raises(ConfigurationError, match="contradicts itself"):
        parse_catalog(data)


def test_signatures_cover_the_canonical_body() -> None:
    data = make_publisher_file().to_signed_json(AUTHORITY.root_key)
    document = json.loads(data)
    message = canonical_json(document["body"])
    signature = bytes.fromhex(document["signature"])
    assert signing.verify(AUTHORITY.roots[0], signature, b"kms_fast 1 publisher", message)
    # The order of fields and white space are free.
    reordered = {"signature": document["signature"], "body": dict(reversed(document["body"].items()))}
    assert PublisherFile.parse(json.dumps(reordered | {"format": document["format"]}).encode()).number == 6
