"""The recorder: takes what hosts committed to the ledger into the inventory, each record exactly once.

Everything that is new at once forms the next transaction, which also sets the watermarks that it reaches. Whatever ends
a recorder, and whenever, the next one goes on behind the watermarks it finds.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kms_fast import _core
from kms_fast.errors import KmsFastError
from kms_fast.host.child import Condition
from kms_fast.host.prune import prune_ledger
from kms_fast.host.tail import LedgerTail
from kms_fast.messages import log
from kms_fast.store import Inventory, Total, Watermark

# More records in a transaction make each cheaper, since it rewrites fewer pages for each; they are held in memory.
ROOM_RECORDS: Final = 1 << 20
POLL_S: Final = 0.5
# While more keeps coming, it forms one transaction for so long: the more it has to record, the less a record costs.
GATHER_S: Final = 10.0
LOOK_S: Final = 1.0
# The memory of a part serves the next one, until for so long none had as many records.
KEEP_MEMORY_S: Final = 60.0
KEEP_MEMORY_RECORDS: Final = 10_000
ELECTION_S: Final = 2.0
FIRST_RETRY_S: Final = 0.5
LONGEST_RETRY_S: Final = 30.0
SUMMARY_S: Final = 10.0
# At most this share of the recorder's time goes into summaries.
SUMMARY_SHARE: Final = 0.05
PRUNE_S: Final = 3600.0
_OUTAGES: Final = frozenset({"STORAGE_FAILED", "STORE_IN_USE", "STORE_UNAVAILABLE"})


@dataclass(frozen=True, slots=True)
class _Part:
    """What one transaction records. ``is_last``: the recorder was told to drain before this was read."""

    fold: _core.Fold
    watermarks: list[Watermark]
    is_last: bool


class Recorder:
    """Records one host's ledger until told to drain.

    ``open_inventory`` is called at the start, and again after each outage of the store or the ledger's disk.
    ``keep_records_ms``: how long the ledger keeps entries; None for ever. It may be set while this runs.
    ``on_condition`` is told whenever the `Condition` changes.
    """

    def __init__(
        self,
        *,
        folder: Path,
        host_id: bytes,
        open_inventory: Callable[[], Awaitable[Inventory]],
        clock_ms: Callable[[], int],
        keep_records_ms: int | None = None,
        room: int = ROOM_RECORDS,
        on_condition: Callable[[Condition], None] = lambda condition: None,
    ) -> None:
        self._folder = folder
        self._host_id = host_id
        self._open_inventory = open_inventory
        self._clock_ms = clock_ms
        self.keep_records_ms = keep_records_ms
        self._room = room
        self._on_condition = on_condition
        self._condition = Condition()
        self._draining = asyncio.Event()
        self._failures = 0
        self._spare_fold: _core.Fold | None = None
        self._kept_until_s = 0.0
        self._summary_due_s = 0.0
        self._prune_due_s = 0.0
        self.recorded = 0

    def drain(self) -> None:
        """Let `run` record what is there, and return."""
        self._draining.set()

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Record until drained; ``on_ready`` is called once the inventory is open. An outage of the store is waited
        for, but not while draining.

        Raises `KmsFastError` for what waiting does not cure, such as STORE_VERSION or STORE_REFUSED: whoever starts it
        again finds everything as it was.
        """
        while True:
            try:
                inventory = await self._open_inventory()
                try:
                    on_ready()
                    return await self._record_ledger(inventory)
                finally:
                    await inventory.close()
            except KmsFastError as error:
                self._spare_fold = None
                if error.result.name not in _OUTAGES:
                    log("RECORDER_ENDS", error=error)
                    raise
                self._note_outage(error)
                if self._draining.is_set():
                    return None
            await self._pause(self._retry_delay_s())

    async def _record_ledger(self, inventory: Inventory) -> None:
        if not await self._wait_for_election(inventory):
            return
        # What was recorded last is not known after a transaction that failed: the store is asked each time.
        watermarks = await inventory.watermarks(self._host_id)
        tail = await asyncio.to_thread(LedgerTail, self._folder, self._host_id, watermarks)
        try:
            part = await self._read_part(tail)
            while not part.is_last or part.fold.is_full:
                part = await self._record_part(inventory, tail, part)
            # Not until nothing is new: another host may write to the same ledger.
            if part.watermarks:
                await self._store(inventory, part)
        finally:
            tail.close()

    async def _wait_for_election(self, inventory: Inventory) -> bool:
        """Whether this became the host's only recorder; False when drained before."""
        waiting = False
        while not await inventory.elect(self._host_id):
            if self._draining.is_set():
                return False
            if not waiting:
                log("RECORDER_WAITS")
                waiting = True
            await self._pause(ELECTION_S)
        return True

    async def _read_part(self, tail: LedgerTail) -> _Part:
        """What is new, and what comes in the next seconds for as long as there is more at each look."""
        fold = _core.Fold(self._room) if self._spare_fold is None else self._spare_fold
        self._spare_fold = None
        watermarks = dict[int, Watermark]()
        gathered_s = asyncio.get_running_loop().time() + GATHER_S
        while True:
            is_last = self._draining.is_set()  # asked first: what was committed before is in this part or the next
            new = await asyncio.to_thread(tail.fold_new, fold)
            watermarks |= {mark.segment: mark for mark in new}
            if not new or fold.is_full or is_last or asyncio.get_running_loop().time() >= gathered_s:
                break
            await self._pause(LOOK_S)
        self._note_condition(Condition(segments_left=tail.segments_left))
        if watermarks:
            await asyncio.to_thread(fold.sort)
        return _Part(fold, list(watermarks.values()), is_last)

    async def _record_part(self, inventory: Inventory, tail: LedgerTail, part: _Part) -> _Part:
        """Record a part, or wait when it is empty; the part behind it."""
        if not part.watermarks:
            self._keep_memory(part.fold)
            await self._summarize_when_due(inventory)
            await self._prune_when_due(inventory)
            # Not before: a store whose disk is full can be read, and fails at the first write.
            self._note_recovery()
            await self._pause(POLL_S)
            return await self._read_part(tail)
        storing = asyncio.create_task(self._store(inventory, part))
        try:
            # More waits behind a full part.
            following = await self._read_part(tail) if part.fold.is_full else None
        finally:
            await asyncio.wait([storing])
        storing.result()
        await self._summarize_when_due(inventory)
        return following or await self._read_part(tail)

    async def _store(self, inventory: Inventory, part: _Part) -> None:
        totals = [Total(*total) for total in part.fold.totals()]
        await inventory.record(self._host_id, part.fold, totals, part.watermarks)
        self.recorded += len(part.fold)
        if len(part.fold) >= KEEP_MEMORY_RECORDS:
            self._kept_until_s = asyncio.get_running_loop().time() + KEEP_MEMORY_S
        self._keep_memory(part.fold)
        self._note_recovery()

    def _keep_memory(self, fold: _core.Fold) -> None:
        fold.clear()
        self._spare_fold = fold if asyncio.get_running_loop().time() < self._kept_until_s else None

    async def _summarize_when_due(self, inventory: Inventory) -> None:
        """Count the inventory anew: every ten seconds, and the less often the longer that takes."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        if started_s < self._summary_due_s:
            return
        await inventory.keep_summary(await inventory.summarize(self._clock_ms()))
        ended_s = loop.time()
        self._summary_due_s = ended_s + max(SUMMARY_S, (ended_s - started_s) / SUMMARY_SHARE)

    async def _prune_when_due(self, inventory: Inventory) -> None:
        """Every hour drop entries that are old enough; a segment at a time, so that recording goes on between them."""
        now_s = asyncio.get_running_loop().time()
        if self.keep_records_ms is None or now_s < self._prune_due_s:
            return
        self._prune_due_s = now_s + PRUNE_S
        watermarks = await inventory.watermarks(self._host_id)
        before_ms = self._clock_ms() - self.keep_records_ms
        try:
            pruned = await asyncio.to_thread(prune_ledger, self._folder, watermarks, before_ms=before_ms, limit=1)
        except KmsFastError as error:
            log("PRUNE_FAILED", error=error)
            return
        if pruned.segments:
            log("PRUNED", batches=pruned.batches)
            self._prune_due_s = now_s

    def _note_condition(self, condition: Condition) -> None:
        if condition != self._condition:
            self._condition = condition
            self._on_condition(condition)

    def _note_recovery(self) -> None:
        if self._failures:
            log("RECORDER_BACK")
            self._failures = 0

    def _note_outage(self, error: KmsFastError) -> None:
        if not self._failures:
            log("RECORDER_OUTAGE", error=error)
        self._failures += 1

    def _retry_delay_s(self) -> float:
        """Twice as long each time, and never the same for two hosts."""
        longest_s = min(LONGEST_RETRY_S, FIRST_RETRY_S * float(1 << min(self._failures - 1, 10)))
        return longest_s * random.uniform(0.5, 1.0)

    async def _pause(self, delay_s: float) -> None:
        """Wait; not for long once draining."""
        try:
            await asyncio.wait_for(self._draining.wait(), delay_s)
        except TimeoutError:
            return
