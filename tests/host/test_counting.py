"""One count over several workers and a long time: what 2-semantics and architecture.md say of counts."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kms_fast.errors import KmsFastError
from kms_fast.model.policy import DAY_MS
from kms_fast.store import CountRow
from kms_fast.store.sqlite_counts import SqliteCounts
from tests.host.local_server import Clock, LocalServer
from tests.hosts import make_realm
from tests.reference.rpc import Connection
from tests.reference.verify import Clock as At
from tests.reference.verify import verify
from tests.system.asker import Asker

Talk = Callable[[tuple[Connection, Connection]], None]
THRESHOLD, CAP = 25, 50


class Machines:
    """Machines that renew at two workers, whose clocks are one."""

    def __init__(self, folder: Path, *, threshold: int, first_counts: type[SqliteCounts] = SqliteCounts) -> None:
        realm = make_realm(folder, threshold=threshold)
        self.clock = Clock()
        self.workers = (
            LocalServer(realm, clock=self.clock, open_counts=first_counts),
            LocalServer(realm, clock=self.clock),
        )
        self._asker = Asker.of(realm, "desktop")

    def ask(self, connection: Connection, machine: int) -> tuple[int, int]:
        """A machine's request now: the result, and the count that its leaf tells."""
        time_ms = self.clock()
        asked = self._asker.ask(cmid=machine.to_bytes(16, "big"), client_time=time_ms)
        answer, _ = connection.call(asked.request)
        assert answer is not None
        leaf = verify(self._asker.product, asked, answer, At(time_ms, 0)).leaf
        return leaf.result, leaf.current_count

    def run(self, talk: Talk) -> None:
        """Call ``talk`` with a connection to each worker."""
        first, second = self.workers

        def connect(one: tuple[str, int], other: tuple[str, int]) -> None:
            with Connection(one) as to_first, Connection(other) as to_second:
                to_first.bind()
                to_second.bind()
                talk((to_first, to_second))

        first.run(lambda one: second.run(lambda other: connect(one, other)))


def test_the_count_never_dips_in_sixty_days_at_the_cap(tmp_path: Path) -> None:
    """60 machines renew every 7 days, most of them always at the same of two workers."""
    machines, chance = Machines(tmp_path, threshold=THRESHOLD), random.Random(3)
    due = dict.fromkeys(range(1, 61), 0.0)

    def talk(connections: tuple[Connection, Connection]) -> None:
        seen = 0
        for day in range(61):
            machines.clock.offset_ms = day * DAY_MS
            for machine in [machine for machine, at in due.items() if at <= day]:
                due[machine] = day + 7 * chance.uniform(0.9, 1.1)
                seen += 1
                worker = machine % 2 if chance.random() < 0.95 else 1 - machine % 2
                result, count = machines.ask(connections[worker], machine)
                assert (result == 0, count) == (seen >= THRESHOLD, min(seen, CAP)), (day, machine)
            for worker in machines.workers:
                worker.flush_counts()
        assert seen > 400

    machines.run(talk)


def test_machines_that_stay_away_are_forgotten(tmp_path: Path) -> None:
    """30 machines ask, and only five go on: after the retention the fifth alone is not enough."""
    machines = Machines(tmp_path, threshold=6)

    def talk(connections: tuple[Connection, Connection]) -> None:
        for machine in range(1, 31):
            machines.ask(connections[machine % 2], machine)
        for day in (10, 20, 29):
            machines.clock.offset_ms = day * DAY_MS
            assert [machines.ask(connections[machine % 2], machine) for machine in range(1, 6)] == [(0, 12)] * 5
            for worker in machines.workers:
                worker.flush_counts()
        machines.clock.offset_ms = 31 * DAY_MS
        told = [machines.ask(connections[machine % 2], machine) for machine in range(1, 6)]
        assert [(result == 0, count) for result, count in told] == [(False, 5)] * 5
        assert machines.ask(connections[0], 31) == (0, 6)

    machines.run(talk)


class RecordsFail(SqliteCounts):
    """A store that goes down for single machines, after it could be flushed to."""

    down = False

    async def record(
        self, family: int, cmids: Sequence[bytes], now_ms: int, *, cap: int, retention_ms: int
    ) -> list[CountRow]:
        if self.down:
            raise KmsFastError("The store is down.", name="STORE_UNAVAILABLE")
        return await super().record(family, cmids, now_ms, cap=cap, retention_ms=retention_ms)


def test_a_worker_takes_up_what_others_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a family at its cap would look stale to a worker that sees few machines, just when the store is down."""
    machines = Machines(tmp_path, threshold=2, first_counts=RecordsFail)

    def talk(connections: tuple[Connection, Connection]) -> None:
        first, second = connections
        for machine in range(1, 5):
            machines.ask(first, machine)
        monkeypatch.setattr(RecordsFail, "down", True)
        for day in range(5, 61, 5):
            machines.clock.offset_ms = day * DAY_MS
            for machine in (2, 3, 4):
                assert machines.ask(second, machine) == (0, 4)
            assert machines.ask(first, 1) == (0, 4)
            for worker in reversed(machines.workers):
                worker.flush_counts()

    machines.run(talk)
