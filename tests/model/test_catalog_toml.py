"""catalog.toml: what is read from it, what is appended to it, and how mistakes in it are shown."""

from dataclasses import replace
from uuid import UUID

import pytest

from kms_fast.errors import ConfigurationError
from kms_fast.model.catalog import Family, Sku
from kms_fast.model.catalog_toml import parse_catalog_toml, render_family, render_head, render_sku
from kms_fast.model.keys import KeyKind, new_key
from tests.publishing import PUBLISHER_ID

ID = UUID(bytes=PUBLISHER_ID)
FAMILY = Family(2, 'the "best" family', threshold=7, minimum_threshold=6, maximum_validity_min=90)
SKU = Sku(UUID(int=5), "Ünit 1", 3, 2, generation=4, validity_min=90, grace_min=0, secret=b"0123456789")
HEAD = render_head(ID, "Example & Söhne", "https://a.example", "_lab._tcp")
KEY = SKU.setup_key(PUBLISHER_ID).text
SHORT = f"""{HEAD}
[[family]]
number = 2
name = "ci"
threshold = 1
[[sku]]
id = "{SKU.id}"
name = "Runner"
family = "ci"
setup_key = "{KEY.lower()}"
"""


def test_what_is_rendered_is_read_back() -> None:
    text = HEAD + render_family(FAMILY) + render_sku(SKU, FAMILY, ID)
    catalog = parse_catalog_toml(text)
    assert (catalog.publisher_id, catalog.name) == (ID, "Example & Söhne")
    assert (catalog.activation_url, catalog.srv_name) == ("https://a.example", "_lab._tcp")
    assert (catalog.families, catalog.skus) == ((FAMILY,), (SKU,))
    assert catalog.family(FAMILY.name) == FAMILY
    assert catalog.highest_generation(FAMILY) == 4


def test_a_short_file_gets_the_defaults() -> None:
    catalog = parse_catalog_toml(SHORT)
    assert catalog.families == (Family(2, "ci", threshold=1, minimum_threshold=1),)
    assert catalog.skus == (Sku(SKU.id, "Runner", 3, 2, secret=SKU.secret),)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("[[family]]", "[[family"), "not valid TOML.*line"),
        (("[publisher]", "[publishr]"), "field 'publisher' is missing"),
        (
            ("https://a.example", "http://a.example"),
            "publisher: field 'activation_url' cannot be used: .*not encrypted",
        ),
        (("https://a.example", "https://[bad"), "publisher: field 'activation_url' cannot be used: .* write https://"),
        (("threshold = 1", "threshold = 0"), "family 1: field 'threshold' must be an integer from 1"),
        (("threshold = 1", "treshold = 1"), "family 1: field 'threshold' is missing"),
        (("threshold = 1", "threshold = 1\nlimit = 2"), "family 1: field 'limit' is not known"),
        (
            ("threshold = 1", 'threshold = 1\nmaximum_validity = "366d"'),
            "'maximum_validity' must be between 1m and 365d",
        ),
        (('family = "ci"', 'family = "cx"'), "names the family 'cx', which has no"),
        (('name = "Runner"', 'name = "Runner"\nvalidity = "0m"'), "'validity' must be between 1m and 365d"),
        (('name = "Runner"', 'name = "Runner"\nvalidity = "long"'), "sku 1: field 'validity' is no span: expected"),
        (('name = "Runner"', 'name = "Runner"\nvalidity = 90'), "sku 1: field 'validity' is no span: expected"),
        (('name = "Runner"', 'name = "Runner"\nrenewal_interval = "14m"'), "between 15m and 30d"),
        (("setup_key", "setup"), "field 'setup_key' is missing"),
        ((KEY.lower(), f"{KEY[:-1]}?"), "setup_key' is not this product's client setup key: Group"),
    ],
)
def test_a_mistake_is_shown_with_its_place(change: tuple[str, str], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        parse_catalog_toml(SHORT.replace(*change), "the catalog")
    assert caught.value.message.startswith("the catalog")


@pytest.mark.parametrize("kind", [KeyKind.HOST, KeyKind.MULTIPLE_ACTIVATION])
def test_a_key_of_another_kind_is_no_setup_key(kind: KeyKind) -> None:
    other = new_key(kind, PUBLISHER_ID, 3).text
    with pytest.raises(ConfigurationError, match=f"This is {kind.description}"):
        parse_catalog_toml(SHORT.replace(KEY.lower(), other))


def test_a_key_of_another_publisher_is_no_setup_key() -> None:
    with pytest.raises(ConfigurationError, match="another publisher"):
        parse_catalog_toml(SHORT.replace(KEY.lower(), replace(SKU).setup_key(bytes(16)).text))
