"""Which hosts ``kms-fast doctor`` looks at, by the records of a name server in the test."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dns.message
import dns.name
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from kms_fast.cli.doctor.client import ClientContext
from kms_fast.cli.doctor.host import HostContext
from kms_fast.cli.doctor.ladder import Verdict
from kms_fast.cli.doctor.lookup import find_host_records, find_named, find_set_hosts
from kms_fast.discovery.address import HostAddress
from kms_fast.errors import ConfigurationError
from kms_fast.model.settings import HostSettings

SERVICE = "_kms-fast._tcp"
RECORDS = {"_kms-fast._tcp.example.test.": ["20 0 1688 spare.example.test.", "10 0 1700 kms.example.test."]}
FOUND = [HostAddress("kms.example.test", 1700), HostAddress("spare.example.test", 1688)]


def answer_queries(server: socket.socket) -> None:
    while True:
        try:
            data, peer = server.recvfrom(4096)
        except OSError:
            return
        response = dns.message.make_response(dns.message.from_wire(data))
        name = response.question[0].name
        if name.to_text() in RECORDS:
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "SRV", *RECORDS[name.to_text()]))
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        server.sendto(response.to_wire(), peer)


@pytest.fixture
def resolver_for() -> Iterator[Callable[[str], dns.resolver.Resolver]]:
    """Call it with the machine's domain."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        threading.Thread(target=answer_queries, args=(server,), daemon=True).start()

        def make(domain: str) -> dns.resolver.Resolver:
            resolver = dns.resolver.Resolver(configure=False)
            resolver.nameservers, resolver.port = ["127.0.0.1"], server.getsockname()[1]
            resolver.domain = dns.name.from_text(domain)
            return resolver

        yield make


def make_client(**status: Any) -> ClientContext:
    known = SimpleNamespace(**{"host": None, "cached_host": None, "domain": None} | status)
    return ClientContext(Path("home"), 0, statuses=[known])  # type: ignore[list-item]


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


def test_a_client_asks_dns_and_then_the_host_that_answered_last(
    resolver_for: Callable[[str], dns.resolver.Resolver],
) -> None:
    found = find_set_hosts(make_client(cached_host="old:1688"), SERVICE, resolver_for("example.test"))
    assert list(found.hosts) == FOUND
    cached = find_set_hosts(make_client(cached_host="old:1688"), SERVICE, resolver_for("empty.test"))
    assert (cached.finding.verdict, list(cached.hosts)) == (Verdict.WARNING, [HostAddress("old")])
    assert "_kms-fast._tcp.empty.test. (the name does not exist)" in cached.finding.what
    elsewhere = find_set_hosts(make_client(domain="example.test"), SERVICE, resolver_for("empty.test"))
    assert list(elsewhere.hosts) == FOUND, "in the domain that was set, not in the machine's"
    nothing = find_set_hosts(make_client(), SERVICE, resolver_for("empty.test"))
    assert (nothing.finding.verdict, list(nothing.hosts)) == (Verdict.FAILED, [])


def test_a_host_without_records_is_told_which_to_make(resolver_for: Callable[[str], dns.resolver.Resolver]) -> None:
    context = HostContext(Path("home"), None, 0)
    assert list(find_host_records(context, SERVICE, resolver_for("example.test")).hosts) == FOUND
    publishing = HostContext(Path("home"), None, 0, settings=HostSettings(dns_domain=("example.test:5:1",)))
    assert list(find_host_records(publishing, SERVICE, resolver_for("empty.test")).hosts) == FOUND
    finding = find_host_records(context, SERVICE, resolver_for("empty.test")).finding
    assert finding.verdict is Verdict.WARNING
    assert finding.details["record"].startswith("_kms-fast._tcp.empty.test. 3600 IN SRV 0 0 1688 ")
