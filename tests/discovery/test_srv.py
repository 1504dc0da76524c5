"""SRV lookup against a name server in the test: names asked for, order of RFC 2782, and what failures say."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import dns.asyncresolver
import dns.name
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
from dns.rdtypes.IN.SRV import SRV

from kms_fast.discovery import srv
from kms_fast.discovery.address import HostAddress
from kms_fast.discovery.srv import Service, find_hosts, find_hosts_async, order_records, query_names
from kms_fast.errors import NoHost
from tests.discovery.lookups import Zone, serve_zone

SERVICE = Service("_kms-fast._tcp")


def records(*texts: str) -> list[SRV]:
    return list(dns.rrset.from_text("x.", 60, "IN", "SRV", *texts))


def test_the_lowest_priority_comes_first() -> None:
    hosts = order_records(records("20 0 1 b.", "10 0 2 a.", "30 9 3 c."), random.Random(1))
    assert hosts == [HostAddress("a", 2), HostAddress("b", 1), HostAddress("c", 3)]


def test_weights_decide_how_often_a_host_is_first() -> None:
    chance = random.Random(7)
    entries = records("0 60 1 a.", "0 30 1 b.", "0 10 1 c.", "0 0 1 d.")
    first = Counter(order_records(entries, chance)[0].name for _ in range(5000))
    assert 2800 < first["a"] < 3200
    assert 1300 < first["b"] < 1700
    assert 350 < first["c"] < 650
    assert 0 < first["d"] < 150
    assert sorted(host.name for host in order_records(entries, chance)) == ["a", "b", "c", "d"]


def test_a_root_target_says_that_the_service_is_not_offered() -> None:
    assert order_records(records("0 0 0 ."), random.Random(1)) == []


def test_the_domain_comes_before_the_search_list_and_each_name_once() -> None:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.domain = dns.name.from_text("corp.example")
    resolver.search = [dns.name.from_text(name) for name in ("lab.example", "corp.example")]
    assert query_names(SERVICE, resolver) == ["_kms-fast._tcp.corp.example.", "_kms-fast._tcp.lab.example."]
    assert query_names(Service(SERVICE.name, "set.example."), resolver) == ["_kms-fast._tcp.set.example."]


Find = Callable[..., list[HostAddress]]


@pytest.fixture(params=["blocking", "asyncio"])
def find(request: pytest.FixtureRequest) -> Find:
    """Looks a service up at a name server that has this zone, blocking or with asyncio."""

    def configure(resolver: dns.resolver.BaseResolver, port: int) -> None:
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = port
        resolver.domain = dns.name.from_text("corp.example")
        resolver.search = [dns.name.from_text("lab.example")]

    async def find_async(service: Service, port: int) -> list[HostAddress]:
        resolver = dns.asyncresolver.Resolver(configure=False)
        configure(resolver, port)
        return await find_hosts_async(service, resolver)

    def run(zone: Zone, service: Service = SERVICE) -> list[HostAddress]:
        with serve_zone(zone) as port:
            if request.param == "asyncio":
                return asyncio.run(find_async(service, port))
            resolver = dns.resolver.Resolver(configure=False)
            configure(resolver, port)
            return find_hosts(service, resolver)

    return run


def test_the_first_name_with_records_ends_the_search(find: Find) -> None:
    zone = {
        "_kms-fast._tcp.corp.example.": ["10 0 1688 kms.corp.example.", "5 0 1700 first.corp.example."],
        "_kms-fast._tcp.lab.example.": ["1 0 1688 never.lab.example."],
    }
    assert find(zone) == [HostAddress("first.corp.example", 1700), HostAddress("kms.corp.example", 1688)]


def test_the_search_list_is_next(find: Find) -> None:
    zone = {"_kms-fast._tcp.lab.example.": ["0 0 1688 kms.lab.example."]}
    assert find(zone) == [HostAddress("kms.lab.example")]


def test_a_set_domain_replaces_them(find: Find) -> None:
    zone = {"_kms-fast._tcp.set.example.": ["0 0 1688 kms.set.example."]}
    assert find(zone, Service(SERVICE.name, "set.example")) == [HostAddress("kms.set.example")]


def test_failures_name_what_was_asked_for_and_why(find: Find) -> None:
    zone: Zone = {"_kms-fast._tcp.corp.example.": [], "_kms-fast._tcp.lab.example.": ["0 0 0 ."]}
    with pytest.raises(NoHost) as caught:
        find(zone)
    assert caught.value.result.name == "NO_SRV_RECORD"
    assert caught.value.details["names"] == {
        "_kms-fast._tcp.corp.example.": "the name has no SRV record",
        "_kms-fast._tcp.lab.example.": "the service is not offered here",
    }
    assert "_kms-fast._tcp.lab.example." in caught.value.message


def test_a_name_that_does_not_exist_and_a_server_that_fails(find: Find) -> None:
    zone = {"_kms-fast._tcp.corp.example.": dns.rcode.SERVFAIL}
    with pytest.raises(NoHost) as caught:
        find(zone)
    assert caught.value.result.name == "DNS_UNANSWERED"
    assert caught.value.message.startswith("No name server answered for _kms-fast._tcp.corp.example.")
    names = caught.value.details["names"]
    assert names["_kms-fast._tcp.lab.example."] == "the name does not exist"
    assert "SERVFAIL" in names["_kms-fast._tcp.corp.example."]


def test_servers_that_give_no_answer_do_not_say_that_there_is_no_record(find: Find) -> None:
    zone = {f"_kms-fast._tcp.{name}.example.": dns.rcode.REFUSED for name in ("corp", "lab")}
    with pytest.raises(NoHost, match=r"No name server answered for .*corp.*REFUSED.*lab.*REFUSED") as caught:
        find(zone)
    assert caught.value.result.hex == "0x8007232A"
    assert caught.value.details["names"].keys() == zone.keys()


def test_a_server_that_is_silent(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(srv, "LOOKUP_S", 0.1)
    with pytest.raises(NoHost, match="did not answer in time") as caught:
        find({f"_kms-fast._tcp.{name}.example.": None for name in ("corp", "lab")})
    assert caught.value.result.name == "DNS_UNANSWERED"


def test_a_machine_without_domains_is_told() -> None:
    with pytest.raises(NoHost, match="no DNS domain") as caught:
        find_hosts(SERVICE, dns.resolver.Resolver(configure=False))
    assert caught.value.details["names"] == {}
