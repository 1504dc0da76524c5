"""Certificates and their chain; the layouts themselves are compared with the vectors in tests/vectors."""

from dataclasses import replace
from typing import Any

import pytest

from kms_fast.errors import ConfigurationError
from kms_fast.model import signing
from kms_fast.model.certificate import (
    CertifiedFamily,
    HostCertificate,
    IssuerCertificate,
    Rights,
    issue_host_certificate,
    issue_issuer_certificate,
    parse_chain,
    verify_chain,
)
from tests.publishing import DAY_MS, NOW_MS, PUBLISHER_ID, Authority, make_authority, make_private_key

FAMILIES = (CertifiedFamily(1, 2, 25, 259_200), CertifiedFamily(3, 1, 5, 60))
HOST = make_private_key("host")


@pytest.fixture
def authority() -> Authority:
    return make_authority()


def issue(authority: Authority, **changes: Any) -> HostCertificate:
    values: dict[str, Any] = {
        "public_key": signing.public_bytes(HOST),
        "serial": 7,
        "not_before_ms": NOW_MS,
        "not_after_ms": NOW_MS + DAY_MS,
        "families": FAMILIES,
        "customer_id": 9,
    }
    return issue_host_certificate(authority.issuer_key, authority.issuer, **values | changes)


def check(authority: Authority, host: HostCertificate, issuer: IssuerCertificate | None = None, **changes: Any) -> None:
    values: dict[str, Any] = {"roots": authority.roots, "publisher_id": PUBLISHER_ID, "at_ms": NOW_MS}
    verify_chain(host, issuer or authority.issuer, **values | changes)


def reissue(authority: Authority, **changes: Any) -> IssuerCertificate:
    """The issuer's certificate with other fields, signed by the root again."""
    unsigned = replace(authority.issuer, **changes)
    return replace(unsigned, signature=signing.sign(authority.root_key, signing.ISSUER_CERTIFICATE, unsigned.body))


def resign(authority: Authority, host: HostCertificate, **changes: Any) -> HostCertificate:
    unsigned = replace(host, **changes)
    return replace(unsigned, signature=signing.sign(authority.issuer_key, signing.HOST_CERTIFICATE, unsigned.body))


def test_a_chain_is_read_back_and_verifies(authority: Authority) -> None:
    certificate = issue(authority)
    assert parse_chain(certificate.to_bytes() + authority.issuer.to_bytes()) == (certificate, authority.issuer)
    assert len(certificate.to_bytes()) == 168 + 12 * 2
    for at_ms in (NOW_MS, NOW_MS + DAY_MS):
        check(authority, certificate, at_ms=at_ms)


def test_families_are_sorted_and_found(authority: Authority) -> None:
    certificate = issue(authority, families=FAMILIES[::-1])
    assert certificate.families == FAMILIES
    assert (certificate.family_index(3), certificate.family_index(2)) == (1, 255)
    assert certificate.family(1) == FAMILIES[0]
    assert certificate.family(2) is None


@pytest.mark.parametrize(
    "families",
    [
        (),
        (FAMILIES[0], FAMILIES[0]),
        tuple(CertifiedFamily(number, 1, 1, 1) for number in range(9)),
        (CertifiedFamily(1, 1, 1, 525_601),),
    ],
)
def test_impossible_families_are_not_certified(authority: Authority, families: tuple[CertifiedFamily, ...]) -> None:
    with pytest.raises(ValueError, match=r"families|valid"):
        issue(authority, families=families)


def test_an_issuer_is_valid_for_at_most_731_days(authority: Authority) -> None:
    with pytest.raises(ValueError, match="731"):
        issue_issuer_certificate(
            authority.root_key,
            public_key=bytes(32),
            publisher_id=PUBLISHER_ID,
            serial=1,
            not_before_ms=NOW_MS,
            days=732,
        )


def failing_chains(authority: Authority) -> dict[str, tuple[HostCertificate, IssuerCertificate, dict[str, Any]]]:
    """For each step of docs/protocol.md a chain that fails it and none before it."""
    host, issuer = issue(authority), authority.issuer
    other = make_authority("other")
    return {
        "ROOT_UNKNOWN": (host, issuer, {"roots": other.roots}),
        "ISSUER_SIGNATURE": (host, replace(issuer, signature=bytes(64)), {}),
        "ISSUER_RIGHTS no right": (host, reissue(authority, rights=Rights.CATALOGS), {}),
        "ISSUER_RIGHTS unknown right": (host, reissue(authority, rights=Rights(9)), {}),
        "ISSUER_RIGHTS publisher": (host, reissue(authority, publisher_id=bytes(16)), {}),
        "ISSUER_DATES too long": (host, reissue(authority, not_after_ms=NOW_MS + 731 * DAY_MS + 1), {}),
        "ISSUER_DATES reversed": (host, reissue(authority, not_after_ms=NOW_MS - 1), {}),
        "ISSUER_DATES early": (host, issuer, {"at_ms": NOW_MS - 1}),
        "CERTIFICATE_SIGNATURE": (replace(host, serial=8), issuer, {}),
        "CERTIFICATE_SIGNATURE issuer": (resign(authority, host, issuer_serial=2), issuer, {}),
        "CERTIFICATE_KIND publisher": (resign(authority, host, publisher_id=bytes(16)), issuer, {}),
        "CERTIFICATE_KIND host": (resign(authority, host, host_id=bytes(16)), issuer, {}),
        "CERTIFICATE_DATES": (host, issuer, {"at_ms": NOW_MS + DAY_MS + 1}),
        "CERTIFICATE_REVOKED": (host, issuer, {"revoked": (6, 7)}),
    }


@pytest.mark.parametrize("case", failing_chains(make_authority()))
def test_each_failing_step_has_its_own_error(authority: Authority, case: str) -> None:
    host, issuer, changes = failing_chains(authority)[case]
    with pytest.raises(ConfigurationError) as caught:
        check(authority, host, issuer, **changes)
    assert caught.value.result.name == case.split()[0]


def test_damaged_bytes_are_refused(authority: Authority) -> None:
    data = issue(authority).to_bytes()
    issuer = authority.issuer.to_bytes()
    for damaged in (
        b"",
        data[:-1],
        data + b"\0",
        b"\2" + data[1:],
        data[:1] + b"\1" + data[2:],
        data[:3] + b"\1" + data[4:],
    ):
        with pytest.raises(ConfigurationError, match="host certificate"):
            HostCertificate.parse(damaged)
    for damaged in (b"", issuer[:-1], b"\2" + issuer[1:], b"\1\2" + issuer[2:]):
        with pytest.raises(ConfigurationError, match="issuer certificate"):
            IssuerCertificate.parse(damaged)
    with pytest.raises(ConfigurationError, match="too short"):
        parse_chain(issuer[:100])


def test_families_out_of_order_are_refused(authority: Authority) -> None:
    data = issue(authority).to_bytes()
    swapped = data[:104] + data[116:128] + data[104:116] + data[128:]
    with pytest.raises(ConfigurationError, match="ascending"):
        HostCertificate.parse(swapped)
