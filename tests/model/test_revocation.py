"""Revocation lists; the layout is compared with the vectors in tests/vectors."""

from dataclasses import replace

import pytest

from kms_fast.errors import ConfigurationError
from kms_fast.model import signing
from kms_fast.model.certificate import Rights
from kms_fast.model.revocation import RevocationList, issue_revocation_list
from tests.publishing import NOW_MS, PUBLISHER_ID, Authority, make_authority


@pytest.fixture
def authority() -> Authority:
    return make_authority()


def issue(authority: Authority, serials: list[int]) -> RevocationList:
    return issue_revocation_list(authority.issuer_key, authority.issuer, number=3, issued_ms=NOW_MS, serials=serials)


def test_a_list_is_read_back_and_verifies(authority: Authority) -> None:
    revocations = issue(authority, [9, 2, 5, 2])
    assert revocations.serials == (2, 5, 9)
    assert len(revocations.to_bytes()) == 240 + 8 * 3
    parsed = RevocationList.parse(revocations.to_bytes())
    assert parsed == revocations
    parsed.verify(authority.roots, PUBLISHER_ID)


def test_a_list_holds_at_most_400_serials(authority: Authority) -> None:
    assert len(issue(authority, list(range(400))).serials) == 400
    with pytest.raises(ValueError, match="400"):
        issue(authority, list(range(401)))


def test_damaged_bytes_are_refused(authority: Authority) -> None:
    data = issue(authority, [1, 2]).to_bytes()
    swapped = data[:32] + data[40:48] + data[32:40] + data[48:]
    zero = data[:4] + bytes(4) + data[8:]
    for damaged in (b"", data[:-1], data + b"\0", b"\2" + data[1:], swapped, zero):
        with pytest.raises(ConfigurationError, match="revocation list"):
            RevocationList.parse(damaged)


def test_only_an_issuer_with_the_right_can_revoke(authority: Authority) -> None:
    revocations = issue(authority, [1])
    weak = replace(authority.issuer, rights=Rights.HOST_CERTIFICATES)
    weak = replace(weak, signature=signing.sign(authority.root_key, signing.ISSUER_CERTIFICATE, weak.body))
    changed = replace(revocations, serials=(1, 2))
    for wrong, name in ((replace(revocations, issuer=weak), "ISSUER_RIGHTS"), (changed, "OFFLINE_DATA_MALFORMED")):
        with pytest.raises(ConfigurationError) as caught:
            wrong.verify(authority.roots, PUBLISHER_ID)
        assert caught.value.result.name == name
