"""A client written from the pages alone, against a real ``kms-fast serve`` process."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.hosts import PUBLISHER_ID, RunningHost, make_realm, serve
from tests.reference.certificate import Revocations, build_query, revocations_problem
from tests.reference.rpc import GET_REVOCATIONS, Connection, Context, Refused, syntax
from tests.reference.verify import HOUR_MS
from tests.system.asker import Asker, now_ms

CANNOT_SERVE, COUNT_TOO_LOW, CLOCKS_DIFFER = 0xC004F042, 0xC004F038, 0xC004F06C
REQUEST_UNREADABLE, PRODUCT_UNKNOWN = 0xE04B0001, 0xE04B0002


@pytest.fixture
def connection(real_host: RunningHost) -> Iterator[Connection]:
    """A bound connection to the session's host."""
    with Connection(real_host.address) as connection:
        assert connection.bind() == [(0, 0)]
        yield connection


def test_a_thousand_leases_verify(real_host: RunningHost) -> None:
    asker = Asker.of(real_host.realm, "desktop")

    def ask_many(_: int) -> list[tuple[int, int, int]]:
        asked = [asker.ask() for _ in range(250)]
        with Connection(real_host.address) as connection:
            connection.bind()
            answers = connection.call_many([one.request for one in asked])
        verified = [
            asker.check(one, answer) for one, (answer, result) in zip(asked, answers, strict=True) if not result
        ]
        assert len({one.leaf_hash for one in verified}) == 250
        return [(one.leaf.result, one.header.number, one.header.tree_size) for one in verified]

    with ThreadPoolExecutor(4) as pool:
        leases = [lease for part in pool.map(ask_many, range(4)) for lease in part]
    assert [result for result, _, _ in leases] == [0] * 1000
    # Requests that arrive together share a batch, so some proof had a path.
    assert max(size for _, _, size in leases) > 1


def test_a_lease_says_what_the_catalog_says(real_host: RunningHost, connection: Connection) -> None:
    asker, before = Asker.of(real_host.realm, "desktop"), now_ms()
    asked = asker.ask()
    verified = asker.check(asked, connection.call(asked.request)[0])
    sku, leaf = real_host.realm.skus["desktop"], verified.leaf
    assert (leaf.result, leaf.family_index, leaf.generation, leaf.validity) == (0, 0, 3, sku.validity_min)
    assert (leaf.activation_interval, leaf.renewal_interval) == (sku.activation_interval_min, sku.renewal_interval_min)
    assert (leaf.threshold, verified.header.serial) == (1, 1)
    assert before <= verified.header.time <= now_ms()


def test_the_same_bytes_get_a_lease_again(real_host: RunningHost, connection: Connection) -> None:
    asker = Asker.of(real_host.realm, "desktop")
    asked = asker.ask()
    first, second = (asker.check(asked, connection.call(asked.request)[0]) for _ in range(2))
    assert first.leaf.request_hash == second.leaf.request_hash
    assert first.header.number < second.header.number
    assert first.header.time <= second.header.time


def test_a_request_in_small_fragments(real_host: RunningHost, connection: Connection) -> None:
    asker = Asker.of(real_host.realm, "desktop")
    asked = asker.ask()
    assert asker.check(asked, connection.call(asked.request, fragment=48)[0]).leaf.result == 0


@pytest.mark.parametrize(("name", "family_index"), [("server", 255), ("newer", 0)])
def test_a_product_not_certified(real_host: RunningHost, connection: Connection, name: str, family_index: int) -> None:
    asker = Asker.of(real_host.realm, name)
    asked = asker.ask()
    leaf = asker.check(asked, connection.call(asked.request)[0]).leaf
    assert (leaf.result, leaf.family_index, leaf.validity) == (CANNOT_SERVE, family_index, 0)
    assert leaf.generation == real_host.realm.skus[name].generation


@pytest.mark.parametrize("hours", [5, -5])
def test_a_clock_five_hours_off(real_host: RunningHost, connection: Connection, hours: int) -> None:
    asker = Asker.of(real_host.realm, "desktop")
    client_time = now_ms() + hours * HOUR_MS
    asked = asker.ask(client_time=client_time)
    leaf = asker.check(asked, connection.call(asked.request)[0]).leaf
    assert (leaf.result, leaf.client_time, leaf.validity) == (CLOCKS_DIFFER, client_time, 0)


def test_a_clock_a_little_less_than_four_hours_off(real_host: RunningHost, connection: Connection) -> None:
    asker = Asker.of(real_host.realm, "desktop")
    asked = asker.ask(client_time=now_ms() - 4 * HOUR_MS + 60_000)
    assert asker.check(asked, connection.call(asked.request)[0]).leaf.result == 0


def test_a_wrong_setup_key(real_host: RunningHost, connection: Connection) -> None:
    asked = Asker.of(real_host.realm, "desktop", secret=b"not-secret").ask()
    assert connection.call(asked.request) == (None, REQUEST_UNREADABLE)


def test_an_unknown_product(real_host: RunningHost, connection: Connection) -> None:
    asker = Asker.of(real_host.realm, "desktop")
    unknown = asker.product._replace(keys=asker.product.keys._replace(sku_id=b"unknown product."))
    assert connection.call(Asker(unknown).ask().request) == (None, PRODUCT_UNKNOWN)


def test_unreadable_requests(real_host: RunningHost, connection: Connection) -> None:
    request = Asker.of(real_host.realm, "desktop").ask().request
    for bad in (b"", request[:-1], request + b"\0", bytes([2]) + request[1:], request[:-1] + bytes([request[-1] ^ 1])):
        assert connection.call(bad) == (None, REQUEST_UNREADABLE)
    for change in ({"licence_state": 4}, {"virtual_machine": 2}, {"reserved": 1}, {"name": b"\x1b[2J"}):
        asked = Asker.of(real_host.realm, "desktop").ask(**change)
        assert connection.call(asked.request) == (None, REQUEST_UNREADABLE)
    no_cmid = Asker.of(real_host.realm, "desktop").ask(cmid=bytes(16))
    assert connection.call(no_cmid.request) == (None, REQUEST_UNREADABLE)


def test_nobody_has_revoked_anything(connection: Connection) -> None:
    assert connection.call(build_query(0), GET_REVOCATIONS) == (None, 0)


def test_a_host_hands_out_its_revocation_list(tmp_path: Path) -> None:
    realm = make_realm(tmp_path, revoked=[5, 77])
    asker = Asker.of(realm, "desktop")
    with serve(realm) as host, Connection(host.address) as connection:
        connection.bind()
        asked = asker.ask()
        header = asker.check(asked, connection.call(asked.request)[0]).header
        data, result = connection.call(build_query(0), GET_REVOCATIONS)
        known = [connection.call(build_query(number), GET_REVOCATIONS) for number in (1, 2, 2**32 - 1)]
    assert (header.revocation_list, result, known) == (1, 0, [(None, 0)] * 3)
    assert data
    assert revocations_problem(data, [realm.root], PUBLISHER_ID, 0) is None
    assert Revocations.parse(data).serials == (5, 77)


@pytest.mark.parametrize(
    "query",
    [
        b"",
        build_query(0)[:-1],
        build_query(0) + b"\0",
        bytes([2, 3, 0, 0, 0, 0, 0, 0]),
        bytes([1, 1, 0, 0, 0, 0, 0, 0]),
        bytes([1, 3, 1, 0, 0, 0, 0, 0]),
    ],
    ids=bytes.hex,
)
def test_malformed_queries(connection: Connection, query: bytes) -> None:
    assert connection.call(query, GET_REVOCATIONS) == (None, REQUEST_UNREADABLE)


def test_another_interface_is_refused_and_ours_goes_on(real_host: RunningHost) -> None:
    foreign = Context(0, syntax("6a2f3c1e-0000-4000-8000-0123456789ab", 1, 0))
    asker = Asker.of(real_host.realm, "desktop")
    with Connection(real_host.address) as connection:
        assert connection.bind([foreign, Context(1)]) == [(2, 1), (0, 0)]
        asked = asker.ask()
        with pytest.raises(Refused) as refused:
            connection.call(asked.request, context_id=0)
        assert refused.value.status == 0x1C010003
        assert asker.check(asked, connection.call(asked.request, context_id=1)[0]).leaf.result == 0


def test_the_twenty_fifth_machine_is_granted(tmp_path: Path) -> None:
    realm = make_realm(tmp_path, threshold=25)
    asker = Asker.of(realm, "desktop")
    with serve(realm) as host, Connection(host.address) as connection:
        connection.bind()
        asked = [asker.ask() for _ in range(26)]
        # A machine that asks twice counts once; one with a wrong clock, or of a product not certified, not at all.
        asked.insert(7, asked[3])
        late, other = asker.ask(client_time=now_ms() - 5 * HOUR_MS), Asker.of(realm, "newer").ask()
        assert asker.check(late, connection.call(late.request)[0]).leaf.result == CLOCKS_DIFFER
        connection.call(other.request)
        leaves = [asker.check(one, connection.call(one.request)[0]).leaf for one in asked]
    assert [leaf.current_count for leaf in leaves] == [*range(1, 8), 7, *range(8, 27)]
    assert [leaf.result for leaf in leaves] == [COUNT_TOO_LOW] * 25 + [0, 0]
    assert {leaf.threshold for leaf in leaves} == {25}


def test_the_count_stops_at_its_cap_and_survives_a_restart(tmp_path: Path) -> None:
    realm = make_realm(tmp_path, threshold=3)
    asker = Asker.of(realm, "desktop")

    def counts(number: int) -> list[int]:
        with serve(realm) as host, Connection(host.address) as connection:
            connection.bind()
            asked = [asker.ask() for _ in range(number)]
            answers = connection.call_many([one.request for one in asked])
            found = [asker.check(one, answer).leaf for one, (answer, _) in zip(asked, answers, strict=True)]
            assert host.stop() == 0
        assert {leaf.family_index for leaf in found} == {0}
        return [leaf.current_count for leaf in found]

    assert counts(2) == [1, 2]
    assert counts(7) == [3, 4, 5, 6, 6, 6, 6]
    assert counts(1) == [6]


def test_what_clients_were_told_is_in_the_ledger(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    asked = [asker.ask() for _ in range(40)]
    with serve(realm) as host:
        with Connection(host.address) as connection:
            connection.bind()
            answers = connection.call_many([one.request for one in asked])
        told = [asker.check(one, answer) for one, (answer, _) in zip(asked, answers, strict=True)]
        assert host.stop() == 0
    command = [sys.executable, "-m", "kms_fast", "ledger", "export", "--home", str(realm.home)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    expected = {(one.leaf.request_hash.hex(), f"{one.header.segment}/{one.header.number}") for one in told}
    assert {(record["request_hash"], record["batch"]) for record in records} == expected
    assert len(records) == 40
