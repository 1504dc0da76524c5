"""``catalog.toml``: the catalog as a publisher writes it by hand (docs/files.md).

Text in, values out, and blocks of text to append: what is already in the file, comments included, is never rewritten.
"""

import json
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID, uuid4

from kms_fast.errors import ConfigurationError, KeyInvalid
from kms_fast.model import policy
from kms_fast.model.activation_url import check_activation_url
from kms_fast.model.catalog import (
    MAX_FAMILY_NUMBER,
    MAX_GENERATION,
    MAX_THRESHOLD,
    SKU_NUMBERS,
    Family,
    Sku,
    check_catalog,
)
from kms_fast.model.document import Fields
from kms_fast.model.keys import KeyKind, new_key, parse_key
from kms_fast.model.names import is_name
from kms_fast.model.quantities import format_quantity, parse_quantity

_ERROR: Final = "CONFIGURATION_INVALID"

# Spans of a SKU: name in the file, field of Sku.
_SPANS: Final = {field.removesuffix("_min"): field for field in SKU_NUMBERS if field.endswith("_min")}
_DEFAULT_SKU: Final = Sku(id=UUID(int=0), name="", reference=0, family=0)


@dataclass(frozen=True, slots=True)
class PublisherCatalog:
    """Everything in ``catalog.toml``."""

    publisher_id: UUID
    name: str
    activation_url: str
    srv_name: str
    families: tuple[Family, ...] = ()
    skus: tuple[Sku, ...] = ()

    def family(self, name: str) -> Family | None:
        """The family of this name, if there is one."""
        return next((family for family in self.families if family.name == name), None)

    def highest_generation(self, family: Family) -> int:
        """The newest generation of any SKU of ``family``, 1 when it has none."""
        return max((sku.generation for sku in self.skus if sku.family == family.number), default=1)


def parse_catalog_toml(text: str, where: str = "catalog.toml") -> PublisherCatalog:
    """Read the file's text.

    Raises `ConfigurationError` (CONFIGURATION_INVALID): not TOML, with the line; a field that is missing, unknown or
    out of range, with its path; or numbers that fight each other, all of them.
    """
    try:
        document = Fields(tomllib.loads(text), where, _ERROR)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{where} is not valid TOML: {error}.") from None
    publisher = document.object("publisher")
    publisher_id = publisher.uuid("id")
    name = publisher.text("name")
    if not name.strip():
        publisher.refuse("name", "is empty")
    activation_url = publisher.text("activation_url", "")
    if activation_url:
        try:
            check_activation_url(activation_url)
        except ValueError as error:
            publisher.refuse("activation_url", f"cannot be used: {error}")
    srv_name = publisher.text("srv_name", policy.SRV_NAME)
    if not is_name(srv_name):
        publisher.refuse("srv_name", f"cannot be used: {srv_name!r} is no name in DNS such as {policy.SRV_NAME}")
    publisher.finish()
    families = tuple(_read_family(fields) for fields in document.objects("family"))
    numbers = {family.name: family.number for family in families}
    skus = tuple(_read_sku(fields, numbers, publisher_id) for fields in document.objects("sku"))
    document.finish()
    check_catalog(families, skus)
    return PublisherCatalog(publisher_id, name, activation_url, srv_name, families, skus)


def _read_family(fields: Fields) -> Family:
    threshold = fields.integer("threshold", low=1, high=MAX_THRESHOLD)
    family = Family(
        number=fields.integer("number", high=MAX_FAMILY_NUMBER),
        name=fields.text("name"),
        threshold=threshold,
        minimum_threshold=fields.integer("minimum_threshold", threshold, low=1, high=MAX_THRESHOLD),
        maximum_validity_min=_read_span(
            fields, "maximum_validity", policy.VALIDITY_MIN, low=1, high=policy.MAX_VALIDITY_MIN
        ),
    )
    fields.finish()
    return family


def _read_sku(fields: Fields, families: dict[str, int], publisher_id: UUID) -> Sku:
    sku_id = fields.uuid("id")
    name = fields.text("name")
    family = fields.text("family")
    if family not in families:
        fields.refuse("family", f"names the family {family!r}, which has no [[family]] table in this file")
    try:
        key = parse_key(fields.text("setup_key"), expect=KeyKind.CLIENT_SETUP, publisher_id=publisher_id.bytes)
    except KeyInvalid as error:
        fields.refuse("setup_key", f"is not this product's client setup key: {error.message.rstrip('.')}")
    spans = {}
    for span, field in _SPANS.items():
        low, high = SKU_NUMBERS[field]
        spans[field] = _read_span(fields, span, getattr(_DEFAULT_SKU, field), low=low, high=high)
    generation = fields.integer("generation", 1, low=1, high=MAX_GENERATION)
    fields.finish()
    return Sku(
        id=sku_id,
        name=name,
        reference=key.reference,
        family=families[family],
        generation=generation,
        secret=key.secret,
        **spans,
    )


def _read_span(fields: Fields, name: str, default_min: int, *, low: int, high: int) -> int:
    try:
        span_min = parse_quantity(fields.take(name, format_quantity(default_min, "min")), "min")
    except ValueError as error:
        fields.refuse(name, f"is no span: {error}")
    if not low <= span_min <= high:
        fields.refuse(name, f"must be between {format_quantity(low, 'min')} and {format_quantity(high, 'min')}")
    return span_min


def render_head(publisher_id: UUID, name: str, activation_url: str = "", srv_name: str = policy.SRV_NAME) -> str:
    """The beginning of a new ``catalog.toml``, with its explanation."""
    return f"""\
# The catalog of {name}: what its activation hosts may serve, and how.
#
# Edit it by hand or with `kms-fast publisher add-product`, which appends and leaves the rest as it is. After a change:
# `kms-fast publisher export` for clients, then `kms-fast publisher certify` for each host. Spans: 90m, 36h, 180d.
# It holds the client setup keys of all products: keep it readable for yourself alone.

[publisher]
id = "{publisher_id}"  # in every key and certificate; never change it
name = {_quote(name)}
activation_url = {_quote(activation_url)}  # of the publisher's activation service, if there is one
srv_name = {_quote(srv_name)}  # under which hosts publish themselves in DNS
"""


def append_product(
    text: str,
    catalog: PublisherCatalog,
    name: str,
    family_name: str,
    *,
    threshold: int | None = None,
    minimum_threshold: int | None = None,
    maximum_validity_min: int | None = None,
    used_families: Collection[int] = (),
    **numbers: int,
) -> tuple[str, Sku, Family]:
    """The text of ``catalog`` with a new SKU, and with its family when there is none of that name; and both of them.

    ``numbers``: fields of `Sku` (generation, validity_min, …) that differ from the defaults. The family numbers are
    for a new family only, which gets a number beyond ``used_families`` too: families that left the catalog, and that
    host keys still cover. Raises `ConfigurationError`; whether the result contradicts itself shows when it is parsed.
    """
    family, added = catalog.family(family_name), ""
    family_numbers = (threshold, minimum_threshold, maximum_validity_min)
    if family is None:
        validity_min = numbers.get("validity_min", policy.VALIDITY_MIN)
        number = _next_number([*used_families, *(family.number for family in catalog.families)])
        family = _make_family(number, family_name, *family_numbers, validity_min=validity_min)
        added = render_family(family)
    elif any(number is not None for number in family_numbers):
        raise ConfigurationError(
            f"Family {family_name} is already in the catalog: change its numbers in catalog.toml, by hand."
        )
    reference = _next_number([sku.reference for sku in catalog.skus])
    key = new_key(KeyKind.CLIENT_SETUP, catalog.publisher_id.bytes, reference)
    sku = Sku(uuid4(), name, reference, family.number, secret=key.secret)
    sku = replace(sku, **numbers)  # type: ignore[arg-type]  # numbers are integers by signature
    line_end = "" if text.endswith("\n") else "\n"
    return f"{text}{line_end}{added}{render_sku(sku, family, catalog.publisher_id)}", sku, family


def _make_family(
    number: int,
    name: str,
    threshold: int | None,
    minimum_threshold: int | None,
    maximum_validity_min: int | None,
    *,
    validity_min: int,
) -> Family:
    threshold = policy.THRESHOLDS.get(name) if threshold is None else threshold
    if threshold is None:
        known = ", ".join(f"{family} {number}" for family, number in policy.THRESHOLDS.items())
        raise ConfigurationError(f"Family {name!r} has no usual threshold ({known}): say it with --threshold.")
    return Family(
        number=number,
        name=name,
        threshold=threshold,
        minimum_threshold=threshold if minimum_threshold is None else minimum_threshold,
        maximum_validity_min=maximum_validity_min or max(validity_min, policy.VALIDITY_MIN),
    )


def render_family(family: Family) -> str:
    """A ``[[family]]`` block to append."""
    return f"""
[[family]]
number = {family.number}  # in certificates; never change it
name = {_quote(family.name)}
threshold = {family.threshold}  # machines a host must have seen before it activates any
minimum_threshold = {family.minimum_threshold}  # certificates hold hosts to at least this
maximum_validity = "{format_quantity(family.maximum_validity_min, "min")}"  # certificates hold hosts to at most this
"""


def render_sku(sku: Sku, family: Family, publisher_id: UUID) -> str:
    """A ``[[sku]]`` block to append."""
    spans = "".join(f'{span} = "{format_quantity(getattr(sku, field), "min")}"\n' for span, field in _SPANS.items())
    return f"""
[[sku]]
id = "{sku.id}"  # activation ID
name = {_quote(sku.name)}
family = {_quote(family.name)}
generation = {sku.generation}
setup_key = "{sku.setup_key(publisher_id.bytes).text}"  # the same on every machine
{spans}"""


def _next_number(used: Sequence[int]) -> int:
    return max(used, default=0) + 1


def _quote(text: str) -> str:
    # A JSON string of printable characters is a TOML basic string.
    return json.dumps(text, ensure_ascii=False)
