"""What the batcher keeps in memory, what it stores, and what it does with many batches at once."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from kms_fast import _core
from kms_fast.errors import KmsFastError
from kms_fast.host.batcher import Batcher
from kms_fast.host.epoch import Epoch
from kms_fast.model.policy import DAY_MS
from kms_fast.model.settings import HostSettings
from kms_fast.store import CountRow
from kms_fast.store.sqlite_counts import SqliteCounts
from tests.batches import BatchMaker, Peer
from tests.host.local_server import LocalServer
from tests.hosts import DESKTOP, SERVER, make_realm
from tests.reference import rpc
from tests.reference.rpc import Connection
from tests.reference.verify import Asked, Clock, verify
from tests.system.asker import Asker, now_ms

SERVER_BUSY = 0xE04B0003


class Told(NamedTuple):
    """What a leaf says about a machine's activation."""

    result: int
    current_count: int


def ask_new_machines(server: LocalServer, connection: Connection, number: int) -> list[Told]:
    """Activates machines that nobody has seen, one after the other, at the time of the server's clock."""
    asker, told = Asker.of(server.realm, "desktop"), []
    for _ in range(number):
        time_ms = server.clock()
        asked = asker.ask(client_time=time_ms)
        answer, _ = connection.call(asked.request)
        assert answer is not None
        leaf = verify(asker.product, asked, answer, Clock(time_ms, 0)).leaf
        told.append(Told(leaf.result, leaf.current_count))
    return told


def test_a_family_that_leaves_its_cap_forgets_no_machine(tmp_path: Path) -> None:
    """At the cap machines are noted in memory first; the store must hear of them before it is asked again."""
    server = LocalServer(make_realm(tmp_path, threshold=2))
    cap = 4

    def talk(address: tuple[str, int]) -> list[Told]:
        with Connection(address) as connection:
            connection.bind()
            assert ask_new_machines(server, connection, cap)[-1] == Told(0, cap)
            server.clock.offset_ms = 29 * DAY_MS
            assert ask_new_machines(server, connection, cap - 1) == [Told(0, cap)] * (cap - 1)
            # The last of the first machines is forgotten, and the family is one below its cap.
            server.clock.offset_ms = 31 * DAY_MS
            return ask_new_machines(server, connection, 1)

    assert server.run(talk) == [Told(0, cap)]
    assert asyncio.run(count_stored(server, cap)) == cap


async def count_stored(server: LocalServer, cap: int) -> int:
    counts = SqliteCounts(server.realm.home / "host" / "counts.db")
    stored = await counts.load(DESKTOP, server.clock(), cap=cap, retention_ms=30 * DAY_MS)
    await counts.close()
    return len(stored)


async def test_any_number_of_batches_is_refused(tmp_path: Path) -> None:
    """As when the clock was set back while as many wait as a host may let wait."""
    realm = make_realm(tmp_path)
    maker = BatchMaker(realm, HostSettings(max_waiting=1 << 20))
    counts, ledger = SqliteCounts(tmp_path / "counts.db"), maker.open_ledger()
    ledger.last_time_ms = now_ms() + 3_600_000
    epoch = Epoch(maker.table, maker.family_numbers, maker.installation.private_key.sign, ledger)
    failures: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context["exception"]))
    batcher = Batcher(
        epoch=epoch,
        counts=counts,
        clock_ms=now_ms,
        spacing_s=0.002,
        on_failure=failures.append,
        on_retired=lambda ledger: None,
    )
    host = _core.Host(batcher.wake, lambda interface, peer: None)
    host.use_limits(1 << 20, 10, True)
    poller = _core.Poller(host, failures.append)
    peer = Peer(poller)
    batcher.start(host, poller)
    burst = rpc.build_request(Asker.of(realm, "desktop").ask().request, 1) * 1024
    for _ in range(400):
        peer.send(burst)
    assert host.waiting == 400 * 1024
    await asyncio.wait_for(batcher.drain(), 20)
    batcher.close()
    ledger.close()
    await counts.close()
    assert failures == []
    assert len(peer.answers()) == 400 * 1024


class FailingCounts(SqliteCounts):
    """A store that is down while ``down``: for all families or one of them."""

    down: bool | int = False

    async def record(
        self, family: int, cmids: Sequence[bytes], now_ms: int, *, cap: int, retention_ms: int
    ) -> list[CountRow]:
        if self.down is True or self.down == family:
            raise KmsFastError("The store is down.", name="STORE_UNAVAILABLE")
        return await super().record(family, cmids, now_ms, cap=cap, retention_ms=retention_ms)


def test_while_the_store_is_down_only_families_below_their_cap_are_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    realm = make_realm(tmp_path, threshold=1, certified=(DESKTOP, SERVER))
    caplog.set_level("INFO")
    server = LocalServer(realm, open_counts=FailingCounts, settings=HostSettings(batch_spacing_ms=300))
    desktop, server_product = Asker.of(realm, "desktop"), Asker.of(realm, "server")

    def talk(address: tuple[str, int]) -> tuple[list[Asked], list[tuple[bytes | None, int]]]:
        with Connection(address) as connection:
            connection.bind()
            for one in (desktop.ask(), desktop.ask()):
                desktop.check(one, connection.call(one.request)[0])
            monkeypatch.setattr(FailingCounts, "down", True)
            asked = [(desktop, server_product)[n % 2].ask() for n in range(20)]
            answers = connection.call_many([one.request for one in asked])
            answers += [connection.call(server_product.ask().request) for _ in range(3)]
            monkeypatch.setattr(FailingCounts, "down", False)
            one = server_product.ask()
            server_product.check(one, connection.call(one.request)[0])
            return asked, answers

    asked, answers = server.run(talk)
    for number, (one, (answer, result)) in enumerate(zip(asked, answers, strict=False)):
        if number % 2:
            assert (answer, result) == (None, SERVER_BUSY)
        else:
            verified = desktop.check(one, answer)
            assert (verified.leaf.result, verified.leaf.current_count) == (0, 2)
    assert answers[20:] == [(None, SERVER_BUSY)] * 3
    assert caplog.text.count("The store is down.") == 1
    assert caplog.text.count("counts are stored again") == 1


def test_a_machine_that_could_not_be_stored_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    realm = make_realm(tmp_path, threshold=2)
    server, asker = LocalServer(realm, open_counts=FailingCounts), Asker.of(realm, "desktop")

    def talk(address: tuple[str, int]) -> list[int]:
        with Connection(address) as connection:
            connection.bind()
            counts = []
            for down in (False, True, False):
                monkeypatch.setattr(FailingCounts, "down", down)
                one = asker.ask()
                answer, result = connection.call(one.request)
                counts.append(result or asker.check(one, answer).leaf.current_count)
            return counts

    assert server.run(talk) == [1, SERVER_BUSY, 2]
