"""A host whose clock was ahead signs again after ``host clock-reset``, and its ledger says so. On real processes."""

from pathlib import Path

from tests.host.local_server import Clock, LocalServer
from tests.hosts import PUBLISHER_ID, Realm, make_realm, run_cli, serve
from tests.reference.ledger import check_ledger
from tests.reference.rpc import Connection
from tests.system.asker import Asker

DAY_MS = 24 * 3600 * 1000
HOST_CLOCK = 0xE04B0004


def sign_ahead(realm: Realm, days: int) -> None:
    """The host signs a grant while its clock, and that of the machine that asks, are ahead."""
    clock = Clock(days * DAY_MS)
    asker = Asker.of(realm, "desktop")

    def talk(address: tuple[str, int]) -> tuple[bytes | None, int]:
        with Connection(address) as connection:
            connection.bind()
            outcome: tuple[bytes | None, int] = connection.call(asker.ask(client_time=clock()).request)
            return outcome

    assert LocalServer(realm, clock=clock).run(talk)[1] == 0


def ask(address: tuple[str, int], realm: Realm) -> int:
    with Connection(address) as connection:
        connection.bind()
        code: int = connection.call(Asker.of(realm, "desktop").ask().request)[1]
        return code


def count(realm: Realm) -> int:
    return int(run_cli("host", "status", home=realm.home)[1]["families"]["desktops"]["count"])


def test_a_host_that_was_ahead_signs_again(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    sign_ahead(realm, 60)
    with serve(realm) as host:
        assert ask(host.address, realm) == HOST_CLOCK
        code, told, _ = run_cli("host", "clock-reset", home=realm.home)
        assert (code, told["name"]) == (1, "HOST_RUNNING")
        assert ask(host.address, realm) == HOST_CLOCK
    code, told, _ = run_cli("host", "clock-reset", home=realm.home)
    assert (code, told["reset"]) == (0, True)
    assert 59 * DAY_MS < told["back_ms"] <= 60 * DAY_MS
    with serve(realm) as host:
        assert ask(host.address, realm) == 0
    code, verdict, _ = run_cli("ledger", "verify", home=realm.home)
    assert (code, verdict["clock_resets"], verdict["granted"]) == (0, 1, 2)
    check_ledger(realm.home / "host" / "ledger", [realm.root], PUBLISHER_ID)


def test_machines_seen_in_the_future_do_not_count_longer(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    sign_ahead(realm, 60)
    run_cli("host", "clock-reset", home=realm.home)
    assert count(realm) == 1
    later = LocalServer(realm, clock=Clock(31 * DAY_MS))
    family = later.run(lambda address: later.server._batcher._epoch.families()[1])
    assert family.current(later.clock()) == 0


def test_a_ledger_that_is_not_ahead_is_left_alone(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    assert run_cli("host", "clock-reset", home=realm.home)[1]["reset"] is False
    with serve(realm) as host:
        assert ask(host.address, realm) == 0
    before = sorted((realm.home / "host" / "ledger").iterdir())
    code, told, _ = run_cli("host", "clock-reset", home=realm.home)
    assert (code, told["reset"], told["ledger_time"]) == (0, False, None)
    assert sorted((realm.home / "host" / "ledger").iterdir()) == before
