"""What the outcome of a probe says of a host, and which key files are taken."""

import socket
from pathlib import Path

import click
import dns.asyncresolver
import msgspec
import pytest

from kms_fast.cli.dns import audit_dns, publish_dns, withdraw_dns
from kms_fast.cli.dns_records import judge, list_records, make_chore, plan_records, read_tsig_key
from kms_fast.client.exchange import Kind, Outcome
from kms_fast.discovery.address import HostAddress
from kms_fast.discovery.audit import CURES, Condition
from kms_fast.discovery.zone import Access
from kms_fast.errors import ConfigurationError
from kms_fast.host.presence import HostProcess
from kms_fast.model.settings import HostSettings
from kms_fast.results import BY_NAME
from tests.hosts import make_realm
from tests.name_servers import SERVICE
from tests.ports import find_free_port

PROCESS = HostProcess(pid=1, version="", started_ms=0, addresses=("127.0.0.1:1688",), workers=1)
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
    sight = judge(Outcome(HostAddress("kms.example.com"), kind, "as told", time_ms=0, code=code))
    assert sight.condition is condition
    assert sight.text


def test_every_condition_but_the_good_one_has_a_cure() -> None:
    assert [condition for condition in Condition if not CURES[condition]] == [Condition.OK]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_key_that_is_kept_is_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "dns.key"
    path.write_text(KEY)
    path.chmod(mode)
    assert read_tsig_key(path).name == "a"


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604, 0o666])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "dns.key"
    path.write_text(KEY)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"has mode {mode:04o}"):
        read_tsig_key(path)


async def test_a_failure_is_tried_again_after_an_hour(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chore = make_chore(make_realm(tmp_path).home / "host", PROCESS)
    assert chore.interval_s == 86_400
    nobody = f"127.0.0.1:{find_free_port()}"
    settings = HostSettings(dns_domain=("a.example", "b.example"), dns_server=nobody, dns_target="kms.a.example")
    assert await chore.do(settings) == 3_600
    unreachable = BY_NAME["DNS_SERVER_UNREACHABLE"].hex
    told = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert told == [f"12293 {unreachable},a.example", f"12293 {unreachable},b.example"]


async def test_a_silent_name_server_says_nothing_of_the_own_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "kms.example.com")
    monkeypatch.setattr("kms_fast.cli.dns_records.make_access", lambda settings: Access(resolver=ask_nobody()))
    chore = make_chore(make_realm(tmp_path).home / "host", PROCESS)
    assert await chore.do(HostSettings(dns_domain=("example.com",))) == 3_600
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"12293 {BY_NAME['DNS_SERVER_UNREACHABLE'].hex},example.com: ")
    assert "By hand: _kms-fast._tcp.example.com. 3600 IN SRV 0 0 1688 kms.example.com." in line


def ask_nobody() -> dns.asyncresolver.Resolver:
    """A machine's resolver whose name server is down."""
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], find_free_port()
    return resolver


async def test_a_record_to_withdraw_needs_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "gone.invalid")
    (record,) = await list_records(HostSettings(dns_domain=("example.com",)), SERVICE, [])
    assert (str(record.name), record.target, record.port) == (f"{SERVICE}.example.com.", "gone.invalid", 1688)


async def test_a_key_that_is_missing_is_told_for_each_domain(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chore = make_chore(make_realm(tmp_path).home / "host", PROCESS)
    settings = HostSettings(dns_domain=("a.example:10:5", "b.example"), dns_key=str(tmp_path / "missing"))
    assert await chore.do(settings) == 3_600
    assert [str(tmp_path / "missing") in record.getMessage() for record in caplog.records] == [True, True]
    failed = BY_NAME["STORAGE_FAILED"].hex
    told = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert told == [f"12293 {failed},a.example", f"12293 {failed},b.example"]


async def test_a_final_dot_is_no_part_of_the_domain() -> None:
    (record,) = await plan_records(HostSettings(dns_target="KMS.example.com."), SERVICE, [], Access())
    assert (record.domain.name, record.target) == ("example.com", "kms.example.com")
    assert str(record) == "_kms-fast._tcp.example.com. 3600 IN SRV 0 0 1688 kms.example.com."


@pytest.mark.parametrize(
    ("settings", "running", "port"),
    [
        (HostSettings(dns_port=1, listen=("[::1]:2",)), [PROCESS], 1),
        (HostSettings(listen=("[::1]:2",)), [PROCESS], 1688),
        (HostSettings(listen=("[::1]:2", "[::1]:3")), [], 2),
    ],
)
async def test_the_port_of_a_record(settings: HostSettings, running: list[HostProcess], port: int) -> None:
    settings = msgspec.structs.replace(settings, dns_target="kms.example.com")
    (record,) = await plan_records(settings, SERVICE, running, Access())
    assert record.port == port


async def test_a_port_that_is_any_free_one_is_not_published() -> None:
    with pytest.raises(ConfigurationError, match="say which one to publish"):
        await plan_records(HostSettings(listen=("127.0.0.1:0",)), SERVICE, [], Access())


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (publish_dns, "domain server key target port ttl share"),
        (withdraw_dns, "domain server key target port"),
        (audit_dns, "domain server"),
    ],
)
def test_a_command_has_the_flags_that_it_uses(command: click.Command, flags: str) -> None:
    names = [name.removeprefix("dns_") for param in command.params if (name := param.name or "").startswith("dns_")]
    assert names == flags.split()


async def test_a_host_without_domains_publishes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert await make_chore(tmp_path, PROCESS).do(HostSettings()) is None
    assert not caplog.records
