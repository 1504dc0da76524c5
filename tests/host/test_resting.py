"""When the batcher lets the sockets rest, and that nobody is left waiting by it: with a loop that is turned by hand."""

import asyncio
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kms_fast import _core
from kms_fast.errors import KmsFastError
from kms_fast.host import batcher as batcher_module
from kms_fast.host.admission import build_table
from kms_fast.host.batcher import Batcher
from kms_fast.host.epoch import Epoch
from kms_fast.store.sqlite_counts import SqliteCounts
from tests.batches import BatchMaker, Peer
from tests.hosts import make_realm
from tests.reference import rpc
from tests.system.asker import Asker, now_ms

SPACING_S = 0.002
ROUNDING_S = 1e-6
CONNECTIONS = 20
FEW = 3
COMMIT_LIMIT_S = 3
SERVER_BUSY, HOST_CLOCK = 0xE04B0003, 0xE04B0004


class SteppedLoop:
    """What a batcher uses of an event loop. ``now_s`` is its clock, `turn` one round; nobody looks at ``unseen``
    descriptors.
    """

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.readers: dict[int, Callable[[], None]] = {}
        self.unseen: set[int] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._real = asyncio.new_event_loop()
        self.add_reader = self.readers.__setitem__

    def close(self) -> None:
        self._real.close()

    def time(self) -> float:
        return self.now_s

    def remove_reader(self, fd: int) -> bool:
        return self.readers.pop(fd, None) is not None

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(self.now_s + delay_s, callback, (), self._real)
        self._timers.append(timer)
        return timer

    def call_soon(self, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return self.call_later(0, callback)

    def turn(self) -> None:
        """Call whatever is due, then whoever can read."""
        due = [timer for timer in self._timers if timer.when() <= self.now_s]
        self._timers = [timer for timer in self._timers if timer not in due]
        for timer in due:
            if not timer.cancelled():
                timer._run()
        for fd in select.select(self.readers.keys() - self.unseen, [], [], 0)[0]:
            if fd in self.readers:
                self.readers[fd]()


class Resting:
    """A batcher of a family at its cap, on a loop that is turned by hand, and its clients."""

    def __init__(self, folder: Path) -> None:
        realm = make_realm(folder)
        self.maker = BatchMaker(realm)
        self.asker = Asker.of(realm, "desktop")
        self.failures: list[KmsFastError] = []
        self.retired: list[Any] = []
        self.loop = SteppedLoop()
        self.on_signature: Callable[[], None] = lambda: None
        self.epoch = self.make_epoch()
        for family in self.epoch.table.families:
            family.load([(bytes([n]) * 16, now_ms()) for n in range(1, family.cap + 1)])

    async def start(self, folder: Path) -> None:
        self.counts = SqliteCounts(folder / "counts.db")
        self.batcher = batcher = Batcher(
            epoch=self.epoch,
            counts=self.counts,
            clock_ms=now_ms,
            spacing_s=SPACING_S,
            on_failure=self.failures.append,
            on_retired=self.retired.append,
        )
        batcher._loop = self.loop  # type: ignore[assignment]
        self.host = _core.Host(batcher.wake, lambda interface, peer: None)
        self.host.use_limits(1 << 20, 1 << 10, True)
        self.poller = _core.Poller(self.host, self.fail)
        batcher.start(self.host, self.poller)
        self.peers = [Peer(self.poller) for _ in range(CONNECTIONS)]

    def fail(self, error: BaseException) -> None:
        raise error

    def make_epoch(self) -> Epoch:
        maker = self.maker
        table, family_numbers = build_table(maker.installation, maker.settings)
        return Epoch(table, family_numbers, self.sign, maker.open_ledger())

    def sign(self, message: bytes) -> bytes:
        self.on_signature()
        return self.maker.installation.private_key.sign(message)

    @property
    def is_watched(self) -> bool:
        return self.poller.fileno() in self.loop.readers

    def ask(self, number: int, first: int = 0) -> None:
        """Let so many clients send a request each, and the loop see them."""
        for peer in self.peers[first : first + number]:
            peer.socket.send(rpc.build_request(self.asker.ask().request, 1))
        self.loop.turn()

    def wait_for_commit(self) -> None:
        """Turn the loop until no commit is under way."""
        while self.batcher._busy and not self.batcher._stopped:
            assert select.select([self.batcher._wake_fd], [], [], COMMIT_LIMIT_S)[0]
            self.loop.turn()

    def make_due(self) -> None:
        """Let the time come at which the next batch may start, and turn the loop."""
        self.loop.now_s = self.batcher._earliest_start_s + ROUNDING_S
        self.loop.turn()

    def answered(self) -> list[int]:
        """How many answers each client has got since the last time."""
        answers = []
        for peer in self.peers:
            pdus = rpc.split_pdus(peer._read())
            assert all(rpc.parse_response(pdu)[0] for pdu in pdus)
            answers.append(len(pdus))
        return answers

    def begin_first(self) -> None:
        """The first batch begins at once, is committed and answered."""
        self.ask(FEW)
        self.loop.turn()
        self.wait_for_commit()

    def rest(self) -> None:
        """Three batches: one that begins at once, the second and third when they are due. The third is being committed
        and nothing is read.
        """
        self.begin_first()
        self.ask(FEW)
        self.make_due()
        assert self.is_watched, "there are connections that it has not seen before"
        self.wait_for_commit()
        self.ask(FEW)
        self.loop.unseen = {self.batcher._wake_fd}
        self.make_due()
        self.loop.unseen.clear()
        assert not self.is_watched
        assert sum(self.answered()) == 2 * FEW


@pytest.fixture
def resting(tmp_path: Path) -> Iterator[Resting]:
    resting = Resting(tmp_path)
    asyncio.run(resting.start(tmp_path))
    yield resting
    for peer in resting.peers:
        peer.socket.close()
    resting.poller.work()
    resting.batcher.close()
    assert not resting.loop.readers
    for ledger in (*resting.retired, *resting.batcher.ledgers):
        ledger.close()
    resting.loop.close()
    asyncio.run(resting.counts.close())


def test_nothing_is_read_until_the_next_batch_is_due(resting: Resting) -> None:
    resting.rest()
    for _ in range(3):
        resting.ask(FEW, first=4)
        assert resting.host.waiting == 0
        # The end of the commit before it is seen at once.
        resting.wait_for_commit()
        assert sum(resting.answered()) == FEW
        resting.make_due()
        assert not resting.is_watched, "the next rest follows"
    resting.wait_for_commit()
    assert resting.answered()[4 : 4 + FEW] == [1] * FEW


def test_a_long_spacing_is_no_rest(resting: Resting) -> None:
    """Newcomers would wait for its end, and who waits unread for seconds would be taken for idle."""
    resting.batcher.spacing_s = 0.05
    resting.begin_first()
    for _ in range(3):
        resting.ask(FEW)
        resting.make_due()
        assert resting.is_watched
        resting.wait_for_commit()


def test_who_asks_during_a_commit_is_in_the_batch_that_begins_at_its_end(resting: Resting) -> None:
    """Also when the loop had no time to look."""
    resting.begin_first()
    resting.ask(FEW)
    resting.loop.unseen = {resting.poller.fileno(), resting.batcher._wake_fd}
    resting.make_due()
    resting.ask(FEW, first=4)
    assert resting.host.waiting == 0
    resting.loop.unseen.remove(resting.batcher._wake_fd)
    resting.loop.now_s = resting.batcher._earliest_start_s
    resting.wait_for_commit()
    assert resting.answered()[4 : 4 + FEW] == [1] * FEW


@pytest.mark.parametrize(("full", "answered"), [(FEW + 1, FEW), (FEW, 0)])
def test_the_next_batch_begins_after_the_answers_unless_a_full_one_waits(
    resting: Resting, monkeypatch: pytest.MonkeyPatch, full: int, answered: int
) -> None:
    monkeypatch.setattr(batcher_module, "MAX_LEAVES", full)
    resting.begin_first()
    resting.ask(FEW)
    resting.loop.unseen = {resting.batcher._wake_fd}
    resting.make_due()
    resting.ask(FEW, first=4)
    assert resting.host.waiting == FEW
    resting.answered()
    seen: list[int] = []
    resting.on_signature = lambda: seen.append(sum(resting.answered()))
    resting.loop.unseen.clear()
    resting.loop.now_s = resting.batcher._earliest_start_s
    resting.wait_for_commit()
    assert seen == [answered]


def test_after_a_rest_in_which_nobody_came_sockets_are_watched_again(resting: Resting) -> None:
    resting.rest()
    resting.wait_for_commit()
    resting.make_due()
    assert resting.is_watched
    resting.ask(FEW)
    resting.loop.turn()
    resting.wait_for_commit()
    assert sum(resting.answered()) == 2 * FEW


def test_a_commit_that_takes_longer_than_the_spacing_ends_the_rest(resting: Resting) -> None:
    resting.rest()
    resting.ask(FEW)
    resting.wait_for_commit()
    resting.loop.unseen = {resting.batcher._wake_fd}  # the commit thread is still at work
    resting.make_due()
    assert not resting.is_watched
    resting.ask(FEW)
    resting.make_due()
    assert resting.is_watched
    assert resting.host.waiting == FEW
    resting.loop.unseen.clear()
    resting.wait_for_commit()
    assert sum(resting.answered()) == 3 * FEW
    assert resting.is_watched, "work set the pace"


@pytest.mark.parametrize("numbers", [[1], [CONNECTIONS // 2], [CONNECTIONS // 2 - 2, 2]])
def test_after_a_batch_of_one_or_half_of_all_connections_in_two_they_are_watched(
    resting: Resting, numbers: list[int]
) -> None:
    resting.rest()
    for number in numbers:
        resting.ask(number)
        resting.wait_for_commit()
        resting.make_due()
        assert resting.is_watched


def test_where_enough_come_within_the_spacing_they_are_watched(
    resting: Resting, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough = 8
    monkeypatch.setattr(batcher_module, "ENOUGH_LEAVES", enough)
    resting.peers += [Peer(resting.poller) for _ in range(10 * enough)]
    resting.rest()
    for number, watched in ((enough, False), (4 * enough, True), (2 * enough, True), (enough // 2, False)):
        resting.wait_for_commit()
        resting.ask(number)
        resting.make_due()
        assert resting.is_watched is watched


def test_who_has_just_connected_is_answered_at_once(resting: Resting) -> None:
    resting.rest()
    resting.wait_for_commit()
    resting.ask(FEW)
    resting.peers.append(Peer(resting.poller))
    resting.make_due()
    assert resting.is_watched
    resting.wait_for_commit()
    resting.ask(FEW)
    resting.make_due()
    assert not resting.is_watched


def test_a_drain_reads_what_came_in_a_rest_and_lets_nothing_rest(resting: Resting) -> None:
    resting.rest()
    resting.wait_for_commit()
    resting.ask(FEW)
    resting.host.refusal = SERVER_BUSY
    resting.answered()
    asyncio.run(resting.batcher.drain())
    assert resting.is_watched
    for peer in resting.peers[:FEW]:
        assert peer.answers() == [(None, SERVER_BUSY)]


def test_batches_that_waited_before_a_drain_are_not_followed_by_a_rest(resting: Resting) -> None:
    resting.rest()
    resting.wait_for_commit()
    resting.ask(FEW)
    drained = asyncio.new_event_loop()
    draining = drained.create_task(resting.batcher.drain())
    drained.run_until_complete(asyncio.sleep(0))
    resting.host.refusal = SERVER_BUSY
    assert not draining.done()
    assert resting.host.waiting == FEW
    resting.make_due()
    assert resting.is_watched
    resting.wait_for_commit()
    drained.run_until_complete(draining)
    drained.close()
    assert sum(resting.answered()) == 2 * FEW


def test_all_that_is_refused_after_a_rest_is_refused(resting: Resting) -> None:
    """Two batches wait, and the clock is far behind."""
    resting.rest()
    resting.wait_for_commit()
    resting.answered()
    resting.epoch.ledger.last_time_ms += 3_600_000
    resting.peers[0].send(rpc.build_request(resting.asker.ask().request, 1) * 1024)
    resting.ask(FEW, first=1)
    resting.make_due()
    assert resting.is_watched
    resting.loop.turn()
    assert resting.host.waiting == 0
    for peer in resting.peers[1 : 1 + FEW]:
        assert peer.answers() == [(None, HOST_CLOCK)]


def test_a_new_epoch_begins_in_a_rest(resting: Resting) -> None:
    resting.rest()
    resting.wait_for_commit()
    resting.answered()
    epoch = resting.make_epoch()
    resting.batcher.adopt(epoch)
    resting.ask(FEW)
    resting.make_due()
    resting.wait_for_commit()
    assert sum(resting.answered()) == FEW
    assert resting.batcher.ledger is epoch.ledger
    assert resting.retired == [resting.epoch.ledger]


def test_a_failed_commit_is_told_in_a_rest(resting: Resting) -> None:
    resting.rest()
    resting.wait_for_commit()
    resting.answered()
    resting.ask(FEW)
    with Path("/dev/full").open("wb") as full:
        ledger, fd = resting.epoch.ledger, resting.epoch.ledger._fd
        ledger._fd = full.fileno()
        resting.make_due()
        assert not resting.is_watched
        resting.wait_for_commit()
        ledger._fd = fd
    assert [failure.result.name for failure in resting.failures] == ["STORAGE_FAILED"]
    resting.make_due()
    assert resting.is_watched
    assert sum(resting.answered()) == 0
