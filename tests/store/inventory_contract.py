"""What every inventory must do, whatever it stores in. A store's test module subclasses `InventoryContract`.

class TestSqliteInventory(InventoryContract):
    @pytest.fixture
    def open_inventory(self, tmp_path):
        async def open_inventory(): return SqliteInventory(tmp_path / "inventory.db")
        return open_inventory
"""

import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from kms_fast.store import ChangeRow, Client, HostPart, Inventory, Position, Total, Watermark

OpenInventory = Callable[[], Awaitable[Inventory]]
HOST, OTHER_HOST = b"h" * 16, b"o" * 16
SKU, OTHER_SKU = b"s" * 16, b"t" * 16
NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000
REFUSED = 0xC004F038


def cmid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def granted(number: int, time_ms: int = NOW_MS, **changes: Any) -> ChangeRow:
    """A row of one grant, for 180 days; ``changes`` to fields of `Client`, and ``first_hardware``."""
    one = {"activations": 1, "activated_ms": time_ms, "expires_ms": time_ms + 180 * DAY_MS}
    return make_row(number, **({"first_seen_ms": time_ms} | one | changes))


def refused(number: int, time_ms: int = NOW_MS, **changes: Any) -> ChangeRow:
    """A row of one refusal, of a machine in its initial grace."""
    one = {"refusals": 1, "refused_ms": time_ms, "refusal": REFUSED, "state": 2}
    return make_row(number, **({"first_seen_ms": time_ms} | one | changes))


def make_row(number: int, *, first_hardware: bytes | None = None, **changes: Any) -> ChangeRow:
    client = replace(
        Client(
            cmid=cmid(number), sku=SKU, first_seen_ms=NOW_MS, last_seen_ms=0, activations=0, activated_ms=None,
            expires_ms=None, refusals=0, refused_ms=None, refusal=None, state=1, name=f"desk-{number:04}",
            address=bytes([192, 0, 2, number % 256]), hardware=b"w" * 16, hardware_changes=0, predecessor=None,
            previous_cmid=None, virtual=0, library_version=1 << 24,
        ),
        **changes,
    )  # fmt: skip
    row = client.to_change()
    said = hashlib.sha256(repr((row[9:12], row[13], row[16:])).encode()).digest()[:8]
    return (*row[:12], first_hardware or client.hardware, *row[13:-1], None if client.hardware_changes else said)


def by_key(rows: Sequence[ChangeRow]) -> list[ChangeRow]:
    return sorted(rows, key=lambda row: row[:2])


async def record(
    inventory: Inventory, *rows: ChangeRow, totals: Sequence[Total] = (), watermarks: Sequence[Watermark] = ()
) -> None:
    await inventory.record(HOST, by_key(rows), totals, watermarks)


async def get(inventory: Inventory, number: int) -> Client:
    [client] = await inventory.get(cmid(number))
    return client


def numbers(clients: Sequence[Client]) -> list[int]:
    return [int.from_bytes(client.cmid, "big") for client in clients]


async def read_pages(inventory: Inventory, **wanted: Any) -> list[Client]:
    """All that `find` gives, in pages of three."""
    found: list[Client] = []
    while page := await inventory.find(limit=3, after=found[-1].position if found else None, **wanted):
        assert len(page) <= 3
        found += page
    return found


class InventoryContract:
    """``open_inventory`` opens the same store each time."""

    @pytest.fixture
    async def inventory(self, open_inventory: OpenInventory) -> AsyncIterator[Inventory]:
        inventory = await open_inventory()
        assert await inventory.elect(HOST)
        yield inventory
        await inventory.close()

    async def test_an_empty_store(self, inventory: Inventory) -> None:
        assert await inventory.find() == []
        assert await inventory.get(cmid(1)) == []
        assert await inventory.watermarks(HOST) == []
        assert await inventory.summary() is None
        assert [part async for part in inventory.read_all()] == []

    async def test_a_client_is_what_its_row_says(self, inventory: Inventory) -> None:
        row = granted(
            7,
            name="Büro-7",
            address=bytes(range(16)),
            predecessor=b"p" * 32,
            previous_cmid=b"c" * 16,
            virtual=1,
            state=1,
        )
        await record(inventory, row)
        client = await get(inventory, 7)
        assert client.to_change()[:-1] == row[:-1]
        assert client.last_seen_ms == NOW_MS

    async def test_what_is_not_known_is_none(self, inventory: Inventory) -> None:
        await record(inventory, refused(7, name=None, address=None))
        client = await get(inventory, 7)
        assert (client.name, client.address, client.predecessor, client.previous_cmid) == (None, None, None, None)
        assert (client.activations, client.activated_ms, client.expires_ms) == (0, None, None)
        assert (client.refusals, client.refused_ms, client.refusal) == (1, NOW_MS, REFUSED)
        assert (client.state, client.last_seen_ms) == (2, NOW_MS)

    async def test_renewals_add_up(self, inventory: Inventory) -> None:
        for week in range(4):
            await record(
                inventory, granted(7, NOW_MS + 7 * week * DAY_MS, predecessor=bytes([week]) * 32 if week else None)
            )
        client = await get(inventory, 7)
        assert (client.activations, client.first_seen_ms) == (4, NOW_MS)
        assert client.activated_ms == client.last_seen_ms == NOW_MS + 21 * DAY_MS
        assert client.expires_ms == NOW_MS + 201 * DAY_MS
        assert client.predecessor == b"\3" * 32

    async def test_a_shorter_lease_counts_when_it_is_the_newest(self, inventory: Inventory) -> None:
        await record(inventory, granted(7))
        await record(inventory, granted(7, NOW_MS + 1, expires_ms=NOW_MS + DAY_MS))
        assert (await get(inventory, 7)).expires_ms == NOW_MS + DAY_MS

    async def test_a_refusal_leaves_the_lease(self, inventory: Inventory) -> None:
        await record(inventory, granted(7))
        await record(inventory, refused(7, NOW_MS + 5, state=3))
        client = await get(inventory, 7)
        assert (client.activations, client.activated_ms, client.expires_ms) == (1, NOW_MS, NOW_MS + 180 * DAY_MS)
        assert (client.refusals, client.refused_ms, client.state) == (1, NOW_MS + 5, 3)
        assert client.last_seen_ms == NOW_MS + 5

    async def test_the_last_refusals_reason(self, inventory: Inventory) -> None:
        await record(inventory, refused(7))
        await record(inventory, refused(7, NOW_MS + 5, refusal=0xC004F06C))
        await record(inventory, refused(7, NOW_MS + 4, refusal=0xC004F042))
        client = await get(inventory, 7)
        assert (client.refusals, client.refused_ms, client.refusal) == (3, NOW_MS + 5, 0xC004F06C)

    async def test_the_order_of_recording_does_not_matter(
        self, open_inventory: OpenInventory, inventory: Inventory
    ) -> None:
        """Segments of several workers are not read in step. What the first and the last said differs in everything."""
        rows = [
            refused(7, NOW_MS, name="before", address=b"1111", state=0, virtual=1, library_version=1),
            granted(7, NOW_MS + 10, name="first", address=None, predecessor=None, previous_cmid=b"1" * 16),
            granted(7, NOW_MS + 20, name="second", address=b"2" * 16, predecessor=b"2" * 32, expires_ms=NOW_MS + 30),
            refused(7, NOW_MS + 30, name=None, address=b"3333", state=3, predecessor=b"3" * 32, previous_cmid=None),
        ]
        shuffled = random.Random(1)
        for number in range(12):
            shuffled.shuffle(rows)
            for row in rows:
                await record(inventory, (cmid(number), *row[1:]))
        expected = await get(inventory, 0)
        assert (expected.name, expected.address, expected.state, expected.previous_cmid) == (None, b"3333", 3, None)
        assert (expected.first_seen_ms, expected.expires_ms, expected.refused_ms) == (NOW_MS, NOW_MS + 30, NOW_MS + 30)
        assert (expected.activations, expected.refusals, expected.predecessor) == (2, 2, b"3" * 32)
        for number in range(12):
            assert replace(await get(inventory, number), cmid=cmid(0)) == expected

    async def test_a_name_that_changes_in_case_only(self, inventory: Inventory) -> None:
        await record(inventory, granted(7, name="desk"))
        await record(inventory, granted(7, NOW_MS + 1, name="DESK"))
        assert (await get(inventory, 7)).name == "DESK"

    async def test_clones_show(self, inventory: Inventory) -> None:
        one, other = b"1" * 16, b"2" * 16
        await record(inventory, granted(1), granted(7, hardware=one))
        for step in range(1, 5):
            await record(
                inventory, granted(1, NOW_MS + step), granted(7, NOW_MS + step, hardware=(one, other)[step % 2])
            )
        assert (await get(inventory, 7)).hardware_changes == 4
        # Within one row: from one to the other and back, and before that from what is known to the first.
        await record(inventory, granted(7, NOW_MS + 9, first_hardware=other, hardware=other, hardware_changes=2))
        client = await get(inventory, 7)
        assert (client.hardware_changes, client.hardware) == (7, other)
        assert (await get(inventory, 1)).hardware_changes == 0
        assert numbers(await inventory.find(cloned=True)) == [7]

    async def test_skus_are_apart(self, inventory: Inventory) -> None:
        await record(inventory, granted(7), refused(7, sku=OTHER_SKU))
        first, second = await inventory.find()
        assert (first.sku, first.activations, first.refusals) == (SKU, 1, 0)
        assert (second.sku, second.activations, second.refusals) == (OTHER_SKU, 0, 1)
        assert sorted(client.sku for client in await inventory.get(cmid(7))) == [SKU, OTHER_SKU]

    async def test_many_rows_at_once(self, inventory: Inventory) -> None:
        """More than a store may send to its database in one go; half of them known."""
        await record(inventory, *(granted(number) for number in range(0, 5000, 2)))
        await record(inventory, *(granted(number, NOW_MS + 1) for number in range(5003)))
        found = await inventory.find(limit=10_000)
        assert numbers(found) == list(range(5003))
        assert [found[n].activations for n in (0, 1, 4998, 4999, 5002)] == [2, 1, 2, 1, 1]
        assert sum(client.activations for client in found) == 2500 + 5003

    async def test_pages(self, inventory: Inventory) -> None:
        await record(
            inventory, *(granted(number) for number in range(10)), *(granted(n, sku=OTHER_SKU) for n in (4, 5))
        )
        assert numbers(await read_pages(inventory)) == [0, 1, 2, 3, 4, 4, 5, 5, 6, 7, 8, 9]
        assert numbers(await inventory.find(after=Position(cmid(8), SKU))) == [9]

    async def test_search_by_the_beginning_of_a_name(self, inventory: Inventory) -> None:
        names = ["web-1", "Web-3", "WEB-2", "webb", "we", "xweb-1", "web-", "web_1", "wëb-1", "100%", "web-😀", None]
        await record(inventory, *(granted(number, name=name) for number, name in enumerate(names)))
        found = await read_pages(inventory, name="web-")
        assert [client.name for client in found] == ["web-", "web-1", "WEB-2", "Web-3", "web-😀"]
        assert [client.name for client in await inventory.find(name="WEB-1")] == ["web-1"]
        assert [client.name for client in await inventory.find(name="wë")] == ["wëb-1"]
        assert [client.name for client in await inventory.find(name="100%")] == ["100%"]
        assert await inventory.find(name="%") == []
        assert len(await inventory.find(name="")) == len(names) - 1

    async def test_machines_of_one_name(self, inventory: Inventory) -> None:
        await record(
            inventory, *(granted(n, name="localhost") for n in range(8)), granted(3, name="localhost", sku=OTHER_SKU)
        )
        assert numbers(await read_pages(inventory, name="local")) == [0, 1, 2, 3, 3, 4, 5, 6, 7]

    async def test_filter_by_state(self, inventory: Inventory) -> None:
        await record(inventory, *(refused(n, state=(0, 2, 3, 5)[n % 4]) for n in range(12)), granted(12), granted(13))
        assert numbers(await read_pages(inventory, state=5)) == [3, 7, 11]
        assert numbers(await read_pages(inventory, state=1)) == [12, 13]
        assert numbers(await read_pages(inventory, state=2, name="desk-000")) == [1, 5, 9]
        await record(inventory, granted(3, NOW_MS + 1))
        assert numbers(await read_pages(inventory, state=5)) == [7, 11]

    async def test_a_machine_is_found_by_its_new_name_only(self, inventory: Inventory) -> None:
        await record(inventory, granted(7, name="old"))
        await record(inventory, granted(7, NOW_MS + 1, name="new"))
        assert (await inventory.find(name="old"), numbers(await inventory.find(name="new"))) == ([], [7])

    async def test_watermarks(self, inventory: Inventory) -> None:
        marks = [Watermark(segment, 4096, 3, bytes([segment]) * 32, NOW_MS) for segment in (1, 2, 3)]
        await record(inventory, watermarks=[marks[2], marks[0]])
        moved = replace(marks[0], offset=9000, number=8, header_hash=b"x" * 32, time_ms=NOW_MS + 9)
        await record(inventory, watermarks=[moved, marks[1]])
        assert await inventory.watermarks(HOST) == [moved, marks[1], marks[2]]
        assert await inventory.watermarks(OTHER_HOST) == []

    async def test_what_fails_leaves_nothing(self, inventory: Inventory) -> None:
        """Rows and watermarks are one transaction: neither may be there without the other."""
        mark = Watermark(1, 4096, 1, b"x" * 32, NOW_MS)
        await record(inventory, granted(1), totals=[Total(SKU, 0, 1, 1)], watermarks=[mark])

        def broken() -> Any:
            yield granted(1, NOW_MS + 1)
            yield granted(2)
            raise RuntimeError("on purpose")

        with pytest.raises(RuntimeError, match="on purpose"):
            await inventory.record(HOST, broken(), [Total(SKU, 0, 1, 2)], [replace(mark, number=2)])
        assert numbers(await inventory.find()) == [1]
        assert (await get(inventory, 1)).activations == 1
        assert await inventory.watermarks(HOST) == [mark]
        await record(inventory, granted(1, NOW_MS + 1), granted(2), totals=[Total(SKU, 0, 1, 2)])
        assert (await inventory.summarize(NOW_MS)).results == {0: 3}
        assert (await get(inventory, 1)).activations == 2

    async def test_what_is_recorded_survives(self, open_inventory: OpenInventory) -> None:
        first = await open_inventory()
        assert await first.elect(HOST)
        mark = Watermark(1, 4096, 1, b"x" * 32, NOW_MS)
        await record(first, granted(7), watermarks=[mark])
        await first.close()
        again = await open_inventory()
        assert (await get(again, 7)).activations == 1
        assert await again.watermarks(HOST) == [mark]
        await again.close()

    async def test_one_recorder_at_a_time(self, open_inventory: OpenInventory) -> None:
        one, other = await open_inventory(), await open_inventory()
        assert await one.elect(HOST)
        assert await one.elect(HOST)
        assert not await other.elect(HOST)
        assert not await other.elect(HOST)
        await one.close()
        assert await other.elect(HOST)
        await other.close()

    async def test_others_read_meanwhile(self, open_inventory: OpenInventory, inventory: Inventory) -> None:
        reader = await open_inventory()
        await record(inventory, granted(7))
        assert numbers(await reader.find()) == [7]
        await record(inventory, granted(8))
        assert numbers(await reader.find()) == [7, 8]
        await reader.close()

    async def test_a_summary(self, inventory: Inventory) -> None:
        await record(
            inventory,
            granted(1), granted(2, expires_ms=NOW_MS + 5 * DAY_MS), granted(3, expires_ms=NOW_MS + 1),
            granted(4, expires_ms=NOW_MS), refused(5), refused(6, state=5), granted(7, hardware_changes=2),
            granted(7, sku=OTHER_SKU, expires_ms=NOW_MS - DAY_MS),
            totals=[Total(SKU, 0, 1, 7), Total(SKU, REFUSED, 2, 1), Total(SKU, REFUSED, 5, 4)],
        )  # fmt: skip
        assert await inventory.elect(OTHER_HOST)
        await inventory.record(OTHER_HOST, [], [Total(SKU, 0, 1, 100)], [])
        summary = await inventory.summarize(NOW_MS)
        assert summary.as_of_ms == NOW_MS
        assert list(map(tuple, summary.products)) == [(SKU, 7), (OTHER_SKU, 1)]
        assert summary.states == {1: 6, 2: 1, 5: 1}
        assert summary.expired == 2
        assert summary.expiring == {1: 1, 7: 2, 30: 2}
        assert summary.cloned == 1
        assert summary.results == {0: 107, REFUSED: 5}

    async def test_the_totals_of_a_host_are_its_own(self, inventory: Inventory) -> None:
        totals = [Total(SKU, 0, 1, 7), Total(SKU, REFUSED, 2, 1), Total(SKU, REFUSED, 5, 4)]
        await record(inventory, granted(1), totals=totals)
        await record(inventory, granted(1), totals=[Total(SKU, 0, 1, 2)])
        assert await inventory.elect(OTHER_HOST)
        await inventory.record(OTHER_HOST, [], [Total(SKU, 0, 1, 100)], [])
        assert await inventory.totals(HOST) == [Total(SKU, 0, 1, 9), *totals[1:]]
        assert await inventory.totals(OTHER_HOST) == [Total(SKU, 0, 1, 100)]

    async def test_the_last_summary_is_kept(self, open_inventory: OpenInventory, inventory: Inventory) -> None:
        await record(inventory, granted(1), totals=[Total(SKU, 0, 1, 1)])
        first = await inventory.summarize(NOW_MS)
        reader = await open_inventory()
        assert await reader.summary() is None
        await inventory.keep_summary(first)
        await record(inventory, granted(2))
        kept = await reader.summary()
        assert kept is not None
        assert (kept.as_of_ms, list(map(tuple, kept.products)), kept.states) == (NOW_MS, [(SKU, 1)], {1: 1})
        assert (kept.expiring, kept.results) == (first.expiring, first.results)
        second = await inventory.summarize(NOW_MS + 1)
        await inventory.keep_summary(second)
        kept = await reader.summary()
        assert kept is not None
        assert (kept.as_of_ms, kept.states) == (NOW_MS + 1, second.states)
        await reader.close()

    async def test_forget(self, inventory: Inventory) -> None:
        await record(inventory, granted(7), granted(7, sku=OTHER_SKU), granted(8))
        assert await inventory.forget(cmid(7)) == 2
        assert await inventory.forget(cmid(9)) == 0
        for client in await inventory.get(cmid(7)):
            assert (client.name, client.address, client.activations) == (None, None, 1)
        assert numbers(await inventory.find(name="desk")) == [8]
        assert (await get(inventory, 8)).name == "desk-0008"

    async def test_a_backup_restores(self, inventory: Inventory, open_other: OpenInventory) -> None:
        marks = [Watermark(1, 4096, 3, b"x" * 32, NOW_MS)]
        totals = [Total(SKU, 0, 1, 3), Total(OTHER_SKU, REFUSED, 2, 1)]
        await record(inventory, granted(1), refused(1, sku=OTHER_SKU), granted(2, hardware_changes=3), granted(3))
        await record(inventory, refused(3, NOW_MS + 5, predecessor=b"p" * 32), totals=totals, watermarks=marks)
        assert await inventory.elect(OTHER_HOST)
        await inventory.record(OTHER_HOST, [], totals[:1], marks)
        parts = [part async for part in inventory.read_all()]
        other = await open_other()
        assert await other.elect(HOST)
        for part in parts:
            if isinstance(part, HostPart):
                assert await other.elect(part.host_id)
                await other.record(part.host_id, [], part.totals, part.watermarks)
            else:
                await other.record(HOST, [client.to_change() for client in part], [], [])
        assert [part async for part in other.read_all()] == parts
        assert [part.host_id for part in parts if isinstance(part, HostPart)] == [HOST, OTHER_HOST]
        assert (await other.summarize(NOW_MS)) == (await inventory.summarize(NOW_MS))
        await other.close()

    async def test_a_backup_is_of_one_moment(self, inventory: Inventory) -> None:
        mark = Watermark(1, 4096, 1, b"x" * 32, NOW_MS)
        await record(inventory, granted(1), granted(2), watermarks=[mark])
        parts = []
        async for part in inventory.read_all():
            if not parts:
                await record(inventory, granted(2, NOW_MS + 1), granted(3), watermarks=[replace(mark, number=2)])
            parts.append(part)
        clients, host = parts
        assert not isinstance(clients, HostPart)
        assert [(number, client.activations) for number, client in zip(numbers(clients), clients, strict=True)] == [
            (1, 1),
            (2, 1),
        ]
        assert isinstance(host, HostPart)
        assert list(host.watermarks) == [mark]
        assert numbers(await inventory.find()) == [1, 2, 3]
