"""When a server continues its ledger in the next segment."""

import time

import pytest

from kms_fast.host.segment import list_segments
from tests.host.running import activate
from tests.hosts import Realm, run_cli
from tests.reference.rpc import Connection
from tests.system.asker import Asker


def test_a_full_segment_is_continued_by_the_next(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    from kms_fast.host import server
    from kms_fast.model.settings import HostSettings
    from tests.host.local_server import LocalServer

    monkeypatch.setattr(server, "WATCH_S", 0.5)
    asker, folder = Asker.of(realm, "desktop"), realm.home / "host" / "ledger"
    local = LocalServer(realm, settings=HostSettings(segment_size_bytes=1 << 20))

    def talk(address: tuple[str, int]) -> None:
        with Connection(address) as connection:
            connection.bind()
            request = asker.ask().request
            for segment in (2, 3):
                for _ in range(22):
                    connection.call_many([request] * 200)
                # A full segment has one successor, however long that waits for its first batch.
                time.sleep(1.5)
                assert len(list_segments(folder)) == segment
                assert activate(connection, asker).header.segment == segment

    local.run(talk)
    verdict = run_cli("ledger", "verify", home=realm.home)[1]
    assert (verdict["ok"], verdict["segments"]) == (True, 3)
    assert all(path.stat().st_size < 3 << 20 for path in list_segments(folder)), "closed segments hold what they need"


def test_a_segment_of_yesterday_is_continued_by_the_next_when_records_are_dropped(
    realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kms_fast.host import server
    from kms_fast.model.settings import HostSettings
    from tests.host.local_server import LocalServer

    monkeypatch.setattr(server, "WATCH_S", 0.1)
    asker, folder = Asker.of(realm, "desktop"), realm.home / "host" / "ledger"

    def run(settings: HostSettings) -> int:
        local = LocalServer(realm, settings=settings)

        def talk(address: tuple[str, int]) -> None:
            with Connection(address) as connection:
                connection.bind()
                activate(connection, asker)
                local.clock.offset_ms = server.SEGMENT_AGE_MS - 60_000
                time.sleep(0.5)
                before = len(list_segments(folder))
                local.clock.offset_ms = server.SEGMENT_AGE_MS
                time.sleep(1.0)
                return len(list_segments(folder)) - before

        return local.run(talk)

    assert run(HostSettings()) == 0
    assert run(HostSettings(keep_records_s=90 * 86_400)) == 1
