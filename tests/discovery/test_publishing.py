"""Publishing and withdrawing at real name servers: what changes, what stays, what each refusal says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.update
import pytest

from kms_fast.cli.dns_records import read_tsig_key
from kms_fast.discovery.address import HostAddress
from kms_fast.discovery.audit import Condition, Look, Sight
from kms_fast.discovery.publishing import HostRecord, check_target, publish, withdraw
from kms_fast.discovery.zone import Access
from kms_fast.errors import KmsFastError
from kms_fast.model.names import PublishedDomain
from tests.discovery.scripted import ScriptedServer
from tests.name_servers import NAME, SERVICE, ZONE, NameServer
from tests.ports import find_free_port

DOMAIN = PublishedDomain("example.com")
KMS = HostRecord(SERVICE, DOMAIN, "kms.example.com", 1688, 600)
KEY = 'key "a" { algorithm hmac-sha256; secret "c2VjcmV0LXNlY3JldC1zZWNyZXQ="; };'
OTHER = "10 5 1688 kms2.example.com."


def access_to(server: NameServer, key: Path | None = None) -> Access:
    return Access((server.address, server.port), read_tsig_key(key or server.key), server.async_resolver())


def begin_change(server: NameServer) -> dns.update.UpdateMessage:
    """An update by the sample's key, as any other program would make it."""
    return dns.update.UpdateMessage("example.com", keyring=read_tsig_key(server.key).to_dns())


def send(server: NameServer, update: dns.update.UpdateMessage) -> bool:
    """Whether the server took it."""
    try:
        return dns.query.tcp(update, server.address, 10, server.port).rcode() == dns.rcode.NOERROR
    except dns.tsig.PeerBadKey:
        return False


def change(server: NameServer, *added: str, name: str = SERVICE, kind: str = "SRV") -> bool:
    """Add records; whether the server took them."""
    update = begin_change(server)
    for record in added:
        update.add(name, 60, kind, record)
    return send(server, update)


def looks(condition: Condition, seen: list[HostAddress] | None = None) -> Look:
    """All hosts look like this."""

    async def look(host: HostAddress) -> Sight:
        if seen is not None:
            seen.append(host)
        return Sight(condition, "as told")

    return look


OK = looks(Condition.OK)


async def fail(server: NameServer | ScriptedServer, record: HostRecord = KMS, **options: object) -> KmsFastError:
    """Publishing that fails, and leaves the set as it was."""
    access = options.pop("access", None) or access_to(server)
    look = options.pop("look", OK)
    before = server.ask(NAME) if isinstance(server, NameServer) else []
    with pytest.raises(KmsFastError) as caught:
        await publish(record, access, look)
    if isinstance(server, NameServer):
        assert server.ask(NAME) == before
    error = caught.value
    assert error.details["record"] == str(record)
    if error.result.name != "DNS_SET_FOREIGN":
        assert f"By hand: {record}" in error.message
    return error


async def test_a_record_is_published_changed_and_withdrawn(name_server: NameServer) -> None:
    access = access_to(name_server)
    published = await publish(KMS, access, OK)
    assert (published.removed, published.beside) == ((), ())
    assert name_server.ask(NAME) == ["0 0 1688 kms.example.com."]
    assert published.to_json()["record"] == "_kms-fast._tcp.example.com. 600 IN SRV 0 0 1688 kms.example.com."
    changed = replace(KMS, domain=PublishedDomain("example.com", 10, 5))
    assert (await publish(changed, access, OK)).removed == ("0 0 1688 kms.example.com.",)
    assert name_server.ask(NAME) == ["10 5 1688 kms.example.com."]
    # The same again is a refresh.
    assert (await publish(changed, access, OK)).removed == ()
    assert (await withdraw(KMS, access)).removed == ("10 5 1688 kms.example.com.",)
    assert name_server.ask(NAME) == []
    assert (await withdraw(KMS, access)).removed == ()


async def test_the_time_to_live_is_that_of_who_published_last(name_server: NameServer) -> None:
    change(name_server, OTHER)
    await publish(KMS, access_to(name_server), OK)
    query = dns.message.make_query(NAME, "SRV")
    (rrset,) = dns.query.tcp(query, name_server.address, 10, name_server.port).answer
    assert rrset.ttl == 600


async def test_records_of_other_hosts_stay(name_server: NameServer) -> None:
    # The same machine on another port is another host.
    others = [OTHER, "0 0 1700 kms.example.com."]
    assert change(name_server, *others)
    seen: list[HostAddress] = []
    published = await publish(KMS, access_to(name_server), looks(Condition.OK, seen))
    assert set(map(str, seen)) == {"kms2.example.com:1688", "kms.example.com:1700"}
    assert {str(finding.host) for finding in published.beside} == set(map(str, seen))
    assert name_server.ask(NAME) == sorted([*others, "0 0 1688 kms.example.com."])
    await withdraw(KMS, access_to(name_server))
    assert name_server.ask(NAME) == sorted(others)


@pytest.mark.parametrize("condition", [Condition.STALE, Condition.ROGUE, Condition.UNPROVEN])
async def test_a_host_that_is_dead_or_rogue_is_told_and_no_reason_to_refuse(
    name_server: NameServer, condition: Condition
) -> None:
    change(name_server, OTHER)
    (finding,) = (await publish(KMS, access_to(name_server), looks(condition))).beside
    assert (finding.sight.condition, str(finding.host)) == (condition, "kms2.example.com:1688")
    remove = "withdraw-dns --domain example.com --target kms2.example.com --port 1688"
    assert (remove in finding.cure) is (condition is not Condition.UNPROVEN)
    assert len(name_server.ask(NAME)) == 2


async def test_a_set_with_a_foreign_host_is_left_alone_unless_shared(name_server: NameServer) -> None:
    change(name_server, OTHER)
    error = await fail(name_server, look=looks(Condition.FOREIGN))
    assert error.result.name == "DNS_SET_FOREIGN"
    assert "--share" in error.result.cure
    assert error.details["hosts"][0]["host"] == "kms2.example.com:1688"
    await publish(KMS, access_to(name_server), looks(Condition.FOREIGN), share=True)
    assert len(name_server.ask(NAME)) == 2


async def test_a_set_that_changes_meanwhile_is_looked_at_again(name_server: NameServer) -> None:
    change(name_server, OTHER)
    seen: list[str] = []

    async def look(host: HostAddress) -> Sight:
        if not seen:
            change(name_server, "0 0 1688 late.example.com.")
        seen.append(host.name)
        return Sight(Condition.OK, "well")

    await publish(KMS, access_to(name_server), look)
    assert sorted(seen) == ["kms2.example.com", "kms2.example.com", "late.example.com"]
    assert len(name_server.ask(NAME)) == 3


async def test_a_foreign_host_that_comes_meanwhile_is_not_joined(name_server: NameServer) -> None:
    change(name_server, OTHER)

    async def look(host: HostAddress) -> Sight:
        if host.name == "foreign.example.com":
            return Sight(Condition.FOREIGN, "another RPC service")
        change(name_server, "0 0 1688 foreign.example.com.")
        return Sight(Condition.OK, "well")

    with pytest.raises(KmsFastError) as caught:
        await publish(KMS, access_to(name_server), look)
    assert caught.value.result.name == "DNS_SET_FOREIGN"
    assert name_server.ask(NAME) == sorted([OTHER, "0 0 1688 foreign.example.com."])


async def test_a_set_that_keeps_changing_is_given_up(name_server: NameServer) -> None:
    change(name_server, OTHER)
    ports = iter(range(2000, 3000))

    async def look(host: HostAddress) -> Sight:
        change(name_server, f"0 0 {next(ports)} kms2.example.com.")
        return Sight(Condition.OK, "well")

    with pytest.raises(KmsFastError) as caught:
        await publish(KMS, access_to(name_server), look)
    assert caught.value.result.name == "DNS_SET_CHANGED"
    assert not any("kms.example.com." in record for record in name_server.ask(NAME))


async def test_an_empty_set_is_to_be_empty_still() -> None:
    with ScriptedServer(dns.rcode.YXRRSET) as server:
        await fail(server, access=Access(server.address))
    assert len(server.updates) == 3
    for update in server.updates:
        # RFC 2136 section 2.4.3: no records of this type.
        (condition,) = update.prerequisite
        assert (condition.name.to_text(), condition.rdtype, condition.deleting) == (
            NAME,
            dns.rdatatype.SRV,
            dns.rdataclass.NONE,
        )


@pytest.mark.parametrize(
    ("name", "kind", "record"),
    [
        (SERVICE, "TXT", "x"),
        (SERVICE, "A", "192.0.2.66"),
        ("_other._tcp", "SRV", "0 0 1 kms.example.com."),
        (f"sub.{SERVICE}", "SRV", "0 0 1 kms.example.com."),
        ("kms", "A", "192.0.2.66"),
        ("@", "NS", "evil.example.net."),
    ],
)
def test_the_samples_let_the_key_write_nothing_else(name_server: NameServer, name: str, kind: str, record: str) -> None:
    owner = {"@": "example.com."}.get(name, f"{name}.example.com.")
    before = name_server.ask(owner, kind)
    assert not change(name_server, record, name=name, kind=kind)
    assert name_server.ask(owner, kind) == before
    assert change(name_server, OTHER)


def test_the_samples_let_the_key_delete_nothing_else(name_server: NameServer) -> None:
    for name, kind in (("kms", "A"), ("kms", "ANY"), ("@", "NS")):
        update = begin_change(name_server)
        update.delete(*(name, kind)[: 1 if kind == "ANY" else 2])
        assert not send(name_server, update)
    assert name_server.ask("kms.example.com.", "A") == ["192.0.2.7"]


async def test_an_unknown_key(name_server: NameServer, tmp_path: Path) -> None:
    error = await fail(name_server, access=access_to(name_server, make_key(name_server, tmp_path, "stranger")))
    assert error.result.name == "DNS_KEY_REFUSED"
    assert "does not know the key stranger" in error.message
    assert (error.details["zone"], error.details["server"]) == ("example.com", name_server.setting)


async def test_another_secret(name_server: NameServer, tmp_path: Path) -> None:
    error = await fail(name_server, access=access_to(name_server, make_key(name_server, tmp_path, "kms-fast")))
    assert error.result.name == "DNS_KEY_REFUSED"
    assert "another secret" in error.message


async def test_without_a_key(name_server: NameServer) -> None:
    error = await fail(name_server, access=replace(access_to(name_server), key=None))
    assert error.result.name == "DNS_UPDATE_REFUSED"


async def test_a_name_that_the_key_may_not_change(name_server: NameServer) -> None:
    error = await fail(name_server, replace(KMS, domain=PublishedDomain("sub.example.com")))
    assert error.result.name in ("DNS_UPDATE_REFUSED", "DNS_KEY_REFUSED")
    assert error.details["zone"] == "example.com"


async def test_a_domain_that_the_server_does_not_have(name_server: NameServer) -> None:
    error = await fail(name_server, replace(KMS, domain=PublishedDomain("example.net")))
    assert error.result.name == "DNS_ZONE_NOT_FOUND"
    assert "answered REFUSED" in error.message


async def test_a_name_that_is_an_alias(start_name_server: Callable[..., NameServer]) -> None:
    """RFC 2136 section 3.4.2.2: a server takes the update and does nothing, so its word is not enough."""
    server = start_name_server("bind9", {"example.com": f"{ZONE}{SERVICE} IN CNAME kms\n"})
    error = await fail(server)
    assert error.result.name == "DNS_UPDATE_REFUSED"
    assert "CNAME" in error.message


async def test_a_domain_that_nobody_has(start_name_server: Callable[..., NameServer]) -> None:
    """The nearest zone is then the top-level domain's, whose servers are to be left in peace."""
    server = start_name_server("knot", {"example.com": ZONE, "test": ZONE})
    record = replace(KMS, domain=PublishedDomain("nowhere.test"))
    error = await fail(server, record, access=Access(resolver=server.async_resolver()))
    assert error.result.name == "DNS_ZONE_NOT_FOUND"
    assert "the nearest zone is test." in error.message


async def test_a_primary_that_is_hidden(start_name_server: Callable[..., NameServer]) -> None:
    server = start_name_server("knot", {"example.com": ZONE.replace("SOA ns1.", "SOA hidden.")})
    error = await fail(server, access=Access(resolver=server.async_resolver()))
    assert error.result.name == "DNS_SERVER_UNREACHABLE"
    assert "hidden.example.com has no address" in error.message
    assert "dns_server" in error.result.cure


async def test_a_server_that_is_down() -> None:
    port = find_free_port()
    with pytest.raises(KmsFastError) as caught:
        await publish(KMS, Access(("127.0.0.1", port)), OK)
    assert caught.value.result.name == "DNS_SERVER_UNREACHABLE"
    assert "Connection refused" in caught.value.message
    with pytest.raises(KmsFastError) as caught:
        await publish(KMS, Access(("no-such-server.invalid", port)), OK)
    assert caught.value.result.name == "DNS_SERVER_UNREACHABLE"
    assert "has no address" in caught.value.message


@pytest.mark.parametrize(
    ("answer", "name", "said"),
    [
        (dns.rcode.REFUSED, "DNS_UPDATE_REFUSED", "REFUSED"),
        (dns.rcode.NOTAUTH, "DNS_UPDATE_REFUSED", "NOTAUTH"),
        (dns.rcode.NOTZONE, "DNS_ZONE_NOT_FOUND", "NOTZONE"),
        (dns.rcode.NOTIMP, "DNS_SERVER_FAILED", "NOTIMP"),
        (dns.rcode.FORMERR, "DNS_SERVER_FAILED", "FORMERR"),
        (dns.rcode.SERVFAIL, "DNS_SERVER_FAILED", "SERVFAIL"),
        (dns.rcode.YXDOMAIN, "DNS_SET_CHANGED", "YXDOMAIN"),
        (dns.rcode.NXDOMAIN, "DNS_SET_CHANGED", "NXDOMAIN"),
        (dns.rcode.YXRRSET, "DNS_SET_CHANGED", "YXRRSET"),
        (dns.rcode.NXRRSET, "DNS_SET_CHANGED", "NXRRSET"),
        (dns.rcode.BADVERS, "DNS_SERVER_FAILED", "BADVERS"),
        (b"\0\1x", "DNS_SERVER_FAILED", "no answer"),
        (b"", "DNS_SERVER_UNREACHABLE", "closed the connection"),
    ],
)
async def test_each_answer_has_words_of_its_own(answer: dns.rcode.Rcode | bytes, name: str, said: str) -> None:
    with ScriptedServer(answer) as server:
        error = await fail(server, access=Access(server.address))
    assert error.result.name == name
    assert said in error.message


async def test_an_answer_without_a_signature_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY)
    path.chmod(0o600)
    with ScriptedServer(dns.rcode.NOERROR) as server:
        error = await fail(server, access=Access(server.address, read_tsig_key(path)))
    assert error.result.name == "DNS_KEY_REFUSED"
    assert "without a signature" in error.message


async def test_a_server_that_knows_no_signatures_is_heard_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(KEY)
    path.chmod(0o600)
    with ScriptedServer(dns.rcode.NOTIMP) as server:
        error = await fail(server, access=Access(server.address, read_tsig_key(path)))
    assert error.result.name == "DNS_SERVER_FAILED"
    assert "NOTIMP" in error.message


async def test_a_server_that_is_not_responsible() -> None:
    with ScriptedServer(dns.rcode.NOERROR, authoritative=False) as server:
        error = await fail(server, access=Access(server.address))
    assert error.result.name == "DNS_ZONE_NOT_FOUND"
    assert "not responsible" in error.message


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("here.example.com", "this machine itself (127.0.0.1)"),
        ("here6.example.com", "this machine itself (::1)"),
        ("nobody.example.com", "does not exist"),
    ],
)
async def test_a_name_that_leads_nobody_here_is_not_published(name_server: NameServer, name: str, why: str) -> None:
    with pytest.raises(KmsFastError) as caught:
        await check_target(name, access_to(name_server))
    assert caught.value.result.name == "DNS_TARGET_INVALID"
    assert why in caught.value.message


async def test_what_a_silent_server_keeps_to_itself_is_to_be_removed_by_hand() -> None:
    with pytest.raises(KmsFastError) as caught:
        await withdraw(KMS, Access(("127.0.0.1", find_free_port())))
    assert caught.value.result.name == "DNS_SERVER_UNREACHABLE"
    said = "To remove by hand: every record of kms.example.com:1688 in _kms-fast._tcp.example.com."
    assert caught.value.message.endswith(said)


async def test_a_name_with_an_address_is(name_server: NameServer) -> None:
    await check_target("kms.example.com", access_to(name_server))


def make_key(server: NameServer, folder: Path, name: str) -> Path:
    """The file of a key that the server does not have."""
    path = folder / f"{name}.other"
    path.write_text(server.make_key(name))
    path.chmod(0o600)
    return path
