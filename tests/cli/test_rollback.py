"""A host whose ledger went back refuses to serve until that is accepted. On real processes."""

import shutil
from pathlib import Path

import pytest

from tests.hosts import Realm, make_realm, run_cli, serve
from tests.reference.rpc import Connection
from tests.system.asker import Asker


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return make_realm(tmp_path)


def activate(realm: Realm, *options: str, machines: int = 3) -> list[str]:
    """Run the host, let machines ask one after the other, and stop it in order; the batches they were told."""
    asker, batches = Asker.of(realm, "desktop"), []
    with serve(realm, *options) as host, Connection(host.address) as connection:
        connection.bind()
        for _ in range(machines):
            asked = asker.ask()
            header = asker.check(asked, connection.call(asked.request)[0]).header
            batches.append(f"{header.segment}/{header.number}")
        assert host.stop() == 0
    return batches


def refuse(realm: Realm) -> dict[str, object]:
    code, told, errors = run_cli("serve", "--listen", "127.0.0.1:0", home=realm.home)
    assert (code, told["name"]) == (1, "LEDGER_WENT_BACK")
    assert errors.endswith(" ERROR 12291 0xE04B0041\n")
    assert "--accept-rollback" in told["cure"]
    details: dict[str, object] = told["details"]
    return details


def test_an_older_ledger_is_refused_until_it_is_accepted(realm: Realm, tmp_path: Path) -> None:
    ledger = realm.home / "host" / "ledger"
    activate(realm)
    shutil.copytree(ledger, tmp_path / "older")
    (*_, last) = activate(realm)
    shutil.rmtree(ledger)
    (tmp_path / "older").rename(ledger)
    assert refuse(realm)["batch"] == last
    batches = activate(realm, "--accept-rollback")
    assert int(batches[0].partition("/")[0]) > 2, "a batch's name is never given twice"
    assert "accepted that the ledger lacks batches: those of segment 2 until 2" in (tmp_path / "serve.log").read_text()
    # Accepted once, it is not asked again.
    activate(realm)
    assert run_cli("ledger", "verify", home=realm.home)[1]["ok"]


def test_a_ledger_that_lacks_its_last_batch_is_refused(realm: Realm) -> None:
    (*_, last) = activate(realm)
    segment = realm.home / "host" / "ledger" / "segment-00000001.kfl"
    data = segment.read_bytes()
    segment.write_bytes(data[: -188 - 264])
    assert refuse(realm)["batch"] == last


def test_a_whole_ledger_is_not_refused(realm: Realm) -> None:
    """The negative control."""
    activate(realm)
    activate(realm)
