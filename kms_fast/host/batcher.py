"""The one data path: which batch is next, when, and in what order it is counted, signed, committed and answered.

Between a batch's start and its answers there is one owner, the batcher; requests that arrive meanwhile fill the next
batch. The event loop's thread runs all of this but the commit (the committer's); the count transaction of a family
below its cap is awaited.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final

from kms_fast import _core
from kms_fast.errors import BY_NAME, KmsFastError
from kms_fast.host.ledger import Ledger
from kms_fast.model.policy import format_time
from kms_fast.store import CountRow, Counts

CLOCK_BEHIND_MS: Final = 5 * 60 * 1000

logger = logging.getLogger(__name__)


class Batcher:
    """Turns waiting requests into signed, durable, answered batches.

    ``sign`` makes an Ed25519 signature (64 bytes) of a message; ``clock_ms`` gives milliseconds since 1970;
    ``family_numbers`` names the rows of the admission table's families in the store. ``on_failure`` is called once
    when a commit failed: then nothing more is answered and the process must end, since a number is signed only once.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        counts: Counts,
        sign: Callable[[bytes], bytes],
        clock_ms: Callable[[], int],
        family_numbers: Sequence[int],
        spacing_s: float,
        on_failure: Callable[[KmsFastError], None],
    ) -> None:
        self._ledger = ledger
        self._counts = counts
        self._sign = sign
        self._clock_ms = clock_ms
        self._family_numbers = family_numbers
        self._spacing_s = spacing_s
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._wake_fd, wake_write_fd = os.pipe()
        self._wake_write_fd = wake_write_fd
        self._committer = _core.Committer(wake_write_fd)
        self._commit_thread = threading.Thread(target=self._committer.run, name="commit")
        self._busy = False
        self._stopped = False
        self._refusing: str | None = None
        self._unstored: set[int] = set()
        self._flushed_ms = 0
        self._timer: asyncio.Handle | None = None
        self._earliest_start_s = 0.0
        self._idle = asyncio.Event()
        self._idle.set()
        self.host: _core.Host

    def start(self, host: _core.Host) -> None:
        """Begin to serve `host`'s waiting requests; its `on_waiting` must be `wake`."""
        self.host = host
        self._commit_thread.start()
        self._loop.add_reader(self._wake_fd, self._committed)

    def wake(self) -> None:
        """Requests wait: start the next batch, now or when the spacing of batches allows it."""
        if self._busy or self._stopped:
            return
        self._idle.clear()
        everyone_waits = self.host.waiting >= len(self.host.connections)
        delay_s = 0.0 if everyone_waits else self._earliest_start_s - self._loop.time()
        if self._timer is not None:
            if not everyone_waits:
                return
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._begin) if delay_s > 0 else self._loop.call_soon(self._begin)

    async def drain(self) -> None:
        """Wait until every request that waits now is answered, then store the counts."""
        await self._idle.wait()
        await self.flush_counts()

    def close(self) -> None:
        """End both threads, after a commit that is under way. Requests that still wait get no answer."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._wake_fd)
        self._committer.stop()
        self._commit_thread.join()
        os.close(self._wake_fd)
        os.close(self._wake_write_fd)

    async def flush_counts(self) -> None:
        """Store what only memory knows of families at their cap, the machines seen since the last flush, and take up
        what other workers stored.

        Raises `KmsFastError` (STORAGE_FAILED or STORE_UNAVAILABLE).
        """
        # Every machine noted so far was seen by then, and every later one is not seen before.
        seen_ms, now_ms = self._ledger.last_time_ms, self._clock_ms()
        for row in sorted(self._unstored):
            family = self.host.table.families[row]
            stored = await self._flush(row, family, now_ms)
            family.load(stored + family.rows_since(seen_ms))
        self._flushed_ms = seen_ms

    def _begin(self) -> None:
        self._timer = None
        batch = self.host.take_batch()
        if batch is None:
            self._idle.set()
            return
        self._busy = True
        now_ms = self._clock_ms()
        table = batch.table
        if now_ms < self._ledger.last_time_ms - CLOCK_BEHIND_MS:
            behind_s = (self._ledger.last_time_ms - now_ms) // 1000
            self._refuse(batch, "HOST_CLOCK", f"this host's clock is {behind_s} s behind its ledger")
            return
        time_ms = max(now_ms, self._ledger.last_time_ms)
        if not table.not_before_ms <= time_ms <= table.not_after_ms:
            dates = f"{format_time(table.not_before_ms)} to {format_time(table.not_after_ms)}"
            self._refuse(batch, "HOST_CERTIFICATE_DATES", f"this host's certificate is valid from {dates}")
            return
        rows = batch.decide_product_and_clock(time_ms)
        below_cap = [row for row in rows if table.families[row].current(time_ms) < table.families[row].cap]
        self._unstored.update(set(rows).difference(below_cap))
        if below_cap:
            counting = self._loop.create_task(self._record_counts(batch, below_cap, time_ms))
            counting.add_done_callback(lambda done: self._counted(batch, time_ms, done))
        else:
            self._commit(batch, time_ms)

    async def _record_counts(self, batch: _core.Batch, rows: Sequence[int], time_ms: int) -> None:
        """Store the batch's machines; each family continues from what the store held before."""
        for row in rows:
            family = batch.table.families[row]
            if row in self._unstored:
                # It has just left its cap, where the store was not told of each machine.
                await self._flush(row, family, time_ms)
                self._unstored.discard(row)
            before = await self._counts.record(
                self._family_numbers[row],
                batch.cmids_of(row),
                time_ms,
                cap=family.cap,
                retention_ms=family.retention_ms,
            )
            family.load(before)

    async def _flush(self, row: int, family: _core.FamilyCount, now_ms: int) -> list[CountRow]:
        return await self._counts.flush(
            self._family_numbers[row],
            family.rows_since(self._flushed_ms),
            now_ms,
            cap=family.cap,
            retention_ms=family.retention_ms,
        )

    def _counted(self, batch: _core.Batch, time_ms: int, counting: asyncio.Task[None]) -> None:
        try:
            counting.result()
        except KmsFastError as error:
            self._refuse(batch, "SERVER_BUSY", error.message)
        else:
            self._commit(batch, time_ms)

    def _commit(self, batch: _core.Batch, time_ms: int) -> None:
        ledger = self._ledger
        try:
            ledger.reserve()
        except KmsFastError as error:
            self._refuse(batch, "SERVER_BUSY", error.message)
            return
        if self._refusing is not None:
            logger.info("requests are no longer answered %s", self._refusing)
            self._refusing = None
        batch.decide_counts(time_ms)
        header_hash = batch.seal(ledger.segment, ledger.number, time_ms, ledger.previous, self._sign)
        ledger.append(self._committer, batch, header_hash, time_ms)
        # Batches of one come from a quiet network, where the next request should not wait.
        self._earliest_start_s = self._loop.time() + (self._spacing_s if batch.size > 1 else 0.0)

    def _committed(self) -> None:
        os.read(self._wake_fd, 1)
        try:
            batch = self._committer.finish()
        except OSError as error:
            self._stopped = True
            self._on_failure(
                KmsFastError(
                    f"The ledger {self._ledger.path} could not be written: {error.strerror}.",
                    name="STORAGE_FAILED",
                    file=str(self._ledger.path),
                    reason=error.strerror,
                )
            )
            return
        self._next()
        batch.answer()

    def _refuse(self, batch: _core.Batch, name: str, reason: str) -> None:
        """Refuse every request of a batch; the reason is logged once, not for each batch."""
        if self._refusing != name:
            self._refusing = name
            logger.error("requests are answered %s: %s", name, reason)
        batch.refuse(BY_NAME[name].code)
        # Not at once as after a commit: a thousand batches may wait, and each would be a call within a call.
        self._busy = False
        if self.host.waiting == 0:
            self._idle.set()
        else:
            self.wake()

    def _next(self) -> None:
        """The batch in work is on disk: take the next one, before the answers are written."""
        self._busy = False
        if self.host.waiting == 0:
            self._idle.set()
        elif self._loop.time() >= self._earliest_start_s:
            self._begin()
        else:
            self.wake()
