"""The admission table: what the compiled core needs of catalog, certificate and settings to decide."""

from kms_fast import _core
from kms_fast.errors import ConfigurationError
from kms_fast.host.enrolment import Installation
from kms_fast.model.catalog import Sku
from kms_fast.model.policy import check_intervals
from kms_fast.model.settings import HostSettings

MAX_FAMILIES = 255
CONFLICT_CURE = "Change retention, activation_interval or renewal_interval: kms-fast host configure."

ProductRow = tuple[_core.SkuKeys, int, int, int, bool, int, int, int]


def build_table(installation: Installation, settings: HostSettings) -> tuple[_core.AdmissionTable, list[int]]:
    """The table, and for each of its families the number by which the store knows it.

    Raises `ConfigurationError` for a catalog with more than 255 families.
    """
    catalog, certificate, publisher = installation.catalog, installation.certificate, installation.publisher
    if len(catalog.families) > MAX_FAMILIES:
        raise ConfigurationError(f"The catalog has {len(catalog.families)} families; a host takes {MAX_FAMILIES}.")
    numbers = [family.number for family in catalog.families]
    families = [
        _core.FamilyCount(family.threshold, family.cap, settings.retention_s * 1000) for family in catalog.families
    ]
    products = [_build_product(sku, numbers.index(sku.family), installation, settings) for sku in catalog.skus]
    table = _core.AdmissionTable(
        products,
        families,
        installation.chain_data,
        certificate.host_id,
        certificate.serial,
        certificate.not_before_ms,
        certificate.not_after_ms,
        publisher.revocations.to_bytes() if publisher.revocations else b"",
    )
    return table, numbers


def find_conflicts(installation: Installation, settings: HostSettings) -> list[str]:
    """What is wrong between the retention and what clients of each product are told, each as a sentence.

    They are not refused: the publisher may change the catalog of a host that serves, which must not stop for it.
    """
    conflicts = []
    for sku in installation.catalog.skus:
        activation_min, renewal_min = _choose_intervals(sku, settings)
        conflict = check_intervals(
            activation_min=activation_min,
            renewal_min=renewal_min,
            validity_min=_choose_validity(sku, installation),
            retention_min=settings.retention_s // 60,
        )
        if conflict is not None:
            conflicts.append(f"{sku.name}: {conflict}.")
    return conflicts


def _build_product(sku: Sku, row: int, installation: Installation, settings: HostSettings) -> ProductRow:
    certified = installation.certificate.family(sku.family)
    request_key, answer_secret = sku.derive_keys(installation.publisher.publisher_id)
    return (
        _core.SkuKeys(sku.id.bytes, request_key, answer_secret),
        row,
        installation.certificate.family_index(sku.family),
        sku.generation,
        certified is not None and sku.generation <= certified.generation,
        _choose_validity(sku, installation),
        *_choose_intervals(sku, settings),
    )


def _choose_validity(sku: Sku, installation: Installation) -> int:
    certified = installation.certificate.family(sku.family)
    return sku.validity_min if certified is None else min(sku.validity_min, certified.maximum_validity_min)


def _choose_intervals(sku: Sku, settings: HostSettings) -> tuple[int, int]:
    """The activation and the renewal interval that clients are told: the host's within the product's bounds."""
    chosen = (
        settings.activation_interval_min or sku.activation_interval_min,
        settings.renewal_interval_min or sku.renewal_interval_min,
    )
    activation_min, renewal_min = (
        max(sku.shortest_interval_min, min(interval_min, sku.longest_interval_min)) for interval_min in chosen
    )
    return activation_min, renewal_min
