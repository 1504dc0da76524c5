"""Certifying hosts: from a host request to a host answer, within what the host keys entitle to; each is logged."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.model import policy
from kms_fast.model.catalog import Family
from kms_fast.model.catalog_file import build_catalog_file
from kms_fast.model.certificate import (
    MAX_FAMILIES,
    CertifiedFamily,
    HostCertificate,
    IssuerCertificate,
    Rights,
    host_id,
    issue_host_certificate,
)
from kms_fast.model.compact import CompactAnswer
from kms_fast.model.exchange import HostRequest, build_host_answer
from kms_fast.publisher.exporting import read_exported, sign_catalog
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.records import HostKeyRecord, KeyUse, RequestRecord

GRANTED: Final = 0


@dataclass(frozen=True, slots=True)
class Certified:
    """What `certify` did: the certificate and what goes with it, and ``answer``, all of it as a file.

    ``renewal``: the host's public key was known, so nothing was taken from the keys.
    """

    certificate: HostCertificate
    issuer: IssuerCertificate
    catalog: bytes = field(repr=False)
    publisher_data: bytes = field(repr=False)
    answer: bytes = field(repr=False)
    renewal: bool
    uses: tuple[tuple[HostKeyRecord, KeyUse], ...]

    @property
    def compact(self) -> CompactAnswer:
        """The answer as it goes into text and QR codes."""
        return CompactAnswer.of(self.certificate, self.issuer, catalog=self.catalog, publisher_data=self.publisher_data)

    @property
    def catalog_file(self) -> bytes:
        """What hosts need beside the compact answer, for those that have the first of the host keys."""
        secrets, publisher_id = self.uses[0][0].secrets, self.issuer.publisher_id
        return build_catalog_file(self.catalog, self.publisher_data, publisher_id=publisher_id, secrets=secrets)


def certify(
    publisher: Publisher,
    request_data: bytes,
    issuer_key: Ed25519PrivateKey,
    *,
    now_ms: int,
    days: int = policy.HOST_CERTIFICATE_DAYS,
    peer: str = "",
    admit: Callable[[HostKeyRecord], None] = lambda key: None,
) -> Certified:
    """Check a host request, take an activation from each of its keys, and issue the answer.

    ``peer``: the address that asked, for the log. ``admit`` is called with each key that the host proved to hold, and
    may refuse by raising `KmsFastError`. Raises OSError or `KmsFastError`: OFFLINE_DATA_MALFORMED (the request),
    KEY_INVALID (an unknown key, or a MAC that is not its own), HOST_KEY_USED_UP, KEY_DISABLED,
    CERTIFICATE_REVOKED (of this host before), EXPORT_DUE, ISSUER_DATES, CONFIGURATION_INVALID. But for the log, records
    change only on success.
    """
    request: HostRequest | None = None
    try:
        request = HostRequest.parse(request_data)
        return _certify(publisher, request, issuer_key, now_ms, days, peer, admit)
    except KmsFastError as error:
        publisher.records.add_request(_describe_request(publisher, request, now_ms, peer, error.result.code))
        raise


def _certify(
    publisher: Publisher,
    request: HostRequest,
    issuer_key: Ed25519PrivateKey,
    now_ms: int,
    days: int,
    peer: str,
    admit: Callable[[HostKeyRecord], None],
) -> Certified:
    if request.publisher_id != publisher.publisher_id:
        raise ConfigurationError("The host request is meant for another publisher.", name="OFFLINE_DATA_MALFORMED")
    records = publisher.records
    with records.transaction():
        # Read once: it may be edited meanwhile, and certificate, catalog and publisher file are to be of one version.
        source = publisher.read_catalog()
        publisher_data, exported = read_exported(publisher, source)
        publisher.issuer.verify(exported.roots, publisher.publisher_id, Rights.HOST_CERTIFICATES, now_ms)
        keys = _check_keys(publisher, request)
        for key in keys:
            admit(key)
        _check_not_revoked(publisher, request)
        renewals = [_use_key(publisher, key, request, now_ms) for key in keys]
        certificate = issue_host_certificate(
            issuer_key,
            publisher.issuer,
            public_key=request.public_key,
            serial=records.next_serial(),
            not_before_ms=now_ms - policy.CLOCK_TOLERANCE_MS,
            not_after_ms=min(now_ms + days * policy.DAY_MS, publisher.issuer.not_after_ms),
            families=_merge_families(keys, source.families),
            customer_id=_merge_customers(keys),
        )
        records.add_certificate(certificate, now_ms)
        records.add_request(_describe_request(publisher, request, now_ms, peer, GRANTED, certificate.serial))
        catalog = sign_catalog(publisher, source, issuer_key, now_ms=now_ms)
    answer = build_host_answer(
        certificate, publisher.issuer, catalog=catalog, secrets=keys[0].secrets, publisher_data=publisher_data
    )
    uses = tuple((key, records.count_activations(key.secrets.key_id, request.installation_id)) for key in keys)
    return Certified(certificate, publisher.issuer, catalog, publisher_data, answer, all(renewals), uses)


def _describe_request(
    publisher: Publisher, request: HostRequest | None, now_ms: int, peer: str, result: int, serial: int | None = None
) -> RequestRecord:
    """The row of the log; what was no request has no keys."""
    if request is None:
        return RequestRecord(now_ms, peer, "", None, None, result, serial)
    known = [publisher.records.find_host_key(key_id) for key_id in request.key_ids]
    keys = [key.secrets.last_five if key else key_id.hex() for key, key_id in zip(known, request.key_ids, strict=True)]
    public_key_hash = hashlib.sha256(request.public_key).digest()
    return RequestRecord(now_ms, peer, ", ".join(keys), request.installation_id, public_key_hash, result, serial)


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
        if key.disabled_ms is not None:
            raise ConfigurationError(
                f"The publisher has disabled the host key that ends in {key.secrets.last_five}.",
                name="KEY_DISABLED",
            )
        keys.append(key)
    return keys


def _check_not_revoked(publisher: Publisher, request: HostRequest) -> None:
    """Whoever has the private key of a revoked certificate must not get another one by renewing."""
    serial = publisher.records.find_revoked(host_id(request.public_key))
    if serial is not None:
        raise ConfigurationError(
            f"The publisher has revoked certificate {serial} of this host, and certifies its private key no more.",
            name="CERTIFICATE_REVOKED",
        )


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
    """Of each family that any of the keys covers, the newest generation, with the catalog's bounds.

    A family that the catalog has no more is left out: its products are given up, those of the others go on.
    """
    generations: dict[int, int] = {}
    for key in keys:
        for number, generation in key.entitlement.families.items():
            generations[number] = max(generation, generations.get(number, 0))
    by_number = {family.number: family for family in families}
    certified = [
        CertifiedFamily(number, generation, by_number[number].minimum_threshold, by_number[number].maximum_validity_min)
        for number, generation in generations.items()
        if number in by_number
    ]
    if not certified:
        numbers = ", ".join(map(str, generations))
        raise ConfigurationError(
            f"The catalog no longer has any family that the host key covers (number {numbers}), so there is nothing to "
            "certify. To go on with it, put the [[family]] with this number back into catalog.toml and export; else "
            "give the customer another host key."
        )
    if len(certified) > MAX_FAMILIES:
        raise ConfigurationError(f"The keys cover {len(certified)} families; a certificate holds {MAX_FAMILIES}.")
    return certified


def _merge_customers(keys: Sequence[HostKeyRecord]) -> int:
    customers = {key.entitlement.customer_id for key in keys}
    if len(customers) > 1:
        raise ConfigurationError("The host request combines host keys of different customers.", name="KEY_INVALID")
    return customers.pop()
