"""Looking hosts up at real name servers: order, long answers, search list, and what goes wrong."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import dns.flags
import dns.message
import dns.query
import pytest

from kms_fast.discovery.address import HostAddress
from kms_fast.discovery.srv import Service, find_hosts, find_hosts_async, order_records
from kms_fast.errors import NoHost
from tests.name_servers import NAME, SERVICE, ZONE, NameServer

# With this bound a right distribution is refused once in a thousand draws of numbers; those of the tests are fixed.
CHI_SQUARED = {1: 10.83, 2: 13.82, 3: 16.27}
DRAWS = 6_000

Find = Callable[..., list[HostAddress]]
StartServer = Callable[..., NameServer]


@pytest.fixture(params=["blocking", "asyncio"])
def find(request: pytest.FixtureRequest) -> Find:
    """Looks the service up at a server, blocking or with asyncio."""

    def run(server: NameServer, service: Service | None = None, *, search: Sequence[str] = ()) -> list[HostAddress]:
        service = service or Service(SERVICE)
        if request.param == "blocking":
            return find_hosts(service, server.resolver(search=search))
        return asyncio.run(find_hosts_async(service, server.async_resolver(search=search)))

    return run


def publish(*records: str, zone: str = ZONE) -> dict[str, str]:
    """The zone with these SRV records."""
    return {"example.com": zone + "".join(f"{SERVICE} IN SRV {record}\n" for record in records)}


def chi_squared(counted: Mapping[str, int], shares: Mapping[str, float]) -> float:
    total = sum(counted.values())
    return sum((counted.get(name, 0) - total * share) ** 2 / (total * share) for name, share in shares.items())


@pytest.mark.parametrize(
    ("records", "shares"),
    [
        (["0 60 1 a", "0 30 1 b", "0 10 1 c"], {"a": 0.6, "b": 0.3, "c": 0.1}),
        (["0 1 1 a", "0 1 1 b"], {"a": 0.5, "b": 0.5}),
        (["0 0 1 a", "0 0 1 b", "0 0 1 c", "0 0 1 d"], {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}),
        (["5 0 1 never", "0 3 1 a", "0 1 1 b"], {"a": 0.75, "b": 0.25}),
    ],
)
def test_weights_decide_how_often_a_host_is_first(
    start_name_server: StartServer, records: list[str], shares: dict[str, float]
) -> None:
    server = start_name_server("knot", publish(*records))
    answer = list(server.resolver().resolve(NAME, "SRV"))
    chance = random.Random(20_261_127)
    drawn = [order_records(answer, chance) for _ in range(DRAWS)]
    first = Counter(order[0].name.partition(".")[0] for order in drawn)
    assert first.keys() == shares.keys()
    assert chi_squared(first, shares) < CHI_SQUARED[len(shares) - 1]
    assert {len(order) for order in drawn} == {len(records)}


def test_a_wrong_distribution_would_be_seen() -> None:
    assert chi_squared({"a": 2_600, "b": 3_400}, {"a": 0.5, "b": 0.5}) > CHI_SQUARED[1]


def test_lower_priorities_come_first(name_server: NameServer, find: Find) -> None:
    name_server.stop()
    (name_server.folder / "example.com.zone").write_text(publish("20 0 3 c", "0 0 1 a", "10 99 2 b")["example.com"])
    name_server.start()
    assert list(map(str, find(name_server))) == ["a.example.com:1", "b.example.com:2", "c.example.com:3"]


@pytest.mark.parametrize("kind", ["bind9", "knot"])
def test_an_answer_too_long_for_a_datagram_comes_over_tcp(
    start_name_server: StartServer, find: Find, kind: str
) -> None:
    records = [f"{number} 0 1688 a-host-with-a-long-name-{number:03}" for number in range(90)]
    server = start_name_server(kind, publish(*records))
    datagram = dns.query.udp(dns.message.make_query(NAME, "SRV"), server.address, 10, server.port)
    assert datagram.flags & dns.flags.TC
    assert [host.name.partition(".")[0] for host in find(server)] == [record.split()[-1] for record in records]


def test_the_search_list_follows_the_domain(start_name_server: StartServer, find: Find) -> None:
    zones = {"example.com": ZONE, "lab.test": publish("0 0 1688 kms.lab.test.")["example.com"]}
    server = start_name_server("bind9", zones)
    assert find(server, search=["lab.test", "never.test"]) == [HostAddress("kms.lab.test")]
    assert find(server, Service(SERVICE, "lab.test")) == [HostAddress("kms.lab.test")]


def test_no_record_tells_each_name_and_what_it_gave(name_server: NameServer, find: Find) -> None:
    with pytest.raises(NoHost) as caught:
        find(name_server, search=["other.test"])
    assert caught.value.result.hex == "0x8007232B"
    names = caught.value.details["names"]
    assert names[NAME] == "the name does not exist"
    assert names[f"{SERVICE}.other.test."] == f"the name server 127.0.0.1 port {name_server.port} answered REFUSED"
    assert NAME in caught.value.message


def test_a_service_that_is_not_offered(start_name_server: StartServer, find: Find) -> None:
    server = start_name_server("knot", publish("0 0 0 ."))
    with pytest.raises(NoHost) as caught:
        find(server)
    assert caught.value.details["names"] == {NAME: "the service is not offered here"}


def test_a_name_with_other_records(start_name_server: StartServer, find: Find) -> None:
    server = start_name_server("bind9", {"example.com": f"{ZONE}{SERVICE} IN TXT x\n"})
    with pytest.raises(NoHost) as caught:
        find(server)
    assert caught.value.details["names"] == {NAME: "the name has no SRV record"}


def test_a_name_server_that_is_down(start_name_server: StartServer, find: Find) -> None:
    server = start_name_server("knot")
    server.stop()
    with pytest.raises(NoHost) as caught:
        find(server)
    silent = f"the name server 127.0.0.1 port {server.port} did not answer in time"
    assert caught.value.details["names"] == {NAME: silent}
