"""The one data path: which batch is next, when, and in what order it is counted, signed, committed and answered.

Between a batch's start and its answers there is one owner, the batcher; requests that arrive meanwhile fill the next
batch. The event loop's thread runs all of this but the commit (the committer's); the count transaction of a family
below its cap is awaited.

Under moderate load the sockets rest: requests could not start the next batch before it is due, so they are left to the
kernel until then and read all at once, which saves the loop a round for every few of them.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from kms_fast import _core
from kms_fast.errors import KmsFastError
from kms_fast.host.epoch import Epoch
from kms_fast.host.ledger import Ledger
from kms_fast.host.segment import MAX_LEAVES
from kms_fast.messages import log
from kms_fast.model.policy import format_time
from kms_fast.results import BY_NAME
from kms_fast.store import CountRow, Counts

CLOCK_BEHIND_MS: Final = 5 * 60 * 1000
# Of so many leaves a batch's fixed cost is a small part of each.
ENOUGH_LEAVES: Final = 64
# Smaller batches wait so much longer than the spacing, if that lets more come together.
LONGEST_SPACINGS: Final = 2.0
# Newcomers and requests that need no batch wait for the end of a rest.
LONGEST_REST_S: Final = 0.01
SERVER_BUSY: Final = BY_NAME["SERVER_BUSY"].code


class Batcher:
    """Turns waiting requests into signed, durable, answered batches.

    ``clock_ms`` gives milliseconds since 1970. ``on_failure`` is called once when a commit failed: then nothing more is
    answered and the process must end, since a number is signed only once. ``on_retired`` gets the ledger that no batch
    will be written to any more. ``spacing_s`` may be changed at any time.
    """

    def __init__(
        self,
        *,
        epoch: Epoch,
        counts: Counts,
        clock_ms: Callable[[], int],
        spacing_s: float,
        on_failure: Callable[[KmsFastError], None],
        on_retired: Callable[[Ledger], None],
    ) -> None:
        self.spacing_s = spacing_s
        self._epoch = epoch
        self._coming: deque[Epoch] = deque()
        self._counts = counts
        self._clock_ms = clock_ms
        self._on_failure = on_failure
        self._on_retired = on_retired
        self._loop = asyncio.get_running_loop()
        self._wake_fd, wake_write_fd = os.pipe()
        self._wake_write_fd = wake_write_fd
        self._committer = _core.Committer(wake_write_fd)
        self._commit_thread = threading.Thread(target=self._committer.run, name="commit")
        self._busy = False
        self._stopped = False
        self._refusing: str | None = None
        self._store_failed = False
        self._unstored: set[int] = set()
        self._flushed_ms = 0
        self._timer: asyncio.Handle | None = None
        self._started_s = 0.0
        self._earliest_start_s = 0.0
        self._resting = False
        self._may_rest = False
        self._accepted = 0
        self._last_size = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.host: _core.Host
        self._poller: _core.Poller

    def start(self, host: _core.Host, poller: _core.Poller) -> None:
        """Begin to serve `host`, whose `on_waiting` must be `wake`, and to read its connections by its `poller`."""
        self.host, self._poller = host, poller
        host.use_table(self._epoch.table)
        self._commit_thread.start()
        self._loop.add_reader(self._wake_fd, self._committed)
        self._loop.add_reader(poller.fileno(), poller.work)

    def adopt(self, epoch: Epoch) -> None:
        """Let every request from now on be decided, signed and written down by `epoch`; those that wait keep theirs."""
        self._coming.append(epoch)
        self.host.use_table(epoch.table)

    @property
    def ledger(self) -> Ledger:
        """The segment that is being written to."""
        return self._epoch.ledger

    @property
    def ledgers(self) -> list[Ledger]:
        """That segment, and those that no batch has reached yet."""
        return [self._epoch.ledger, *(epoch.ledger for epoch in self._coming)]

    def wake(self) -> None:
        """Requests wait: start the next batch, now or when the spacing of batches allows it."""
        if self._busy or self._stopped:
            return
        self._idle.clear()
        if self._resting:
            return
        everyone_waits = self.host.waiting >= len(self.host.connections)
        delay_s = 0.0 if everyone_waits else self._earliest_start_s - self._loop.time()
        if self._timer is not None:
            if not everyone_waits:
                return
            self._timer.cancel()
        if delay_s > 0:
            self._timer = self._loop.call_later(delay_s, self._begin_due)
        else:
            self._timer = self._loop.call_soon(self._begin)

    async def drain(self) -> None:
        """Wait until every request that waits now is answered, then store the counts."""
        if self._resting:
            self._end_rest()
            self._poller.work()
        await self._idle.wait()
        await self.flush_counts()

    def close(self) -> None:
        """End both threads, after a commit that is under way. Requests that still wait get no answer."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._poller.fileno())
        self._loop.remove_reader(self._wake_fd)
        self._committer.stop()
        self._commit_thread.join()
        os.close(self._wake_fd)
        os.close(self._wake_write_fd)

    async def flush_counts(self) -> None:
        """Store what only memory knows of families at their cap, the machines seen since the last flush, and take up
        what other workers stored.

        Raises `KmsFastError`: what the store says.
        """
        # Every machine noted so far was seen by then, and every later one is not seen before.
        seen_ms, now_ms = self.ledger.last_time_ms, self._clock_ms()
        families = self._epoch.families()
        for number in sorted(self._unstored & families.keys()):
            family = families[number]
            stored = await self._flush(number, family, now_ms)
            family.load(stored + family.rows_since(seen_ms))
        self._flushed_ms = seen_ms

    def _begin_due(self) -> None:
        """The spacing of batches, not work, has put off the next one until now: begin it, and rest until the one after
        that is due. After a rest there may be none to begin, or the commit before it takes longer than the spacing.
        """
        self._timer = None
        self._may_rest = False
        if self._resting:
            self._poller.work()
        if self.host.waiting > 0 and not self._busy:
            self._begin()
        # Who has just connected waits for a bind_ack.
        accepted_before, self._accepted = self._accepted, self.host.counters()["connections"]
        if self._may_rest and self._accepted == accepted_before:
            self._rest()
        elif self._resting:
            self._end_rest()

    def _rest(self) -> None:
        self._timer = self._loop.call_later(self._earliest_start_s - self._loop.time(), self._begin_due)
        if not self._resting:
            self._resting = True
            self._loop.remove_reader(self._poller.fileno())

    def _end_rest(self) -> None:
        self._resting = False
        self._loop.add_reader(self._poller.fileno(), self._poller.work)
        if self.host.waiting > 0:
            self.wake()

    def _begin(self) -> None:
        self._timer = None
        batch = self.host.take_batch()
        if batch is None:
            self._idle.set()
            return
        self._busy = True
        while batch.table is not self._epoch.table:
            self._begin_epoch(self._coming.popleft())
        now_ms, last_time_ms, table = self._clock_ms(), self.ledger.last_time_ms, batch.table
        if now_ms < last_time_ms - CLOCK_BEHIND_MS:
            behind_s = (last_time_ms - now_ms) // 1000
            self._refuse(batch, "HOST_CLOCK", f"this host's clock is {behind_s} s behind its ledger")
            return
        time_ms = max(now_ms, last_time_ms)
        if not table.not_before_ms <= time_ms <= table.not_after_ms:
            dates = f"{format_time(table.not_before_ms)} to {format_time(table.not_after_ms)}"
            self._refuse(batch, "HOST_CERTIFICATE_DATES", f"this host's certificate is valid from {dates}")
            return
        rows = batch.decide_product_and_clock(time_ms)
        below_cap = [row for row in rows if table.families[row].current(time_ms) < table.families[row].cap]
        self._unstored.update(self._epoch.family_numbers[row] for row in rows if row not in below_cap)
        if below_cap:
            counting = self._loop.create_task(self._record_counts(batch, below_cap, time_ms))
            counting.add_done_callback(lambda done: self._counted(batch, time_ms, done))
        else:
            self._commit(batch, time_ms)

    def _begin_epoch(self, epoch: Epoch) -> None:
        epoch.continue_counts(self._epoch)
        self._on_retired(self.ledger)
        self._epoch = epoch

    async def _record_counts(self, batch: _core.Batch, rows: Sequence[int], time_ms: int) -> dict[int, KmsFastError]:
        """Store the batch's machines; each family continues from what the store held before. The families (rows of the
        table) whose machines could not be stored, and why.
        """
        failed = {}
        for row in rows:
            number, family = self._epoch.family_numbers[row], batch.table.families[row]
            try:
                if number in self._unstored:
                    # It has just left its cap, where the store was not told of each machine.
                    await self._flush(number, family, time_ms)
                    self._unstored.discard(number)
                cmids = batch.cmids_of(row)
                before = await self._counts.record(
                    number, cmids, time_ms, cap=family.cap, retention_ms=family.retention_ms
                )
            except KmsFastError as error:
                failed[row] = error
            else:
                family.load(before)
        return failed

    async def _flush(self, number: int, family: _core.FamilyCount, now_ms: int) -> list[CountRow]:
        rows = family.rows_since(self._flushed_ms)
        return await self._counts.flush(number, rows, now_ms, cap=family.cap, retention_ms=family.retention_ms)

    def _counted(self, batch: _core.Batch, time_ms: int, counting: asyncio.Task[dict[int, KmsFastError]]) -> None:
        if self._stopped:
            return
        failed = counting.result()
        if failed:
            batch.refuse_families(list(failed), SERVER_BUSY)
        if bool(failed) != self._store_failed:
            self._store_failed = bool(failed)
            if failed:
                log("COUNTS_NOT_STORED", error=next(iter(failed.values())))
            else:
                log("COUNTS_STORED")
        if batch.size > 0:
            self._commit(batch, time_ms)
        else:
            self._go_on()

    def _commit(self, batch: _core.Batch, time_ms: int) -> None:
        ledger = self.ledger
        try:
            ledger.reserve()
        except KmsFastError as error:
            self._refuse(batch, "SERVER_BUSY", error.message)
            return
        if self._refusing is not None:
            log("REQUESTS_TAKEN", result=self._refusing)
            self._refusing = None
        batch.decide_counts(time_ms)
        header_hash = batch.seal(ledger.segment, ledger.number, time_ms, ledger.previous, self._epoch.sign)
        ledger.append(self._committer, batch, header_hash, time_ms)
        self._space_next(batch.size)

    def _space_next(self, size: int) -> None:
        """Settle when the batch after one of ``size`` leaves may start: when enough requests wait, if they come as fast
        as these did, within limits. And whether nothing need be read until then.
        """
        now_s = self._loop.time()
        gathering_s = (now_s - self._started_s) * ENOUGH_LEAVES / size
        spacing_s = min(max(gathering_s, self.spacing_s), LONGEST_SPACINGS * self.spacing_s)
        self._started_s = now_s
        # Batches of one come from a quiet network, where the next request should not wait.
        self._earliest_start_s = now_s + (spacing_s if size > 1 else 0.0)
        # Many requests are better read while the commit waits for the disk. Clients that ask again as soon as they are
        # answered are all in two batches, and when all of them wait the next one begins early.
        last_two, self._last_size = self._last_size + size, size
        moderate = size > 1 and gathering_s > self.spacing_s > 0 and last_two < len(self.host.connections) / 2
        # A host that refuses everything does so at once.
        self._may_rest = moderate and spacing_s <= LONGEST_REST_S and self.host.refusal == 0

    def _committed(self) -> None:
        os.read(self._wake_fd, 1)
        try:
            batch = self._committer.finish()
        except OSError as error:
            self._stopped = True
            self._on_failure(
                KmsFastError(
                    f"The ledger {self.ledger.path} could not be written: {error.strerror}.",
                    name="STORAGE_FAILED",
                    file=str(self.ledger.path),
                    reason=error.strerror,
                )
            )
            return
        if self.host.waiting >= MAX_LEAVES:
            # No more fits: its commit may run while these answers are written.
            self._next()
            batch.answer()
            return
        # Those who are answered may ask again at once; then the next batch is larger, and each of its leaves cheaper.
        batch.answer()
        if not self._resting:
            self._poller.work()
        self._next()

    def _refuse(self, batch: _core.Batch, name: str, reason: str) -> None:
        """Refuse every request of a batch; the reason is logged once, not for each batch."""
        if self._refusing != name:
            self._refusing = name
            log("REQUESTS_REFUSED", result=name, reason=reason)
        batch.refuse(BY_NAME[name].code)
        self._go_on()

    def _go_on(self) -> None:
        """Nothing was committed of the batch in work: wake for the next one.

        Not at once as after a commit: a thousand batches may wait, and each would be a call within a call.
        """
        if self._release():
            self.wake()

    def _next(self) -> None:
        """The batch in work is on disk: take the next one."""
        if not self._release():
            return
        if self._loop.time() >= self._earliest_start_s and not self._resting:
            self._begin()
        else:
            self.wake()

    def _release(self) -> bool:
        """The batch in work is done with; whether requests wait for the next one."""
        self._busy = False
        if self.host.waiting == 0:
            self._idle.set()
            return False
        return True
