"""What shows the state of a home that may be read and not written."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from tests.client.world import make_client_home
from tests.faked import protect
from tests.hosts import Realm, run_cli, serve
from tests.reference.rpc import Connection
from tests.system.asker import Asker


@pytest.fixture
def only_reading(realm: Realm, tmp_path: Path, unavailable: Callable[[str], NoReturn]) -> Sequence[str]:
    return protect(tmp_path, unavailable)


def test_a_host(realm: Realm, only_reading: Sequence[str], free_port: int) -> None:
    with serve(realm) as host:
        with Connection(host.address) as connection:
            connection.bind()
            connection.call(Asker.of(realm, "desktop").ask().request)
        # A host that runs has the files with which SQLite lets several read; one that was stopped has not.
        for running in (True, False):
            code, told, _ = run_cli("host", "status", "--verbose", home=realm.home, prefix=only_reading)
            assert (code, sum(family["count"] for family in told["families"].values())) == (0, 1)
            assert len(told["running"]) == int(running)
            if running:
                assert host.stop() == 0
                # As a host leaves it that is killed.
                (realm.home / "host" / "serve-1.json").write_text("{}")
    assert told["requests"]["all"] == 1
    assert len(run_cli("inventory", "list", home=realm.home, prefix=only_reading)[1]["clients"]) == 1
    checks = run_cli("doctor", home=realm.home, prefix=only_reading)[1]["checks"]
    found = {finding["check"]: (finding["verdict"], finding["what"]) for finding in checks}
    assert found["port"][0] == "warning"
    assert found["store"][0] == "warning"
    assert "not written" in found["store"][1]
    assert (realm.home / "host" / "serve-1.json").exists()


def test_backups_of_a_host(realm: Realm, only_reading: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    with serve(realm) as host:
        assert host.stop() == 0
    folder = tmp_path_factory.mktemp("backups")
    for command in (("host", "backup", folder / "a.tar"), ("store", "backup", folder / "a.db"), ("store", "check")):
        assert run_cli(*command, home=realm.home, prefix=only_reading)[0] == 0


def test_a_client(tmp_path: Path, realm: Realm, only_reading: Sequence[str]) -> None:
    home = make_client_home(tmp_path / "client-home", realm)
    for command in ("status", "expiry", "history"):
        code, told, _ = run_cli("client", command, home=home, prefix=only_reading)
        assert (code, len(told["products"])) == (0, 1)
    (home / "client" / "state.json").write_text("{")
    code, told, _ = run_cli("client", "status", home=home, prefix=only_reading)
    assert (code, told["name"]) == (1, "CONFIGURATION_INVALID")
    assert "it was left as it is" in told["message"]
