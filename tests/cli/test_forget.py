"""``kms-fast inventory forget``: on a host that runs, on one that does not, and again."""

import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import Realm, make_realm, run_cli, serve
from tests.reference.rpc import Connection
from tests.system.asker import Asker

CMID = uuid.UUID("0b9e7a52-5d1c-4f0e-9d55-3c4f6c1f7a10")


def ask(address: tuple[str, int], realm: Realm) -> None:
    """One machine by its name, and another."""
    asker = Asker.of(realm, "desktop")
    asked = [asker.ask(cmid=CMID.bytes, name=b"its name"), asker.ask(name=b"another")]
    with Connection(address) as connection:
        connection.bind()
        connection.call_many([one.request for one in asked])


def clients(realm: Realm) -> list[dict[str, Any]]:
    found = run_cli("inventory", "list", home=realm.home)[1].get("clients", [])
    assert isinstance(found, list)
    return found


def wait_until_recorded(realm: Realm) -> None:
    end_s = time.monotonic() + 30
    while len(clients(realm)) < 2:
        assert time.monotonic() < end_s
        time.sleep(0.1)


def forget(realm: Realm) -> dict[str, Any]:
    code, said, _ = run_cli("inventory", "forget", str(CMID), home=realm.home)
    assert code == 0
    return said


def assert_forgotten(realm: Realm) -> None:
    names = {client["cmid"]: (client["name"], client["address"]) for client in clients(realm)}
    assert names[str(CMID)] == (None, None)
    assert ("another", "127.0.0.1") in names.values()
    for path in (realm.home / "host").rglob("*"):
        if path.is_file() and path.suffix == ".kfl":
            assert b"its name" not in path.read_bytes()
    assert run_cli("ledger", "verify", home=realm.home)[1]["chain_ok"]


def test_while_the_host_runs(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    with serve(realm) as host:
        ask(host.address, realm)
        # At once, when the recorder may or may not have got there: it must not bring the name back.
        said = forget(realm)
        assert (said["entries"], said["blanked"], said["cmid"]) == (1, 1, str(CMID))
        wait_until_recorded(realm)
        assert_forgotten(realm)
        assert forget(realm) == said | {"blanked": 0, "clients": 1}
    assert_forgotten(realm)


def test_while_it_does_not(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    with serve(realm) as host:
        ask(host.address, realm)
        assert host.stop() == 0
    assert clients(realm)[0]["name"] or clients(realm)[1]["name"]
    assert forget(realm) == {"ok": True, "cmid": str(CMID), "entries": 1, "blanked": 1, "clients": 1}
    assert_forgotten(realm)


def test_before_anything_was_recorded(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    with serve(realm) as host:
        ask(host.address, realm)
        assert host.stop() == 0
    for path in (realm.home / "host").glob("inventory.db*"):
        path.unlink()
    assert forget(realm)["blanked"] == 1
    assert forget(realm) == {"ok": True, "cmid": str(CMID), "entries": 1, "blanked": 0, "clients": 0}


@pytest.mark.parametrize("recorded", [True, False])
def test_a_machine_that_nobody_knows(tmp_path: Path, recorded: bool) -> None:
    realm = make_realm(tmp_path)
    with serve(realm) as host:
        ask(host.address, realm)
        assert host.stop() == 0
    if not recorded:
        for path in (realm.home / "host").glob("inventory.db*"):
            path.unlink()
    code, said, _ = run_cli("inventory", "forget", str(uuid.UUID(int=9)), home=realm.home)
    assert (code, said["name"], str(uuid.UUID(int=9)) in said["message"]) == (1, "MACHINE_UNKNOWN", True)


def test_a_machine_that_only_the_inventory_knows(tmp_path: Path) -> None:
    """As on each of the hosts that share it, but the one that the machine asked, and where records were pruned."""
    realm = make_realm(tmp_path)
    with serve(realm) as host:
        ask(host.address, realm)
        assert host.stop() == 0
    for path in (realm.home / "host" / "ledger").glob("*.kfl"):
        path.unlink()
    assert forget(realm) == {"ok": True, "cmid": str(CMID), "entries": 0, "blanked": 0, "clients": 1}


def test_it_is_known_again_when_it_asks_again(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    with serve(realm) as host:
        ask(host.address, realm)
        wait_until_recorded(realm)
        forget(realm)
        ask(host.address, realm)
        assert host.stop() == 0
    assert {client["name"] for client in clients(realm)} == {"its name", "another"}


@pytest.mark.parametrize("cmid", ["nonsense", ""])
def test_a_cmid_that_is_none(tmp_path: Path, cmid: str) -> None:
    code, said, _ = run_cli("inventory", "forget", cmid, home=tmp_path)
    assert (code, said["name"]) == (2, "COMMAND_INVALID")


def test_a_home_without_a_ledger(tmp_path: Path) -> None:
    code, said, _ = run_cli("inventory", "forget", str(CMID), home=tmp_path)
    assert (code, said["name"]) == (1, "CONFIGURATION_INVALID")
    assert "--home" in json.dumps(said)
