"""``host status --verbose`` of a host that has granted and refused. On a real process."""

from pathlib import Path

from tests.hosts import make_realm, run_cli, serve
from tests.reference.rpc import Connection
from tests.system.asker import Asker, now_ms

HOUR_MS = 3_600_000


def test_what_it_has_answered_and_how_it_runs(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    run_cli("host", "configure", "--activation-interval", "4h", home=realm.home)
    assert "requests" not in run_cli("host", "status", home=realm.home)[1]
    before = run_cli("host", "status", "--verbose", home=realm.home)[1]
    assert (before["running"], before["requests"]["all"]) == ([], 0)
    with serve(realm) as host:
        with Connection(host.address) as connection:
            connection.bind()
            for state, hours in ((2, 0), (2, 0), (5, 0), (1, 5)):
                asked = asker.ask(licence_state=state, client_time=now_ms() - hours * HOUR_MS)
                connection.call(asked.request)
        told = run_cli("host", "status", "--verbose", home=realm.home)[1]
        assert [process["pid"] for process in told["running"]] == [host.process.pid]
        assert told["running"][0]["addresses"] == ["{}:{}".format(*host.address)]
        assert host.stop() == 0
    told = run_cli("host", "status", "--verbose", home=realm.home)[1]
    assert told["activation_interval"] == "4h"
    assert told["renewal_interval"] == "as the catalog says"
    assert told["requests"] == {
        "all": 4,
        "failed": 1,
        "results": {"ACTIVATED": 3, "CLOCKS_DIFFER": 1},
        "licence_states": {"initial_grace": 2, "notification": 1, "licensed": 1},
    }
