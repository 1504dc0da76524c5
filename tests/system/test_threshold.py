"""The threshold is exact: whichever worker or host a machine reaches, the 25th is the first to be granted."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest

from kms_fast.store.postgres import migrate
from tests.hosts import Realm, make_realm, serve
from tests.postgres import PostgresServer, own_database
from tests.reference.rpc import Connection
from tests.system.asker import Asker

THRESHOLD, ROUNDS = 25, 200


class Hosts(NamedTuple):
    """Running hosts of one publisher; ``reset`` empties their counts while no family is at its cap."""

    realm: Realm
    addresses: list[tuple[str, int]]
    reset: Callable[[], object]


def connect(hosts: list[tuple[str, int]], number: int) -> list[Connection]:
    """So many bound connections to the hosts in turn."""
    connections = [Connection(hosts[n % len(hosts)]) for n in range(number)]
    for connection in connections:
        connection.bind()
    return connections


@contextmanager
def run_workers(folder: Path) -> Iterator[Hosts]:
    """One host with 4 workers."""
    realm = make_realm(folder, threshold=THRESHOLD)
    with serve(realm, "--workers", "4") as host, closing(apsw.Connection(str(realm.home / "host/counts.db"))) as counts:
        yield Hosts(realm, [host.address], lambda: counts.execute("DELETE FROM counts").fetchall())


@contextmanager
def run_hosts(folder: Path, server: PostgresServer) -> Iterator[Hosts]:
    """Two hosts, each with 2 workers, on one PostgreSQL database."""
    with own_database(server) as url, ExitStack() as running:
        asyncio.run(migrate(url))
        addresses = []
        for name in ("first", "second"):
            (folder / name).mkdir()
            realm = make_realm(folder / name, threshold=THRESHOLD, host=name)
            host = running.enter_context(serve(realm, "--workers", "2", environment={"KMS_FAST_STORE": url}))
            addresses.append(host.address)
        database = url.rpartition("/")[2]
        yield Hosts(realm, addresses, lambda: server.execute("DELETE FROM kms_fast.counts", database))


@pytest.fixture(params=["workers", "hosts"])
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hosts]:
    """4 workers, or 2 hosts."""
    if request.param == "workers":
        running = run_workers(tmp_path)
    else:
        running = run_hosts(tmp_path, request.getfixturevalue("postgres_server"))
    with running as hosts:
        yield hosts


@pytest.mark.timeout(300)
def test_of_25_machines_at_once_exactly_one_is_granted(hosts: Hosts) -> None:
    asker = Asker.of(hosts.realm, "desktop")
    connections = connect(hosts.addresses, THRESHOLD)
    segments = set()
    for _ in range(ROUNDS):
        hosts.reset()
        asked = [asker.ask() for _ in connections]
        for one, connection in zip(asked, connections, strict=True):
            connection.send_call(one.request)
        verified = [
            asker.check(one, connection.take_answer()[0]) for one, connection in zip(asked, connections, strict=True)
        ]
        assert sorted(each.leaf.current_count for each in verified) == list(range(1, THRESHOLD + 1))
        granted = [each.leaf.current_count for each in verified if each.leaf.result == 0]
        assert granted == [THRESHOLD]
        segments |= {(each.header.host_id, each.header.segment) for each in verified}
    assert len(segments) > 1, "all connections met one worker"


def test_the_same_machine_a_thousand_times_counts_once(hosts: Hosts) -> None:
    asker = Asker.of(hosts.realm, "desktop")
    asked = asker.ask()
    for connection in connect(hosts.addresses, 8):
        answers = connection.call_many([asked.request] * 125)
        assert {asker.check(asked, answer).leaf.current_count for answer, _ in answers} == {1}
