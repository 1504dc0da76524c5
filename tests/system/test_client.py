"""The project's own client and command line against a real ``kms-fast serve`` process, in each situation of a user."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kms_fast import errors
from kms_fast.client import AsyncClient, Client, LicenceState
from kms_fast.client.machine import SystemClock
from kms_fast.results import BY_NAME
from tests.client.world import make_client_home
from tests.hosts import PUBLISHER_ID, SKUS, RunningHost, make_realm, run_cli, serve
from tests.reference.rpc import Connection
from tests.reference.verify import HOUR_MS, Asked
from tests.system.asker import Asker

Install = Callable[..., Path]


class ShiftedClock(SystemClock):
    """The system's clock, some hours off."""

    def __init__(self, hours: int) -> None:
        self.hours = hours

    def now_ms(self) -> int:
        return super().now_ms() + self.hours * HOUR_MS


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Call it with a host and a SKU's name: makes a client's home with the setup key, that asks this host."""

    def make(host: RunningHost, name: str = "desktop") -> Path:
        return make_client_home(tmp_path / "client-home", host.realm, name, host="{}:{}".format(*host.address))

    return make


def activate(home: Path) -> dict[str, Any]:
    """``kms-fast client activate --json``, which must fail without a traceback."""
    code, told, stderr = run_cli("client", "activate", home=home)
    assert (code, told["ok"]) == (1, False)
    assert "Traceback" not in stderr
    result = BY_NAME[told["name"]]
    assert (told["code"], told["meaning"], told["cure"]) == (result.hex, result.meaning, result.cure)
    return told


def test_command_line_activates(real_host: RunningHost, install: Install) -> None:
    home = install(real_host)
    code, told, _ = run_cli("client", "activate", home=home)
    assert (code, told["state"], told["cached_host"]) == (0, 1, "{}:{}".format(*real_host.address))
    assert told["lease"]["threshold"] == 1


def test_asyncio_client_activates(real_host: RunningHost, install: Install) -> None:
    home = install(real_host)
    lease = asyncio.run(AsyncClient(home=home).activate())
    status = Client(home=home).status()
    assert status.state == LicenceState.LICENSED
    assert status.lease
    assert status.lease.leaf_hash == lease.leaf_hash


def test_the_reference_verifies_what_the_client_stored(real_host: RunningHost, install: Install) -> None:
    client = Client(home=install(real_host))
    client.activate()
    stored = client._file.read()
    assert stored
    [product] = stored.products.values()
    assert product.lease
    leaf = client.status().lease
    assert leaf
    asked = Asked(product.lease.request, stored.cmid.bytes, leaf.leaf.hardware_digest)
    verified = Asker.of(real_host.realm, "desktop").check(asked, product.lease.answer)
    assert (verified.leaf.result, verified.leaf_hash) == (0, leaf.leaf_hash)


def test_a_wrong_setup_key(real_host: RunningHost, install: Install) -> None:
    home = install(real_host)
    Client(home=home).install_key(replace(SKUS["desktop"], secret=b"not-secret").setup_key(PUBLISHER_ID).text)
    told = activate(home)
    assert (told["name"], told["signed"]) == ("REQUEST_UNREADABLE", False)


@pytest.mark.parametrize("name", ["server", "newer"])
def test_a_product_not_certified(real_host: RunningHost, install: Install, name: str) -> None:
    told = activate(install(real_host, name))
    sku = real_host.realm.skus[name]
    assert (told["name"], told["signed"]) == ("HOST_CANNOT_SERVE", True)
    assert (told["details"]["family"], told["details"]["generation"]) == (sku.family, sku.generation)


def test_below_threshold_until_enough_have_asked(tmp_path: Path, install: Install) -> None:
    with serve(make_realm(tmp_path, threshold=3)) as host:
        home = install(host)
        told = activate(home)
        assert (told["name"], told["signed"]) == ("COUNT_TOO_LOW", True)
        assert (told["details"]["count"], told["details"]["threshold"]) == (1, 3)
        with Connection(host.address) as connection:
            connection.bind()
            connection.call_many([Asker.of(host.realm, "desktop").ask().request for _ in range(2)])
        assert Client(home=home).activate().leaf.count == 3


@pytest.mark.parametrize("hours", [5, -5])
def test_a_clock_five_hours_off(real_host: RunningHost, install: Install, hours: int) -> None:
    client = Client(home=install(real_host), clock=ShiftedClock(hours))
    with pytest.raises(errors.Refused) as raised:
        client.activate()
    error = raised.value
    assert (error.result.name, error.signed) == ("CLOCKS_DIFFER", True)
    assert error.details["client_time"] != error.details["host_time"]
    assert client.status().state == LicenceState.INITIAL_GRACE


def test_a_clock_three_hours_off_is_tolerated(real_host: RunningHost, install: Install) -> None:
    assert Client(home=install(real_host), clock=ShiftedClock(3)).activate()


def test_a_host_that_is_gone(tmp_path: Path, install: Install) -> None:
    with serve(make_realm(tmp_path)) as host:
        home = install(host)
        assert host.stop() == 0
    told = activate(home)
    assert told["name"] == "NO_HOST_REACHED"
    assert told["details"]["hosts"][0]["host"] == "{}:{}".format(*host.address)


def test_the_twenty_fifth_of_many_at_once_is_granted(tmp_path: Path) -> None:
    """25 clients at once on connections of their own: exactly one is granted, whichever came last."""
    with serve(make_realm(tmp_path, threshold=25)) as host:
        asker = Asker.of(host.realm, "desktop")
        asked = [asker.ask() for _ in range(25)]
        connections = [Connection(host.address) for _ in asked]
        for connection in connections:
            connection.bind()
        for connection, one in zip(connections, asked, strict=True):
            connection.send_call(one.request)
        answers = [connection.take_answer()[0] for connection in connections]
        leaves = [asker.check(one, answer).leaf for one, answer in zip(asked, answers, strict=True)]
        for connection in connections:
            connection.socket.close()
    assert sorted(leaf.current_count for leaf in leaves) == list(range(1, 26))
    assert [leaf.result for leaf in leaves].count(0) == 1
