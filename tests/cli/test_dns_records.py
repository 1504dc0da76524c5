"""What the outcome of a probe says of a host, and which key files are taken."""

from pathlib import Path

import pytest

from kms_fast.cli.dns_records import judge, read_key
from kms_fast.client.exchange import Kind, Outcome
from kms_fast.discovery.address import HostAddress
from kms_fast.discovery.audit import CURES, Condition
from kms_fast.errors import ConfigurationError
from kms_fast.results import BY_NAME

KEY = 'key "a" { algorithm hmac-sha256; secret "c2VjcmV0LXNlY3JldC1zZWNyZXQ="; };'


@pytest.mark.parametrize(
    ("kind", "name", "condition"),
    [
        (Kind.REFUSED, "CLOCKS_DIFFER", Condition.OK),
        (Kind.REFUSED, "HOST_CANNOT_SERVE", Condition.OK),
        (Kind.UNREACHABLE, None, Condition.STALE),
        (Kind.FOREIGN, None, Condition.FOREIGN),
        (Kind.REJECTED, "RPC_REFUSED", Condition.FOREIGN),
        (Kind.REJECTED, "ROOT_UNKNOWN", Condition.ROGUE),
        (Kind.REJECTED, "CERTIFICATE_REVOKED", Condition.ROGUE),
        (Kind.UNSIGNED, "PRODUCT_UNKNOWN", Condition.ROGUE),
        (Kind.UNSIGNED, "REQUEST_UNREADABLE", Condition.ROGUE),
        (Kind.UNSIGNED, "SERVER_BUSY", Condition.UNPROVEN),
        (Kind.UNSIGNED, "HOST_CLOCK", Condition.UNPROVEN),
        (Kind.UNSIGNED, "HOST_CERTIFICATE_DATES", Condition.UNPROVEN),
    ],
)
def test_each_outcome_of_a_probe_is_a_condition(kind: Kind, name: str | None, condition: Condition) -> None:
    code = None if name is None else BY_NAME[name].code
    sight = judge(Outcome(HostAddress("kms.example.com"), kind, "as told", code))
    assert sight.condition is condition
    assert sight.text


def test_every_condition_but_the_good_one_has_a_cure() -> None:
    assert [condition for condition in Condition if not CURES[condition]] == [Condition.OK]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_key_that_is_kept_is_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "dns.key"
    path.write_text(KEY)
    path.chmod(mode)
    assert read_key(path).name == "a"


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604, 0o666])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "dns.key"
    path.write_text(KEY)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"has mode {mode:04o}"):
        read_key(path)
