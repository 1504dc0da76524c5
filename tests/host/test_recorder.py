"""The recorder in this process: what it records when, elections, outages of the store, a full disk."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kms_fast import _core
from kms_fast.errors import KmsFastError
from kms_fast.host import recorder as recorder_module
from kms_fast.host.recorder import Recorder
from kms_fast.host.segment import read_start_of
from kms_fast.results import BY_NAME
from kms_fast.store import ChangeRow, Inventory, Total, Watermark
from kms_fast.store.sqlite_inventory import SqliteInventory
from tests.segments import HOST_ID, REFUSED, SKU, SegmentWriter, make_entry

NOW_MS = 1_800_000_000_000


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_S", "GATHER_S", "LOOK_S", "ELECTION_S", "FIRST_RETRY_S", "LONGEST_RETRY_S"):
        monkeypatch.setattr(recorder_module, name, 0.01)


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[SegmentWriter]:
    with SegmentWriter(tmp_path / "ledger", 1) as segment:
        yield segment


def make_recorder(tmp_path: Path, open_inventory: Callable[[], Awaitable[Inventory]] | None = None) -> Recorder:
    async def open_file() -> Inventory:
        return SqliteInventory(tmp_path / "inventory.db")

    return Recorder(
        folder=tmp_path / "ledger",
        host_id=HOST_ID,
        open_inventory=open_inventory or open_file,
        clock_ms=lambda: NOW_MS,
        room=1000,
    )


DAY_MS = 86_400_000


def write_ended(tmp_path: Path, segment: int, time_ms: int) -> Path:
    with SegmentWriter(tmp_path / "ledger", segment) as writer:
        writer.append([entry(segment)], time_ms)
        writer.end()
    return writer.path


async def test_old_records_are_dropped_once_they_are_recorded(tmp_path: Path) -> None:
    old = [write_ended(tmp_path, number, NOW_MS - 91 * DAY_MS) for number in (1, 2)]
    young = write_ended(tmp_path, 3, NOW_MS - 89 * DAY_MS)
    recorder = make_recorder(tmp_path)
    async with running(recorder):
        await wait_until(lambda: recorder.recorded == 3)
        await asyncio.sleep(0.1)
        assert not any(read_start_of(path).pruned for path in old)
        recorder.keep_records_ms = 90 * DAY_MS
        await wait_until(lambda: all(read_start_of(path).pruned for path in old))
    assert not read_start_of(young).pruned
    assert await count_activations(tmp_path) == 3


async def test_a_segment_that_cannot_be_pruned_does_not_stop_the_recorder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise KmsFastError("The disk is full.", name="STORAGE_FAILED")

    monkeypatch.setattr(recorder_module, "prune_ledger", fail)
    write_ended(tmp_path, 1, NOW_MS - 91 * DAY_MS)
    recorder = make_recorder(tmp_path)
    recorder.keep_records_ms = 90 * DAY_MS
    async with running(recorder):
        await wait_until(lambda: "pruned again in an hour" in caplog.text)
        write_ended(tmp_path, 2, NOW_MS)
        await wait_until(lambda: recorder.recorded == 2)
    assert caplog.text.count("The disk is full") == 1


@asynccontextmanager
async def running(recorder: Recorder) -> Any:
    """The recorder at work; drained at the end."""
    ready = asyncio.Event()
    task = asyncio.create_task(recorder.run(ready.set))
    await asyncio.wait_for(ready.wait(), 30)
    yield task
    recorder.drain()
    await asyncio.wait_for(task, 60)


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def count_activations(tmp_path: Path) -> int:
    inventory = SqliteInventory(tmp_path / "inventory.db")
    clients = await inventory.find(limit=100_000)
    results = (await inventory.summarize(NOW_MS)).results
    await inventory.close()
    activations = sum(client.activations for client in clients)
    assert results.get(0, 0) == activations
    return activations


def fill(path: Path) -> None:
    """Leave no room on the path's file system."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def entry(number: int, **changes: Any) -> bytes:
    return make_entry(number.to_bytes(16, "big"), **changes)


async def test_drained_it_has_recorded_what_was_there(tmp_path: Path, segment: SegmentWriter) -> None:
    for number in range(30):
        segment.append([entry(number), entry(number + 1)], NOW_MS + number)
    async with running(make_recorder(tmp_path)):
        pass
    assert await count_activations(tmp_path) == 60


async def test_what_comes_is_recorded(tmp_path: Path, segment: SegmentWriter) -> None:
    recorder = make_recorder(tmp_path)
    async with running(recorder):
        for number in range(20):
            segment.append([entry(number), entry(7, result=REFUSED)], NOW_MS + number)
            await wait_until(lambda number=number: recorder.recorded == 2 * number + 2)  # type: ignore[misc]
    inventory = SqliteInventory(tmp_path / "inventory.db")
    [seven] = await inventory.get((7).to_bytes(16, "big"))
    assert (seven.activations, seven.refusals, seven.refused_ms) == (1, 20, NOW_MS + 19)
    [mark] = await inventory.watermarks(HOST_ID)
    assert mark == Watermark(1, segment.offsets[-1], 20, segment.header_hash, NOW_MS + 19)
    assert (await inventory.summarize(NOW_MS)).results == {0: 20, REFUSED: 20}
    await inventory.close()


async def test_draining_ends_although_another_host_goes_on(tmp_path: Path, segment: SegmentWriter) -> None:
    """As when a new version serves beside the old one: there is always something new in the ledger."""

    class Beside(SqliteInventory):
        async def record(
            self, host_id: bytes, rows: Iterable[ChangeRow], totals: Sequence[Total], watermarks: Sequence[Watermark]
        ) -> None:
            segment.append([entry(segment.number)], NOW_MS + segment.number)
            await super().record(host_id, rows, totals, watermarks)

    async def open_beside() -> Inventory:
        return Beside(tmp_path / "inventory.db")

    segment.append([entry(0)], NOW_MS)
    recorder = make_recorder(tmp_path, open_beside)
    async with running(recorder):
        await wait_until(lambda: recorder.recorded > 2)
    assert recorder.recorded < segment.number


async def test_a_transaction_is_bounded(
    tmp_path: Path, segment: SegmentWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Counting(SqliteInventory):
        async def record(
            self, host_id: bytes, rows: Iterable[ChangeRow], totals: Sequence[Total], watermarks: Sequence[Watermark]
        ) -> None:
            sizes.append(sum(total.requests for total in totals))
            await super().record(host_id, rows, totals, watermarks)

    for number in range(30):
        segment.append([entry(number * 100 + i) for i in range(100)], NOW_MS)

    async def open_counting() -> Inventory:
        return Counting(tmp_path / "inventory.db")

    async with running(make_recorder(tmp_path, open_counting)):
        pass
    assert sizes == [1000, 1000, 1000]
    assert await count_activations(tmp_path) == 3000


@pytest.mark.parametrize(("keep_s", "keep_records", "is_kept"), [(60.0, 1, True), (0.0, 1, False), (60.0, 2, False)])
async def test_the_memory_of_a_part_serves_the_next_for_a_while(
    tmp_path: Path,
    segment: SegmentWriter,
    monkeypatch: pytest.MonkeyPatch,
    keep_s: float,
    keep_records: int,
    is_kept: bool,
) -> None:
    made: list[_core.Fold] = []

    def make_fold(room: int) -> _core.Fold:
        made.append(_core.Fold(room))
        return made[-1]

    monkeypatch.setattr(recorder_module, "KEEP_MEMORY_S", keep_s)
    monkeypatch.setattr(recorder_module, "KEEP_MEMORY_RECORDS", keep_records)
    monkeypatch.setattr(recorder_module, "_core", SimpleNamespace(Fold=make_fold))
    recorder = make_recorder(tmp_path)
    made_first = 0
    async with running(recorder):
        for number in range(4):
            segment.append([entry(number)], NOW_MS + number)
            await wait_until(lambda number=number: recorder.recorded == number + 1)  # type: ignore[misc]
            made_first = made_first or len(made)
    assert (len(made) == made_first) == is_kept
    assert await count_activations(tmp_path) == 4


def make_unsteady(
    tmp_path: Path, *, happens: Callable[[int], bool], is_told: Callable[[int], bool]
) -> tuple[Callable[[], Awaitable[Inventory]], list[int]]:
    """An inventory whose transactions, by their number, happen or not, and end in a lost connection unless told; and
    the numbers so far.
    """
    attempts: list[int] = []

    class Unsteady(SqliteInventory):
        async def record(
            self, host_id: bytes, rows: Iterable[ChangeRow], totals: Sequence[Total], watermarks: Sequence[Watermark]
        ) -> None:
            number = len(attempts) + 1
            attempts.append(number)
            if happens(number):
                await super().record(host_id, rows, totals, watermarks)
            if not is_told(number):
                raise KmsFastError("Connection lost.", name="STORE_UNAVAILABLE")

    async def open_unsteady() -> Inventory:
        return Unsteady(tmp_path / "inventory.db")

    return open_unsteady, attempts


async def test_a_part_that_was_read_ahead_is_read_again_after_an_outage(tmp_path: Path, segment: SegmentWriter) -> None:
    open_unsteady, attempts = make_unsteady(
        tmp_path, happens=lambda number: number != 2, is_told=lambda number: number != 2
    )
    for number in range(40):
        segment.append([entry(number * 100 + i) for i in range(100)], NOW_MS)
    recorder = make_recorder(tmp_path, open_unsteady)
    async with running(recorder):
        await wait_until(lambda: recorder.recorded == 4000)
    assert len(attempts) == 5
    assert await count_activations(tmp_path) == 4000


async def test_one_after_the_other_counts_once(tmp_path: Path, segment: SegmentWriter) -> None:
    for number in range(5):
        segment.append([entry(number)], NOW_MS)
        async with running(make_recorder(tmp_path)):
            pass
    assert await count_activations(tmp_path) == 5


async def test_only_the_elected_one_works_and_the_other_takes_over(tmp_path: Path, segment: SegmentWriter) -> None:
    first, second = make_recorder(tmp_path), make_recorder(tmp_path)
    async with running(second):
        await wait_until(lambda: (tmp_path / "inventory.lock").exists())
        async with running(first):
            for number in range(10):
                segment.append([entry(number)], NOW_MS)
                await wait_until(lambda number=number: first.recorded + second.recorded == number + 1)  # type: ignore[misc]
            assert (first.recorded, second.recorded) == (0, 10)
            second.drain()
            await asyncio.sleep(0.05)
            segment.append([entry(10)], NOW_MS)
            await wait_until(lambda: first.recorded == 1)
    assert await count_activations(tmp_path) == 11


async def test_an_outage_is_waited_for_and_told_once(
    tmp_path: Path, segment: SegmentWriter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    outages = 5

    async def open_late() -> Inventory:
        nonlocal outages
        if outages:
            outages -= 1
            raise KmsFastError("The store is down.", name="STORE_UNAVAILABLE")
        return SqliteInventory(tmp_path / "inventory.db")

    segment.append([entry(1)], NOW_MS)
    recorder = make_recorder(tmp_path, open_late)
    async with running(recorder):
        await wait_until(lambda: recorder.recorded == 1)
    assert outages == 0
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "The store is down. The recorder tries again until it can go on."
    ]
    assert "the inventory is recorded again" in caplog.text


async def test_a_store_that_can_only_be_read_is_not_back(
    tmp_path: Path, segment: SegmentWriter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    keep, failures = SqliteInventory.keep_summary, [KmsFastError("The disk is full.", name="STORE_UNAVAILABLE")] * 5

    async def keep_late(inventory: SqliteInventory, summary: Any) -> None:
        if failures:
            raise failures.pop()
        await keep(inventory, summary)

    monkeypatch.setattr(SqliteInventory, "keep_summary", keep_late)
    async with running(make_recorder(tmp_path)):
        await wait_until(lambda: "the inventory is recorded again" in caplog.text)
    assert not failures
    assert caplog.text.count("The disk is full") == caplog.text.count("the inventory is recorded again") == 1


async def test_a_transaction_in_doubt_is_counted_once(tmp_path: Path, segment: SegmentWriter) -> None:
    """The connection is lost with the answer to COMMIT: it may have happened. Every other transaction did."""
    open_unsteady, attempts = make_unsteady(
        tmp_path, happens=lambda number: number % 2 == 1, is_told=lambda number: number % 3 == 0
    )
    recorder = make_recorder(tmp_path, open_unsteady)
    # The third succeeds and is told so; every sixth claims success and did nothing: never reached here.
    task = asyncio.create_task(recorder.run(lambda: None))
    segment.append([entry(1), entry(2)], NOW_MS)
    await wait_until(lambda: len(attempts) >= 1)
    segment.append([entry(1)], NOW_MS + 1)
    await wait_until(lambda: len(attempts) >= 3)
    recorder.drain()
    await asyncio.wait_for(task, 30)
    assert await count_activations(tmp_path) == 3


@pytest.mark.parametrize("name", ["STORE_VERSION", "STORE_REFUSED"])
async def test_other_errors_end_it_and_are_told_with_their_cure(
    tmp_path: Path, segment: SegmentWriter, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    async def refuse() -> Inventory:
        raise KmsFastError("Not these tables.", name=name)

    with pytest.raises(KmsFastError, match="Not these"):
        await make_recorder(tmp_path, refuse).run(lambda: None)
    assert f"the recorder ends: Not these tables. {BY_NAME[name].cure}" in caplog.text


async def test_drained_during_an_outage_it_ends(tmp_path: Path, segment: SegmentWriter) -> None:
    async def fail() -> Inventory:
        raise KmsFastError("Down.", name="STORE_UNAVAILABLE")

    recorder = make_recorder(tmp_path, fail)
    recorder.drain()
    await asyncio.wait_for(recorder.run(lambda: None), 30)


async def test_a_summary_is_kept(tmp_path: Path, segment: SegmentWriter) -> None:
    segment.append([entry(1), entry(2)], NOW_MS)
    recorder = make_recorder(tmp_path)
    async with running(recorder):
        await wait_until(lambda: recorder.recorded == 2)
    inventory = SqliteInventory(tmp_path / "inventory.db")
    summary = await inventory.summary()
    await inventory.close()
    assert summary is not None
    assert (summary.as_of_ms, list(map(tuple, summary.products))) == (NOW_MS, [(SKU, 2)])


async def test_a_full_disk_costs_nothing(
    tmp_path: Path, segment: SegmentWriter, mount: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    small = mount("size=2m")
    ballast = small / "ballast"

    async def open_small() -> Inventory:
        return SqliteInventory(small / "inventory.db")

    recorder = make_recorder(tmp_path, open_small)
    segment.append([entry(1)], NOW_MS)
    async with running(recorder):
        await wait_until(lambda: recorder.recorded == 1)
        fill(ballast)
        for number in range(2, 12):
            segment.append([entry(number * 100 + i) for i in range(100)], NOW_MS)
        await wait_until(lambda: "cannot be used" in caplog.text)
        assert recorder.recorded == 1
        ballast.unlink()
        await wait_until(lambda: recorder.recorded == 1001)
    assert await count_activations(small) == 1001
