"""Certifying hosts: from a host request to a host answer, within what the host keys entitle to."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kms_fast.errors import ConfigurationError
from kms_fast.model import policy
from kms_fast.model.catalog import Family
from kms_fast.model.catalog_file import build_catalog_file
from kms_fast.model.certificate import (
    DAY_MS,
    MAX_FAMILIES,
    CertifiedFamily,
    HostCertificate,
    Rights,
    issue_host_certificate,
)
from kms_fast.model.compact import CompactAnswer
from kms_fast.model.exchange import HostRequest, build_host_answer
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.records import HostKeyRecord, KeyUse


@dataclass(frozen=True, slots=True)
class Certified:
    """What `certify` did. ``renewal``: the host's public key was known, so nothing was taken from the keys.

    ``answer`` is the answer as a file, ``compact`` as it goes into text and QR codes, ``catalog_file`` what hosts need
    beside that one.
    """

    certificate: HostCertificate
    answer: bytes = field(repr=False)
    compact: CompactAnswer
    catalog_file: bytes = field(repr=False)
    renewal: bool
    uses: tuple[tuple[HostKeyRecord, KeyUse], ...]


def certify(
    publisher: Publisher,
    request_data: bytes,
    passphrase: bytes,
    *,
    now_ms: int,
    days: int = policy.HOST_CERTIFICATE_DAYS,
) -> Certified:
    """Check a host request, take an activation from each of its keys, and issue the answer.

    Raises OSError or `ConfigurationError`: OFFLINE_DATA_MALFORMED (the request), KEY_INVALID (an unknown key, or a MAC
    that is not its own), HOST_KEY_USED_UP, KEY_FILE_LOCKED, CONFIGURATION_INVALID. Records change only on success.
    """
    request = HostRequest.parse(request_data)
    if request.publisher_id != publisher.publisher_id:
        raise ConfigurationError("The host request is meant for another publisher.", name="OFFLINE_DATA_MALFORMED")
    publisher_data, exported = publisher.read_exported()
    publisher.issuer.verify(exported.roots, publisher.publisher_id, Rights.HOST_CERTIFICATES, now_ms)
    issuer_key = publisher.read_issuer_key(passphrase)
    with publisher.records.transaction():
        keys = _check_keys(publisher, request)
        renewals = [_use_key(publisher, key, request, now_ms) for key in keys]
        certificate = issue_host_certificate(
            issuer_key,
            publisher.issuer,
            public_key=request.public_key,
            serial=publisher.records.next_serial(),
            not_before_ms=now_ms - policy.CLOCK_TOLERANCE_MS,
            not_after_ms=min(now_ms + days * DAY_MS, publisher.issuer.not_after_ms),
            families=_merge_families(keys, publisher.read_catalog().families),
            customer_id=_merge_customers(keys),
        )
        publisher.records.add_certificate(certificate, now_ms)
        catalog = publisher.signed_catalog(issuer_key, now_ms=now_ms)
    secrets = keys[0].secrets
    answer = build_host_answer(
        certificate, publisher.issuer, catalog=catalog, secrets=secrets, publisher_data=publisher_data
    )
    compact = CompactAnswer.of(certificate, publisher.issuer, catalog=catalog, publisher_data=publisher_data)
    catalog_file = build_catalog_file(catalog, publisher_data, publisher_id=publisher.publisher_id, secrets=secrets)
    uses = tuple(
        (key, publisher.records.count_activations(key.secrets.key_id, request.installation_id)) for key in keys
    )
    return Certified(certificate, answer, compact, catalog_file, all(renewals), uses)


def _check_keys(publisher: Publisher, request: HostRequest) -> list[HostKeyRecord]:
    keys = []
    for key_id in request.key_ids:
        key = publisher.records.find_host_key(key_id)
        if key is None:
            raise ConfigurationError(
                f"The host request names a host key (ID {key_id.hex()}) that this publisher did not make.",
                name="KEY_INVALID",
            )
        request.check_mac(key.secrets)
        keys.append(key)
    return keys


def _use_key(publisher: Publisher, key: HostKeyRecord, request: HostRequest, now_ms: int) -> bool:
    """Take one activation from a key, none for a public key that it has activated before; returns whether it had."""
    key_id = key.secrets.key_id
    if publisher.records.has_activation(key_id, request.public_key):
        return True
    use = publisher.records.count_activations(key_id, request.installation_id)
    limits = key.entitlement
    if use.activations_of_host >= limits.activations or (not use.activations_of_host and use.hosts >= limits.hosts):
        raise ConfigurationError(
            f"The host key that ends in {key.secrets.last_five} has activated {use.hosts} of {limits.hosts} hosts, and "
            f"this host {use.activations_of_host} of {limits.activations} times.",
            name="HOST_KEY_USED_UP",
            hosts=use.hosts,
            hosts_allowed=limits.hosts,
            activations_of_host=use.activations_of_host,
            activations_allowed=limits.activations,
        )
    publisher.records.add_activation(key_id, request.installation_id, request.public_key, now_ms)
    return False


def _merge_families(keys: Sequence[HostKeyRecord], families: Sequence[Family]) -> list[CertifiedFamily]:
    """Of each family that any of the keys covers, the newest generation, with the catalog's bounds."""
    generations: dict[int, int] = {}
    for key in keys:
        for number, generation in key.entitlement.families.items():
            generations[number] = max(generation, generations.get(number, 0))
    by_number = {family.number: family for family in families}
    missing = [number for number in generations if number not in by_number]
    if missing:
        raise ConfigurationError(f"The host key covers family {missing[0]}, which is no longer in the catalog.")
    if len(generations) > MAX_FAMILIES:
        raise ConfigurationError(f"The keys cover {len(generations)} families; a certificate holds {MAX_FAMILIES}.")
    return [
        CertifiedFamily(number, generation, by_number[number].minimum_threshold, by_number[number].maximum_validity_min)
        for number, generation in generations.items()
    ]


def _merge_customers(keys: Sequence[HostKeyRecord]) -> int:
    customers = {key.entitlement.customer_id for key in keys}
    if len(customers) > 1:
        raise ConfigurationError("The host request combines host keys of different customers.", name="KEY_INVALID")
    return customers.pop()
