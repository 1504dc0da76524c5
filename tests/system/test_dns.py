"""Hosts, clients and a name server on a machine with a network of its own: published, found, audited, withdrawn.

Everything is as users have it: port 53, the machine's resolv.conf and name, ``kms-fast`` commands and a running host.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kms_fast.results import BY_NAME
from tests.client.world import make_client_home
from tests.host.running import log_of, wait_for
from tests.hosts import Realm, make_realm, run_cli, serve
from tests.machine import Machine
from tests.name_servers import NAME, SERVICE, NameServer

RESOLV = "nameserver 192.0.2.53\nsearch example.com\n"
HOSTS = {"ns1": "192.0.2.53", "kms": "192.0.2.7", "kms2": "192.0.2.8", "evil": "192.0.2.9", "licensed": "192.0.2.10"}
ZONE = """\
$TTL 300
@ IN SOA ns1.example.com. hostmaster.example.com. 1 3600 900 604800 60
@ IN NS ns1
six IN AAAA 2001:db8::7
""" + "".join(f"{name} IN A {address}\n" for name, address in HOSTS.items())
ADDRESSES = [*(f"{address}/32" for address in HOSTS.values()), "2001:db8::7/128"]

Start = Callable[..., NameServer]


@pytest.fixture
def machine(start_machine: Callable[..., Machine]) -> Machine:
    """``kms.example.com``, with all of the addresses and the name server's in its resolv.conf."""
    return start_machine("kms.example.com", ADDRESSES, RESOLV)


@pytest.fixture
def serve_zone(machine: Machine, start_name_server: Start) -> Start:
    """Call it with SRV records, and ``bind9`` or ``knot``: starts the machine's name server."""

    def start(*records: str, kind: str = "knot", service: str = SERVICE) -> NameServer:
        zone = ZONE + "".join(f"{service} IN SRV {record}\n" for record in records)
        return start_name_server(
            kind, {"example.com": zone}, address=HOSTS["ns1"], port=53, prefix=machine.prefix, service=service
        )

    return start


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return make_realm(tmp_path / "realm")


def activate(machine: Machine, folder: Path, realm: Realm) -> dict[str, Any]:
    """A new client that is told nothing of hosts, and what its activation says."""
    return run_cli("client", "activate", home=make_client_home(folder, realm), prefix=machine.prefix)[1]


@contextmanager
def foreign_server(machine: Machine, address: str, port: int = 1688) -> Iterator[None]:
    """An RPC server of somebody else."""
    program = [sys.executable, str(Path(__file__).with_name("foreign_server.py")), address, str(port)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([*machine.prefix, *program], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "listening\n"
        yield
        process.kill()


def serve_at(machine: Machine, realm: Realm, name: str, *options: str) -> Any:
    """A running host at the address of a name."""
    address = "[2001:db8::7]" if name == "six" else HOSTS[name]
    return serve(realm, *options, listen=f"{address}:1688", prefix=machine.prefix)


@pytest.mark.parametrize("kind", ["bind9", "knot"])
def test_a_host_publishes_itself_and_a_client_finds_it(
    machine: Machine, serve_zone: Start, realm: Realm, tmp_path: Path, kind: str
) -> None:
    server = serve_zone(kind=kind)
    told = activate(machine, tmp_path / "early", realm)
    assert (told["code"], told["details"]["names"]) == ("0x8007232B", {NAME: "the name does not exist"})
    with serve_at(machine, realm, "kms", "--dns-domain", "example.com:10:5", "--dns-key", str(server.key)) as host:
        wait_for(lambda: "12294 example.com" in log_of(host))
        assert server.ask(NAME) == ["10 5 1688 kms.example.com."]
        assert activate(machine, tmp_path / "client", realm)["cached_host"] == "kms.example.com:1688"
        assert "12293" not in log_of(host)
        # A restart must not send clients away.
        assert host.stop() == 0
    assert server.ask(NAME) == ["10 5 1688 kms.example.com."]
    code, told, _ = run_cli("host", "withdraw-dns", "--key", server.key, home=realm.home, prefix=machine.prefix)
    assert (code, told["domains"][0]["removed"]) == (0, ["10 5 1688 kms.example.com."])
    assert server.ask(NAME) == []


def test_the_record_of_a_host_whose_name_is_gone_is_withdrawn(
    start_machine: Callable[..., Machine], start_name_server: Start, realm: Realm
) -> None:
    machine = start_machine("gone.example.com", ADDRESSES, RESOLV)
    zone = f"{ZONE}{SERVICE} IN SRV 0 0 1688 gone.example.com.\n"
    server = start_name_server("knot", {"example.com": zone}, address=HOSTS["ns1"], port=53, prefix=machine.prefix)
    command = ("withdraw-dns", "--domain", "example.com", "--key", server.key)
    code, told, _ = run_cli("host", *command, home=realm.home, prefix=machine.prefix)
    assert (code, told["domains"][0]["removed"]) == (0, ["0 0 1688 gone.example.com."])
    assert server.ask(NAME) == []


def test_a_host_that_cannot_publish_says_so_and_serves(
    machine: Machine, serve_zone: Start, realm: Realm, tmp_path: Path
) -> None:
    server = serve_zone()
    config = tmp_path / "kms-fast.toml"
    config.write_text('dns_domain = ["example.com"]\n')
    with serve_at(machine, realm, "kms", "--config", str(config)) as host:
        wait_for(lambda: "12293 " in log_of(host))
        (line,) = [line for line in log_of(host).splitlines() if "12293" in line]
        assert f"12293 {BY_NAME['DNS_UPDATE_REFUSED'].hex},example.com: " in line
        assert "By hand: _kms-fast._tcp.example.com. 3600 IN SRV 0 0 1688 kms.example.com." in line
        assert server.ask(NAME) == []
        # A reload with a key mends it, without waiting for the next attempt.
        config.write_text(f'dns_domain = ["example.com"]\ndns_key = "{server.key}"\n')
        assert run_cli("host", "reload", home=realm.home)[0] == 0
        wait_for(lambda: "12294 example.com" in log_of(host))
        assert server.ask(NAME) == ["0 0 1688 kms.example.com."]
        assert host.stop() == 0


def test_a_host_tells_what_is_wrong_with_the_others_once(
    machine: Machine, serve_zone: Start, realm: Realm, tmp_path: Path
) -> None:
    server = serve_zone("0 0 1688 gone.example.com.", "0 0 1688 kms2.example.com.")
    options = ("--dns-domain", "example.com", "--dns-key", str(server.key))
    with serve_at(machine, realm, "kms", *options) as host:
        wait_for(lambda: log_of(host).count("DNS record ") >= 2)
        # What a look finds is logged before the next one publishes.
        for looks in (2, 3):
            run_cli("host", "reload", home=realm.home)
            wait_for(lambda looks=looks: log_of(host).count("12294") == looks)
        lines = [line for line in log_of(host).splitlines() if "DNS record " in line]
        assert host.stop() == 0
    assert [line.partition("DNS record ")[2].partition(":")[0] for line in lines] == [
        "gone.example.com",
        "kms2.example.com",
    ]
    assert "its name does not resolve" in lines[0]
    said = "DNS record kms2.example.com:1688 of _kms-fast._tcp.example.com: stale, Connection refused. Start that host"
    assert said in lines[1]


def test_commands_need_nothing_but_the_key(machine: Machine, serve_zone: Start, realm: Realm) -> None:
    server = serve_zone()
    code, told, _ = run_cli("host", "publish-dns", "--key", server.key, home=realm.home, prefix=machine.prefix)
    assert code == 0
    (domain,) = told["domains"]
    assert domain["record"] == "_kms-fast._tcp.example.com. 3600 IN SRV 0 0 1688 kms.example.com."
    assert (domain["zone"], domain["server"]) == ("example.com", "ns1.example.com:53")
    assert server.ask(NAME) == ["0 0 1688 kms.example.com."]


def test_a_domain_that_fails_holds_up_no_other(machine: Machine, serve_zone: Start, realm: Realm) -> None:
    server = serve_zone()
    command = ("host", "publish-dns", "--key", server.key, "--domain", "other.test", "--domain", "example.com:1:2")
    code, told, _ = run_cli(*command, home=realm.home, prefix=machine.prefix)
    assert (code, told["name"]) == (1, "DNS_ZONE_NOT_FOUND")
    assert [failed["details"]["domain"] for failed in told["details"]["failed"]] == ["other.test"]
    assert [done["domain"] for done in told["details"]["done"]] == ["example.com"]
    assert "Done: example.com" in told["message"]
    assert server.ask(NAME) == ["1 2 1688 kms.example.com."]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kms", "is not a full name"),
        ("localhost.localdomain", "This machine's name is localhost.localdomain"),
        ("nobody.example.com", "has no address in DNS"),
    ],
)
def test_a_name_that_clients_could_not_use_is_not_published(
    machine: Machine, serve_zone: Start, realm: Realm, name: str, said: str
) -> None:
    server = serve_zone()
    subprocess.run([*machine.prefix, "hostname", name], check=True, timeout=30)
    code, told, _ = run_cli("host", "publish-dns", "--key", server.key, home=realm.home, prefix=machine.prefix)
    assert (code, told["name"]) == (1, "DNS_TARGET_INVALID")
    assert said in told["message"]
    assert "dns_target" in told["cure"]
    assert server.ask(NAME) == []


def test_a_key_file_that_others_may_read_is_not_used(machine: Machine, serve_zone: Start, realm: Realm) -> None:
    server = serve_zone()
    server.key.chmod(0o644)
    code, told, _ = run_cli("host", "publish-dns", "--key", server.key, home=realm.home, prefix=machine.prefix)
    assert (code, told["name"]) == (1, "CONFIGURATION_INVALID")
    assert "0644" in told["message"]


def test_an_audit_tells_every_kind_of_record(machine: Machine, serve_zone: Start, tmp_path: Path) -> None:
    realm = make_realm(tmp_path / "realm", revoked=[2])
    rogue, revoked = make_realm(tmp_path / "rogue", owner="evil "), make_realm(tmp_path / "six", serial=2)
    serve_zone(*(f"0 0 1688 {name}.example.com." for name in ("kms", "kms2", "evil", "licensed", "gone", "six")))
    with ExitStack() as running:
        running.enter_context(serve_at(machine, realm, "kms"))
        running.enter_context(serve_at(machine, rogue, "evil"))
        running.enter_context(serve_at(machine, revoked, "six"))
        running.enter_context(foreign_server(machine, HOSTS["licensed"]))
        code, told, _ = run_cli("host", "audit-dns", home=realm.home, prefix=machine.prefix)
    assert (code, told["name"]) == (1, "DNS_RECORDS_WRONG")
    records = {record["host"].partition(".")[0]: record for record in told["details"]["records"]}
    assert {name: record["condition"] for name, record in records.items()} == {
        "kms": "ok",
        "kms2": "stale",
        "evil": "rogue",
        "licensed": "foreign",
        "gone": "stale",
        "six": "rogue",
    }
    assert records["gone"]["cure"].endswith(
        "kms-fast host withdraw-dns --domain example.com --target gone.example.com --port 1688"
    )
    assert "does not resolve" in records["gone"]["text"]
    assert "root key" in records["evil"]["text"]
    assert "revoked" in records["six"]["text"]


def test_an_audit_at_another_server_finds_the_hosts_there_too(
    machine: Machine, serve_zone: Start, realm: Realm
) -> None:
    """Clients of that server have no other; what it is not responsible for, this machine's may know."""
    serve_zone("0 0 1688 kms.example.com.", "0 0 1688 gone.example.com.", "0 0 1688 localhost.")
    machine.set_resolv("nameserver 192.0.2.8\n")
    server = ("--server", "192.0.2.53", "--domain", "example.com")
    with serve_at(machine, realm, "kms"):
        _, told, _ = run_cli("host", "audit-dns", *server, home=realm.home, prefix=machine.prefix)
    records = {record["host"].partition(":")[0]: record for record in told["details"]["records"]}
    assert {name: (record["condition"], record["text"]) for name, record in records.items()} == {
        "kms.example.com": ("ok", "a host that the publisher certified"),
        "gone.example.com": ("stale", "its name has no address"),
        "localhost": ("stale", "Connection refused"),
    }


def test_an_audit_of_good_records_is_quiet(machine: Machine, serve_zone: Start, realm: Realm) -> None:
    serve_zone("0 0 1688 kms.example.com.")
    with serve_at(machine, realm, "kms"):
        code, told, _ = run_cli("host", "audit-dns", home=realm.home, prefix=machine.prefix)
        assert (code, [record["condition"] for record in told["records"]]) == (0, ["ok"])
        domains = ("--domain", "example.com", "--domain", "other.test")
        code, told, _ = run_cli("host", "audit-dns", *domains, home=realm.home, prefix=machine.prefix)
    assert (code, told["name"]) == (1, "NO_SRV_RECORD")
    assert [record["condition"] for record in told["details"]["records"]] == ["ok"]
    assert list(told["details"]["names"]) == ["_kms-fast._tcp.other.test."]
    assert "No record of _kms-fast._tcp.other.test. was found: " in told["message"]


def test_the_records_of_a_licensed_host_are_left_alone(machine: Machine, serve_zone: Start, realm: Realm) -> None:
    server = serve_zone("0 0 1688 licensed.example.com.")
    publish = ("host", "publish-dns", "--key", server.key)
    with foreign_server(machine, HOSTS["licensed"]):
        code, told, _ = run_cli(*publish, home=realm.home, prefix=machine.prefix)
        assert (code, told["name"]) == (1, "DNS_SET_FOREIGN")
        assert server.ask(NAME) == ["0 0 1688 licensed.example.com."]
        code, told, _ = run_cli(*publish, "--share", home=realm.home, prefix=machine.prefix)
        assert (code, [found["condition"] for found in told["domains"][0]["beside"]]) == (0, ["foreign"])
    # When it is dead nothing says whose it was: that is told, and no reason to refuse.
    code, told, _ = run_cli(*publish, home=realm.home, prefix=machine.prefix)
    assert (code, [found["condition"] for found in told["domains"][0]["beside"]]) == (0, ["stale"])
    assert len(server.ask(NAME)) == 2


def test_under_a_name_known_from_another_vendor_it_is_the_same(
    machine: Machine, serve_zone: Start, tmp_path: Path
) -> None:
    service = "_vlmcs._tcp"
    realm = make_realm(tmp_path / "realm", service=service)
    server = serve_zone("0 0 1688 licensed.example.com.", service=service)
    publish = ("host", "publish-dns", "--key", server.key)
    with foreign_server(machine, HOSTS["licensed"]), serve_at(machine, realm, "kms"):
        assert run_cli(*publish, home=realm.home, prefix=machine.prefix)[1]["name"] == "DNS_SET_FOREIGN"
        assert run_cli(*publish, "--share", home=realm.home, prefix=machine.prefix)[0] == 0
        assert len(server.ask(f"{service}.example.com.")) == 2
        assert activate(machine, tmp_path / "client", realm)["cached_host"] == "kms.example.com:1688"


def test_a_client_passes_over_what_is_no_host_of_its_publisher(
    machine: Machine, serve_zone: Start, realm: Realm, tmp_path: Path
) -> None:
    first = ["gone", "kms2", "licensed", "evil"]
    serve_zone(*(f"{place} 0 1688 {name}.example.com." for place, name in enumerate([*first, "kms"])))
    rogue = make_realm(tmp_path / "rogue", owner="evil ")
    with foreign_server(machine, HOSTS["licensed"]), serve_at(machine, rogue, "evil"):
        with serve_at(machine, realm, "kms"):
            assert activate(machine, tmp_path / "client", realm)["cached_host"] == "kms.example.com:1688"
        told = activate(machine, tmp_path / "other-client", realm)
    outcomes = [(host["host"].partition(".")[0], host["outcome"]) for host in told["details"]["hosts"]]
    assert outcomes == [
        ("gone", "unreachable"),
        ("kms2", "unreachable"),
        ("licensed", "foreign"),
        ("evil", "rejected"),
        ("kms", "unreachable"),
    ]
    assert told["name"] == "ROOT_UNKNOWN"


def test_a_foreign_host_is_passed_over_silently(
    machine: Machine, serve_zone: Start, realm: Realm, tmp_path: Path
) -> None:
    serve_zone("0 0 1688 licensed.example.com.", "1 0 1688 kms.example.com.")
    with foreign_server(machine, HOSTS["licensed"]):
        told = activate(machine, tmp_path / "client", realm)
    assert told["name"] == "NO_HOST_REACHED"
    assert "licensed" not in told["message"]
    assert "kms.example.com:1688: Connection refused" in told["message"]
    assert [host["outcome"] for host in told["details"]["hosts"]] == ["foreign", "unreachable"]


def test_when_only_a_foreign_host_is_there_it_is_named(
    machine: Machine, serve_zone: Start, realm: Realm, tmp_path: Path
) -> None:
    serve_zone("0 0 1688 licensed.example.com.")
    with foreign_server(machine, HOSTS["licensed"]):
        told = activate(machine, tmp_path / "client", realm)
    assert "licensed.example.com:1688: another RPC service answers there" in told["message"]


def test_a_host_that_has_only_an_ipv6_address(
    machine: Machine, serve_zone: Start, realm: Realm, tmp_path: Path
) -> None:
    serve_zone("0 0 1688 six.example.com.")
    with serve_at(machine, realm, "six"):
        assert activate(machine, tmp_path / "client", realm)["cached_host"] == "six.example.com:1688"


def test_the_search_list_of_the_machine(machine: Machine, serve_zone: Start, realm: Realm, tmp_path: Path) -> None:
    serve_zone("0 0 1688 kms.example.com.")
    machine.set_resolv("nameserver 192.0.2.53\nsearch nothing.example.com lab.example.com example.com\n")
    with serve_at(machine, realm, "kms"):
        assert activate(machine, tmp_path / "client", realm)["cached_host"] == "kms.example.com:1688"


@pytest.mark.parametrize(
    ("resolv", "names"),
    [
        (
            "nameserver 192.0.2.8\nsearch example.com\n",
            {NAME: "the name server 192.0.2.8 did not answer in time"},
        ),
        (
            "nameserver 192.0.2.53\nsearch other.test\n",
            {f"{SERVICE}.other.test.": "the name server 192.0.2.53 answered REFUSED"},
        ),
    ],
)
def test_a_name_server_that_is_down_or_refuses(
    machine: Machine, serve_zone: Start, realm: Realm, tmp_path: Path, resolv: str, names: dict[str, str]
) -> None:
    serve_zone("0 0 1688 kms.example.com.")
    machine.set_resolv(resolv)
    # The domain of a machine's name comes before its search list.
    subprocess.run([*machine.prefix, "hostname", "client"], check=True, timeout=30)
    told = activate(machine, tmp_path / "client", realm)
    assert (told["code"], told["details"]["names"]) == ("0x8007232A", names)
    assert next(iter(names)) in told["message"]


def test_a_clock_that_the_name_server_does_not_accept(
    machine: Machine, serve_zone: Start, realm: Realm, require_tool: Callable[[str], str]
) -> None:
    server = serve_zone(kind="bind9")
    prefix: Sequence[str] = [*machine.prefix, require_tool("faketime"), "+1 hour"]
    code, told, _ = run_cli("host", "publish-dns", "--key", server.key, home=realm.home, prefix=prefix)
    assert (code, told["name"]) == (1, "DNS_CLOCKS_DIFFER")
    assert server.ask(NAME) == []
