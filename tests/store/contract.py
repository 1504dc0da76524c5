"""What every store of counts must do, whatever it stores in. A store's test module subclasses `CountsContract`.

class TestSqliteCounts(CountsContract):
    @pytest.fixture
    def open_counts(self, tmp_path):
        async def open_counts(): return SqliteCounts(tmp_path / "counts.db")
        return open_counts
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from kms_fast.errors import KmsFastError
from kms_fast.store import CountRow, Counts

OpenCounts = Callable[[], Awaitable[Counts]]
RETENTION_MS = 1_000_000
NOW_MS = 1_800_000_000_000
CAP = 50


def cmid(number: int) -> bytes:
    return number.to_bytes(16, "big")


async def record(
    counts: Counts, numbers: list[int], now_ms: int = NOW_MS, *, family: int = 1, cap: int = CAP
) -> list[int]:
    """Records machines; gives those that counted before."""
    before = await counts.record(family, [cmid(n) for n in numbers], now_ms, cap=cap, retention_ms=RETENTION_MS)
    return [int.from_bytes(row[0], "big") for row in before]


async def load(counts: Counts, now_ms: int = NOW_MS, *, family: int = 1, cap: int = CAP) -> list[CountRow]:
    return await counts.load(family, now_ms, cap=cap, retention_ms=RETENTION_MS)


async def load_once_up(counts: Counts, now_ms: int, *, cap: int) -> list[CountRow]:
    """What is stored, as soon as the store answers."""
    while True:
        try:
            return await load(counts, now_ms, cap=cap)
        except KmsFastError:
            await asyncio.sleep(0.02)


def numbers(rows: list[CountRow]) -> list[int]:
    return [int.from_bytes(row[0], "big") for row in rows]


class CountsContract:
    """``open_counts`` opens the same store each time."""

    @pytest.fixture
    async def counts(self, open_counts: OpenCounts) -> AsyncIterator[Counts]:
        counts = await open_counts()
        yield counts
        await counts.close()

    async def test_an_empty_store(self, counts: Counts) -> None:
        assert await load(counts) == []

    async def test_record_gives_what_was_there_before(self, counts: Counts) -> None:
        assert await record(counts, [1, 2]) == []
        assert await record(counts, [3], NOW_MS + 1) == [1, 2]
        assert await load(counts, NOW_MS + 1) == [(cmid(1), NOW_MS), (cmid(2), NOW_MS), (cmid(3), NOW_MS + 1)]

    async def test_a_machine_counts_once(self, counts: Counts) -> None:
        assert await record(counts, [7] * 1000) == []
        for _ in range(3):
            assert await record(counts, [7] * 1000, NOW_MS + 5) == [7]
        assert await load(counts, NOW_MS + 5) == [(cmid(7), NOW_MS + 5)]

    async def test_times_are_cut_after_a_clock_that_was_ahead(self, counts: Counts) -> None:
        await record(counts, [1, 2])
        await record(counts, [3, 4], NOW_MS + 9)
        await counts.cut_times(NOW_MS + 1)
        assert [seen_ms for _, seen_ms in await load(counts)] == [NOW_MS, NOW_MS, NOW_MS + 1, NOW_MS + 1]

    async def test_the_same_machine_again_is_the_newest(self, counts: Counts) -> None:
        await record(counts, [1, 2, 3])
        await record(counts, [1], NOW_MS + 1)
        assert numbers(await load(counts, NOW_MS + 1)) == [2, 3, 1]

    async def test_families_are_apart(self, counts: Counts) -> None:
        await record(counts, [1], family=1)
        await record(counts, [1, 2], family=2)
        assert (numbers(await load(counts, family=1)), numbers(await load(counts, family=2))) == ([1], [1, 2])

    async def test_past_the_cap_the_oldest_go(self, counts: Counts) -> None:
        for number in range(8):
            await record(counts, [number], NOW_MS + number, cap=5)
        assert numbers(await load(counts, NOW_MS + 8, cap=50)) == [3, 4, 5, 6, 7]

    async def test_a_batch_larger_than_the_cap_keeps_its_last(self, counts: Counts) -> None:
        await record(counts, [1], cap=5)
        assert await record(counts, list(range(10, 1034)), NOW_MS + 1, cap=5) == [1]
        assert numbers(await load(counts, NOW_MS + 1)) == list(range(1029, 1034))

    async def test_machines_of_one_millisecond_keep_the_order_of_their_arrival(self, counts: Counts) -> None:
        await record(counts, [5, 3, 9, 1])
        assert numbers(await load(counts)) == [5, 3, 9, 1]
        await record(counts, [2], cap=4)
        assert numbers(await load(counts)) == [3, 9, 1, 2]

    async def test_retention_is_inclusive(self, counts: Counts) -> None:
        await record(counts, [1])
        await record(counts, [2], NOW_MS + 1)
        assert numbers(await load(counts, NOW_MS + RETENTION_MS)) == [1, 2]
        assert numbers(await load(counts, NOW_MS + RETENTION_MS + 1)) == [2]
        assert await record(counts, [], NOW_MS + RETENTION_MS + 2) == []

    async def test_a_machine_that_comes_back_after_retention_is_new(self, counts: Counts) -> None:
        await record(counts, [1])
        assert await record(counts, [1], NOW_MS + RETENTION_MS + 1) == []
        assert numbers(await load(counts, NOW_MS + RETENTION_MS + 1)) == [1]

    async def test_time_never_goes_back_for_a_machine(self, counts: Counts) -> None:
        """Another host's clock may be ahead."""
        await record(counts, [1], NOW_MS + 500)
        await record(counts, [1], NOW_MS)
        assert await load(counts, NOW_MS + 500) == [(cmid(1), NOW_MS + 500)]

    async def test_flush_stores_the_newest(self, counts: Counts) -> None:
        await record(counts, [1, 2, 3], cap=3)
        rows = [(cmid(2), NOW_MS + 3), (cmid(8), NOW_MS + 4)]
        after = await counts.flush(1, rows, NOW_MS + 4, cap=3, retention_ms=RETENTION_MS)
        assert after == await load(counts, NOW_MS + 4)
        assert (after[1:], len(after)) == (rows, 3)

    async def test_a_flush_keeps_the_last_request_of_a_machine(self, counts: Counts) -> None:
        rows = [(cmid(1), NOW_MS), (cmid(2), NOW_MS + 1), (cmid(1), NOW_MS + 2)]
        stored = await counts.flush(1, rows, NOW_MS + 2, cap=CAP, retention_ms=RETENTION_MS)
        assert stored == [(cmid(2), NOW_MS + 1), (cmid(1), NOW_MS + 2)]

    async def test_reading_all_gives_each_family_in_order(self, counts: Counts) -> None:
        assert await counts.read_all() == {}
        await record(counts, [5, 3], family=2)
        await record(counts, [7], NOW_MS + 2)
        await record(counts, [6], NOW_MS + 1)
        assert await counts.read_all() == {
            1: [(cmid(6), NOW_MS + 1), (cmid(7), NOW_MS + 2)],
            2: [(cmid(5), NOW_MS), (cmid(3), NOW_MS)],
        }

    async def test_what_is_recorded_survives(self, open_counts: OpenCounts) -> None:
        counts = await open_counts()
        await record(counts, [1, 2])
        await counts.close()
        counts = await open_counts()
        assert await record(counts, [3], NOW_MS + 1) == [1, 2]
        await counts.close()

    async def test_two_users_of_one_store_count_together(self, open_counts: OpenCounts) -> None:
        users = [await open_counts() for _ in range(2)]
        seen = [len(await record(users[n % 2], [n], NOW_MS + n)) for n in range(25)]
        assert seen == list(range(25))
        for user in users:
            await user.close()

    async def test_exactly_one_machine_is_the_first_to_be_granted(self, open_counts: OpenCounts) -> None:
        """Threshold 25, 8 users, 25 machines at once, a call each: only one call sees the 24 others before it."""
        users = [await open_counts() for _ in range(8)]
        for family in range(20):
            before = await asyncio.gather(
                *(record(users[n % 8], [n], NOW_MS + n % 3, family=family) for n in range(25))
            )
            assert sorted(map(len, before)) == list(range(25))
        for user in users:
            await user.close()
