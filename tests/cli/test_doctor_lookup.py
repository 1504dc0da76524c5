"""Which hosts ``kms-fast doctor`` looks at, by the records of a name server in the test."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import dns.name
import dns.resolver
import pytest

from kms_fast.cli.doctor.client import ClientContext
from kms_fast.cli.doctor.host import HostContext
from kms_fast.cli.doctor.ladder import Verdict
from kms_fast.cli.doctor.lookup import Lookup, find_host_records, find_named, find_set_hosts
from kms_fast.client.state import Product, State
from kms_fast.client.trust import Trust
from kms_fast.discovery.address import HostAddress
from kms_fast.errors import ConfigurationError
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.settings import HostSettings
from tests.discovery.lookups import serve_zone
from tests.hosts import SKUS, Realm

SERVICE = "_kms-fast._tcp"
RECORDS = {"_kms-fast._tcp.example.test.": ["20 0 1688 spare.example.test.", "10 0 1700 kms.example.test."]}
FOUND = [HostAddress("kms.example.test", 1700), HostAddress("spare.example.test", 1688)]


@pytest.fixture
def resolver_for() -> Iterator[Callable[[str], dns.resolver.Resolver]]:
    """Call it with the machine's domain."""
    with serve_zone(RECORDS) as port:

        def make(domain: str) -> dns.resolver.Resolver:
            resolver = dns.resolver.Resolver(configure=False)
            resolver.nameservers, resolver.port = ["127.0.0.1"], port
            resolver.domain = dns.name.from_text(domain)
            return resolver

        yield make


def make_client(realm: Realm, *products: dict[str, Any]) -> ClientContext:
    """Each product as it is set, the first one the desktop's."""
    publisher = PublisherFile.parse(realm.publisher_json.read_bytes())
    skus = [SKUS[name] for name in ("desktop", "server")[: len(products)]]
    state = State("", UUID(int=1), [], products={
        sku.id: Product("key", 0, **fields) for sku, fields in zip(skus, products, strict=True)
    })  # fmt: skip
    trusts = [Trust(publisher, sku, sku.setup_key(publisher.publisher_id)) for sku in skus]
    return ClientContext(Path("home"), 0, state, trusts)


def find_set(client: ClientContext, resolver: dns.resolver.Resolver) -> Lookup:
    [lookup] = find_set_hosts(client, SERVICE, resolver)
    return lookup


def test_a_domain(resolver_for: Callable[[str], dns.resolver.Resolver]) -> None:
    lookup = find_named("example.test", SERVICE, resolver_for("other.test"))
    assert (lookup.finding.verdict, list(lookup.hosts)) == (Verdict.OK, FOUND)


def test_a_name_that_is_no_domain_with_records(resolver_for: Callable[[str], dns.resolver.Resolver]) -> None:
    lookup = find_named("localhost", SERVICE, resolver_for("other.test"))
    assert (lookup.finding.verdict, list(lookup.hosts)) == (Verdict.OK, [HostAddress("localhost")])
    assert lookup.finding.details["names"] == {"_kms-fast._tcp.localhost.": "the name does not exist"}


def test_a_name_that_is_nothing(resolver_for: Callable[[str], dns.resolver.Resolver]) -> None:
    lookup = find_named("nothing.invalid", SERVICE, resolver_for("other.test"))
    assert (lookup.finding.verdict, lookup.finding.code, list(lookup.hosts)) == (Verdict.FAILED, "0x8007232B", [])


@pytest.mark.parametrize(
    ("where", "host"),
    [
        ("192.0.2.7", HostAddress("192.0.2.7")),
        ("example.test:1700", HostAddress("example.test", 1700)),
        ("[2001:db8::7]", HostAddress("2001:db8::7")),
    ],
)
def test_addresses_are_not_looked_up(where: str, host: HostAddress) -> None:
    assert list(find_named(where, SERVICE, dns.resolver.Resolver(configure=False)).hosts) == [host]


def test_what_is_neither() -> None:
    with pytest.raises(ConfigurationError):
        find_named("a b", SERVICE)


def test_a_client_asks_the_host_that_answered_last_and_then_those_in_dns(
    resolver_for: Callable[[str], dns.resolver.Resolver], realm: Realm
) -> None:
    found = find_set(make_client(realm, {"cached_host": "old:1688"}), resolver_for("example.test"))
    assert (found.finding.verdict, list(found.hosts)) == (Verdict.OK, [HostAddress("old"), *FOUND])
    again = find_set(make_client(realm, {"cached_host": "spare.example.test:1688"}), resolver_for("example.test"))
    assert list(again.hosts) == FOUND[::-1], "a host is asked once"
    cached = find_set(make_client(realm, {"cached_host": "old:1688"}), resolver_for("empty.test"))
    assert (cached.finding.verdict, list(cached.hosts)) == (Verdict.WARNING, [HostAddress("old")])
    assert "_kms-fast._tcp.empty.test. (the name does not exist)" in cached.finding.what
    elsewhere = find_set(make_client(realm, {"domain": "example.test"}), resolver_for("empty.test"))
    assert list(elsewhere.hosts) == FOUND, "in the domain that was set, not in the machine's"
    nothing = find_set(make_client(realm, {}), resolver_for("empty.test"))
    assert (nothing.finding.verdict, list(nothing.hosts)) == (Verdict.FAILED, [])


@pytest.mark.parametrize(
    "other", [{"host": "set:1688"}, {"domain": "empty.test"}, {"domain": "empty.test", "cached_host": "set:1688"}]
)
def test_each_product_of_a_client_has_its_hosts(
    resolver_for: Callable[[str], dns.resolver.Resolver], realm: Realm, other: dict[str, Any]
) -> None:
    client = make_client(realm, other, {"domain": "example.test"})
    first, second = find_set_hosts(client, SERVICE, resolver_for("other.test"))
    assert list(first.hosts) == ([HostAddress("set")] if "set:1688" in other.values() else [])
    assert first.finding.what.startswith("Desktop 3: ")
    assert (list(second.hosts), [trust.sku.name for trust in second.trusts]) == (FOUND, ["Server 1"])
    alike = find_set(make_client(realm, other, other), resolver_for("other.test"))
    assert [trust.sku.name for trust in alike.trusts] == ["Desktop 3", "Server 1"]


def make_host(**settings: Any) -> HostContext:
    """A host that takes connections on port 1700 and has these settings."""
    return HostContext(Path("home"), None, 0, settings=HostSettings(listen=("127.0.0.1:1700",), **settings))


def test_a_host_s_record_in_each_of_its_domains(resolver_for: Callable[[str], dns.resolver.Resolver]) -> None:
    context = make_host(dns_domain=("example.test:5:1", "empty.test:5:1"), dns_target="KMS.example.test", dns_ttl_s=60)
    found, missing = find_host_records(context, SERVICE, resolver_for("other.test"))
    assert (found.finding.verdict, list(found.hosts)) == (Verdict.OK, FOUND)
    assert missing.finding.verdict is Verdict.WARNING
    assert missing.finding.details["record"] == "_kms-fast._tcp.empty.test. 60 IN SRV 5 1 1700 kms.example.test."


@pytest.mark.parametrize("settings", [{"dns_target": "kms.example.test", "dns_port": 1701}, {"dns_target": "b.test"}])
def test_a_host_that_no_record_names(
    resolver_for: Callable[[str], dns.resolver.Resolver], settings: dict[str, Any]
) -> None:
    [lookup] = find_host_records(make_host(**settings), SERVICE, resolver_for("example.test"))
    assert (lookup.finding.verdict, list(lookup.hosts)) == (Verdict.WARNING, FOUND)
    assert f"None names this host, {settings['dns_target']}:{settings.get('dns_port', 1700)}." in lookup.finding.what


def test_a_host_without_a_name_to_publish(
    resolver_for: Callable[[str], dns.resolver.Resolver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost.localdomain")
    [lookup] = find_host_records(make_host(), SERVICE, resolver_for("example.test"))
    assert (lookup.finding.verdict, list(lookup.hosts)) == (Verdict.WARNING, FOUND)
    assert lookup.finding.cure is not None
    assert "dns_target" in lookup.finding.cure
    assert "record" not in lookup.finding.details
