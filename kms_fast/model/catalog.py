"""The catalog: families and SKUs with their numbers (docs/files.md).

The publisher writes it as TOML (`catalog_toml`); hosts get it signed by the issuer, as JSON with the secrets of the
setup keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kms_fast.errors import ConfigurationError
from kms_fast.model import policy, signing
from kms_fast.model.certificate import IssuerCertificate, Rights
from kms_fast.model.document import Fields, canonical_json, malformed, read_document, write_document
from kms_fast.model.keys import MAX_REFERENCE, SECRET_SIZE, KeyKind, ProductKey, derive_sku_keys, publisher_tag
from kms_fast.model.quantities import format_quantity

FORMAT: Final = "kms_fast catalog 1"
MAX_THRESHOLD: Final = 100_000
MAX_GENERATION: Final = 65_535
MAX_FAMILY_NUMBER: Final = 65_535


@dataclass(frozen=True, slots=True)
class Family:
    """What one threshold counts together. ``minimum_threshold`` and ``maximum_validity_min`` go into certificates."""

    number: int
    name: str
    threshold: int
    minimum_threshold: int
    maximum_validity_min: int = policy.VALIDITY_MIN

    @property
    def cap(self) -> int:
        """The highest count the family shows."""
        return policy.cap(self.threshold)

    def to_json(self) -> dict[str, Any]:
        """The family as its object in catalog and publisher file."""
        return {
            "number": self.number,
            "name": self.name,
            "threshold": self.threshold,
            "minimum_threshold": self.minimum_threshold,
            "maximum_validity_min": self.maximum_validity_min,
        }

    @classmethod
    def read(cls, fields: Fields) -> "Family":
        """The family of an object in catalog or publisher file."""
        family = cls(
            number=fields.integer("number", high=MAX_FAMILY_NUMBER),
            name=fields.text("name"),
            threshold=fields.integer("threshold", low=1, high=MAX_THRESHOLD),
            minimum_threshold=fields.integer("minimum_threshold", low=1, high=MAX_THRESHOLD),
            maximum_validity_min=fields.integer("maximum_validity_min", low=1, high=policy.MAX_VALIDITY_MIN),
        )
        fields.finish()
        return family


@dataclass(frozen=True, slots=True)
class Sku:
    """One edition of a product. ``reference`` is the number in its setup key, ``family`` its family's number.

    ``secret``: the 10 bytes of its setup key; empty in a publisher file, which has no secrets.
    """

    id: UUID
    name: str
    reference: int
    family: int
    generation: int = 1
    validity_min: int = policy.VALIDITY_MIN
    activation_interval_min: int = policy.ACTIVATION_INTERVAL_MIN
    renewal_interval_min: int = policy.RENEWAL_INTERVAL_MIN
    shortest_interval_min: int = policy.SHORTEST_INTERVAL_MIN
    longest_interval_min: int = policy.LONGEST_INTERVAL_MIN
    initial_grace_min: int = policy.INITIAL_GRACE_MIN
    grace_min: int = policy.OUT_OF_TOLERANCE_GRACE_MIN
    secret: bytes = field(default=b"", repr=False)

    def setup_key(self, publisher_id: bytes) -> ProductKey:
        """The SKU's client setup key; raises ValueError when the secret is not here."""
        return ProductKey(KeyKind.CLIENT_SETUP, publisher_tag(publisher_id), self.reference, self.secret)

    def derive_keys(self, publisher_id: bytes) -> tuple[bytes, bytes]:
        """Request key and answer secret (32 bytes each), for `kms_fast._core.SkuKeys`."""
        if len(self.secret) != SECRET_SIZE:
            raise ValueError("the SKU's secret is not here")
        return derive_sku_keys(self.secret, publisher_id, self.id.bytes)

    def to_json(self, *, with_secret: bool) -> dict[str, Any]:
        """The SKU as its object in a catalog (with the secret) or a publisher file (without)."""
        values: dict[str, Any] = {"id": str(self.id), "name": self.name}
        values |= {name: getattr(self, name) for name in SKU_NUMBERS}
        return values | {"secret": self.secret.hex()} if with_secret else values

    @classmethod
    def read(cls, fields: Fields, *, with_secret: bool) -> "Sku":
        """The SKU of an object in a catalog or a publisher file."""
        numbers = {name: fields.integer(name, low=low, high=high) for name, (low, high) in SKU_NUMBERS.items()}
        secret = fields.octets("secret", SECRET_SIZE) if with_secret else b""
        sku = cls(id=fields.uuid("id"), name=fields.text("name"), secret=secret, **numbers)
        fields.finish()
        return sku


_INTERVAL: Final = (policy.SHORTEST_INTERVAL_MIN, policy.LONGEST_INTERVAL_MIN)
# Lowest and highest of each number of a SKU.
SKU_NUMBERS: Final = {
    "reference": (1, MAX_REFERENCE),
    "family": (0, MAX_FAMILY_NUMBER),
    "generation": (1, MAX_GENERATION),
    "validity_min": (policy.SHORTEST_VALIDITY_MIN, policy.MAX_VALIDITY_MIN),
    "activation_interval_min": _INTERVAL,
    "renewal_interval_min": _INTERVAL,
    "shortest_interval_min": _INTERVAL,
    "longest_interval_min": _INTERVAL,
    "initial_grace_min": (0, policy.MAX_VALIDITY_MIN),
    "grace_min": (0, policy.MAX_VALIDITY_MIN),
}


@dataclass(frozen=True, slots=True)
class Catalog:
    """Families and SKUs of a publisher, numbered; a lower number never replaces a higher one."""

    number: int
    publisher_id: bytes
    issued_ms: int
    families: tuple[Family, ...]
    skus: tuple[Sku, ...]

    def family(self, number: int) -> Family | None:
        """The family of this number, if there is one."""
        return next((family for family in self.families if family.number == number), None)

    def sku(self, wanted: UUID | int) -> Sku | None:
        """The SKU of this ID or reference, if there is one."""
        return find_sku(self.skus, wanted)

    @classmethod
    def parse(cls, data: bytes, *, roots: Sequence[bytes], publisher_id: bytes) -> "Catalog":
        """Read and verify a signed catalog (JSON).

        Raises `ConfigurationError`: OFFLINE_DATA_MALFORMED, ROOT_UNKNOWN, ISSUER_* or CONFIGURATION_INVALID (its
        numbers fight each other).
        """
        what = "The catalog"
        document = read_document(data, FORMAT, what)
        body = document.object("body")
        signature = document.octets("signature", signing.SIGNATURE_SIZE)
        issuer = IssuerCertificate.parse(document.octets("issuer_certificate"))
        document.finish()
        catalog = cls(
            number=body.integer("number", low=1),
            publisher_id=body.octets("publisher_id", 16),
            issued_ms=body.integer("issued_ms"),
            families=tuple(Family.read(fields) for fields in body.objects("families")),
            skus=tuple(Sku.read(fields, with_secret=True) for fields in body.objects("skus")),
        )
        body.finish()
        issuer.verify(roots, publisher_id, Rights.CATALOGS, catalog.issued_ms)
        if catalog.publisher_id != publisher_id:
            raise malformed("The catalog is another publisher's.")
        if not signing.verify(issuer.public_key, signature, signing.CATALOG, canonical_json(body.values)):
            raise malformed("The catalog is not signed by the publisher's issuer: it was changed after it was made.")
        check_catalog(catalog.families, catalog.skus)
        return catalog

    def to_signed_json(self, issuer_key: Ed25519PrivateKey, issuer: IssuerCertificate) -> bytes:
        """The catalog as a signed file; it holds secrets and belongs into no file that others may read."""
        body = {
            "number": self.number,
            "publisher_id": self.publisher_id.hex(),
            "issued_ms": self.issued_ms,
            "families": [family.to_json() for family in self.families],
            "skus": [sku.to_json(with_secret=True) for sku in self.skus],
        }
        signature = signing.sign(issuer_key, signing.CATALOG, canonical_json(body))
        return write_document(FORMAT, body, issuer_certificate=issuer.to_bytes().hex(), signature=signature.hex())


def find_sku(skus: Sequence[Sku], wanted: UUID | int) -> Sku | None:
    """The SKU with this ID or reference, if there is one."""
    return next((sku for sku in skus if wanted in (sku.id, sku.reference)), None)


def check_catalog(families: Sequence[Family], skus: Sequence[Sku]) -> None:
    """Refuse numbers that fight each other.

    Raises `ConfigurationError` (CONFIGURATION_INVALID) that names every conflict.
    """
    problems = [
        *_find_duplicates("family number", [family.number for family in families]),
        *_find_duplicates("family name", [family.name for family in families]),
        *_find_duplicates("SKU ID", [sku.id for sku in skus]),
        *_find_duplicates("SKU name", [sku.name for sku in skus]),
        *_find_duplicates("product reference (setup key)", [sku.reference for sku in skus]),
    ]
    if not all(name.strip() for name in [*(family.name for family in families), *(sku.name for sku in skus)]):
        problems.append("a family or SKU has no name")
    problems += (
        f"family {family.name}: the minimum threshold {family.minimum_threshold} is above the threshold "
        f"{family.threshold}, so that clients would refuse every answer"
        for family in families
        if family.minimum_threshold > family.threshold
    )
    numbers = {family.number: family for family in families}
    for sku in skus:
        problems += (f"SKU {sku.name}: {problem}" for problem in _find_sku_problems(sku, numbers.get(sku.family)))
    if problems:
        raise ConfigurationError(f"The catalog contradicts itself: {'; '.join(problems)}.", problems=problems)


def _find_duplicates(what: str, values: Sequence[Any]) -> list[str]:
    return [f"the {what} {value} occurs twice" for value in dict.fromkeys(values) if values.count(value) > 1]


def _find_sku_problems(sku: Sku, family: Family | None) -> list[str]:
    problems = []
    if family is None:
        problems.append(f"its family {sku.family} is not in the catalog")
    elif sku.validity_min > family.maximum_validity_min:
        problems.append(
            f"its validity of {format_quantity(sku.validity_min, 'min')} is longer than family {family.name} allows "
            f"(maximum_validity {format_quantity(family.maximum_validity_min, 'min')})"
        )
    if sku.shortest_interval_min > sku.longest_interval_min:
        problems.append("its shortest interval is longer than its longest")
    for name, interval_min in (("activation", sku.activation_interval_min), ("renewal", sku.renewal_interval_min)):
        if not sku.shortest_interval_min <= interval_min <= sku.longest_interval_min:
            problems.append(f"its {name} interval is outside its own bounds")
    conflict = policy.check_intervals(
        activation_min=sku.activation_interval_min,
        renewal_min=sku.renewal_interval_min,
        validity_min=sku.validity_min,
    )
    return [*problems, conflict] if conflict else problems
