"""The contract of the inventory over SQLite, and what is SQLite's own."""

import asyncio
import random
from pathlib import Path

import pytest

from kms_fast import _core
from kms_fast.errors import KmsFastError
from kms_fast.host.segment import SegmentStart
from kms_fast.store import sqlite, sqlite_inventory
from kms_fast.store import sqlite_inventory_sql as sql
from kms_fast.store.sqlite import SqliteFile
from kms_fast.store.sqlite_inventory import SqliteInventory, _build_query
from tests.segments import HOST_ID, SegmentWriter, make_entry
from tests.store.inventory_contract import (
    DAY_MS,
    HOST,
    NOW_MS,
    OTHER_SKU,
    REFUSED,
    SKU,
    InventoryContract,
    OpenInventory,
    cmid,
    get,
    granted,
    record,
    refused,
)


class TestSqliteInventory(InventoryContract):
    @pytest.fixture
    def open_inventory(self, tmp_path: Path) -> OpenInventory:
        async def open_inventory() -> SqliteInventory:
            return SqliteInventory(tmp_path / "inventory.db")

        return open_inventory

    @pytest.fixture
    def open_other(self, tmp_path: Path) -> OpenInventory:
        async def open_other() -> SqliteInventory:
            return SqliteInventory(tmp_path / "other.db")

        return open_other


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({}, "USING PRIMARY KEY|SCAN c"),
        ({"name": "desk"}, "USING INDEX clients_by_name"),
        ({"state": 5}, "USING INDEX clients_by_state"),
        ({"cloned": True}, "USING INDEX clients_cloned"),
    ],
)
@pytest.mark.parametrize("with_after", [False, True])
async def test_pages_are_found_through_an_index(
    tmp_path: Path, wanted: dict[str, object], index: str, with_after: bool
) -> None:
    """Otherwise each page would read all of millions of clients, or sort them."""
    inventory = SqliteInventory(tmp_path / "inventory.db")
    await record(inventory, granted(1), refused(2))
    after = (await get(inventory, 1)).position if with_after else None
    arguments = {"name": None, "state": None, "cloned": False, "after": after} | wanted
    query, values = _build_query(**arguments)  # type: ignore[arg-type]
    plan = [str(row[3]) for row in inventory._rows(f"EXPLAIN QUERY PLAN {query} LIMIT :limit", values | {"limit": 9})]
    assert any(part in plan[0] for part in index.split("|"))
    assert [step for step in plan if "TEMP B-TREE" in step] in ([], ["USE TEMP B-TREE FOR LAST TERM OF ORDER BY"])
    await inventory.close()


async def test_renewals_write_neither_clients_nor_indexes(tmp_path: Path) -> None:
    """What makes millions of clients affordable: only pages of activity are rewritten."""
    inventory = SqliteInventory(tmp_path / "inventory.db")
    await record(inventory, *(granted(number) for number in range(3_000)))
    [(others,)] = inventory._rows(
        "SELECT sum(pageno) FROM dbstat WHERE name <> 'activity' AND name <> 'watermarks' AND name <> 'totals'"
    )
    [(activity,)] = inventory._rows("SELECT count(*) FROM dbstat WHERE name = 'activity'")
    inventory._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    await record(inventory, *(granted(number, NOW_MS + 1) for number in range(3_000)))
    assert others > 0
    assert inventory._wal_pages <= activity + 8
    await inventory.close()


def fold_segment(segment: SegmentWriter) -> _core.Fold:
    fold = _core.Fold(1000)
    with segment.path.open("rb") as file:
        previous = SegmentStart(segment.segment, HOST_ID, b"", ()).previous
        fold.add_batches(_core.RecordReader(file.fileno(), 4096), segment.segment, 0, previous)
    return fold


@pytest.mark.parametrize("seed", range(5))
async def test_columns_of_a_fold_add_up_to_what_its_rows_do(tmp_path: Path, seed: int) -> None:
    """Renewals that repeat what was said are merged in columns, others by rows; also when they come out of order."""
    chance = random.Random(seed)
    says = [
        {
            "cmid": chance.randbytes(16),
            "sku": chance.choice([SKU, OTHER_SKU]),
            "hardware": chance.randbytes(16),
            "name": b"desk",
            "state": 1,
            "previous_cmid": chance.choice([bytes(16), chance.randbytes(16)]),
        }
        for _ in range(200)
    ]
    by_columns, by_rows = SqliteInventory(tmp_path / "columns.db"), SqliteInventory(tmp_path / "rows.db")
    in_columns: list[int] = []  # grants of each machine that was added so
    times = [NOW_MS + week * 7 * DAY_MS for week in range(12)]
    times[7], times[6] = times[6], times[7]
    for number, time_ms in enumerate(times, 1):
        for said in chance.sample(says, k=10):
            said |= chance.choice(
                [{"name": chance.randbytes(4).hex().encode()}, {"hardware": chance.randbytes(16)}, {"state": 5}, {}]
            )
        with SegmentWriter(tmp_path, number) as segment:
            for later_ms in (0, chance.choice([0, 1, 20 * DAY_MS])):
                asked = chance.sample(says, k=100) + chance.choices(says, k=5)
                segment.append(
                    [
                        make_entry(
                            **said,  # type: ignore[arg-type]
                            predecessor=chance.choice([bytes(32), chance.randbytes(32)]),
                            result=chance.choice([0] * 9 + [REFUSED]),
                            validity_min=chance.choice([60, 259_200]),
                        )
                        for said in asked
                    ],
                    time_ms + later_ms,
                )
        fold = fold_segment(segment)
        assert len(fold.renewals()) > 1
        await by_rows.record(HOST, list(fold), [], [])
        await by_columns.record(HOST, fold, [], [])
        assert await by_columns.find(limit=500) == await by_rows.find(limit=500)
        others = {row[:2] for row in fold.others()}
        in_columns += [row[3] for row in fold if row[:2] not in others]
    assert {1, 2} <= set(in_columns)
    [(products,)] = by_columns._rows("SELECT sum(clients) FROM products")
    assert products == len(await by_rows.find(limit=500))
    await by_columns.close()
    await by_rows.close()


async def test_a_file_of_the_first_version_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its machines say next is news, once."""
    first_version = tmp_path / "inventory.db"
    monkeypatch.setattr(sql, "MIGRATIONS", sql.MIGRATIONS[:1])
    db = SqliteFile(first_version, "inventory", sql.MIGRATIONS, without_it="").db
    db.execute("INSERT INTO products VALUES (1, ?, 1)", (b"S" * 16,))
    db.execute(
        "INSERT INTO clients VALUES (?, 1, 1, ?, 1, 'old', NULL, ?, 0, NULL, 0, 1)", (b"m" * 16, NOW_MS, b"w" * 16)
    )
    db.execute("INSERT INTO activity VALUES (1, 3, ?, ?, 0, NULL, NULL, ?)", (NOW_MS, NOW_MS + DAY_MS, b"p" * 32))
    db.close()
    monkeypatch.undo()
    inventory = SqliteInventory(first_version)
    assert [client.activations for client in await inventory.find()] == [3]
    for number in (1, 2):
        with SegmentWriter(tmp_path, number) as segment:
            segment.append([make_entry(b"m" * 16, name=b"new")], NOW_MS + number)
        await inventory.record(HOST, fold_segment(segment), [], [])
        assert [(client.name, client.activations) for client in await inventory.find()] == [("new", 3 + number)]
    await inventory.close()


async def test_a_forgotten_machine_is_known_again_by_its_next_renewal(tmp_path: Path) -> None:
    """Although it says the same as before."""
    inventory = SqliteInventory(tmp_path / "inventory.db")
    for number in (1, 2, 3):
        if number == 3:
            assert await inventory.forget(b"m" * 16) == 1
        with SegmentWriter(tmp_path, number) as segment:
            segment.append([make_entry(b"m" * 16, name=b"its-name")], NOW_MS + number)
        await inventory.record(HOST, fold_segment(segment), [], [])
        [client] = await inventory.get(b"m" * 16)
        assert (client.name, client.activations) == ("its-name", number)
    await inventory.close()


async def test_the_first_renewals_split_no_pages(tmp_path: Path) -> None:
    inventory = SqliteInventory(tmp_path / "inventory.db")
    await record(inventory, *(granted(number) for number in range(3_000)))
    before = inventory._rows("SELECT count(*) FROM dbstat WHERE name = 'activity'")
    for week in (1, 2, 3):
        await record(inventory, *(granted(number, NOW_MS + week, predecessor=b"p" * 32) for number in range(3_000)))
    assert inventory._rows("SELECT count(*) FROM dbstat WHERE name = 'activity'") == before
    await inventory.close()


async def test_the_log_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder itself checkpoints: the log is as large as a few transactions, not as all of them."""
    monkeypatch.setattr(sqlite_inventory, "_CHECKPOINT_PAGES", 20)
    inventory = SqliteInventory(tmp_path / "inventory.db")
    sizes = []
    for step in range(20):
        await record(inventory, *(granted(number, NOW_MS + step) for number in range(1_000)))
        sizes.append((tmp_path / "inventory.db-wal").stat().st_size)
    assert max(sizes) < 3 * sizes[0] < sum(sizes) / 3
    await inventory.close()


async def test_what_is_forgotten_is_not_in_the_file(tmp_path: Path) -> None:
    inventory = SqliteInventory(tmp_path / "inventory.db")
    await record(inventory, granted(7, name="a-name-to-forget"), granted(8, name="a-name-to-keep"))
    assert b"a-name-to-forget" in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    await inventory.forget(cmid(7))
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"a-name-to-forget" not in content
    assert b"a-name-to-keep" in content
    await inventory.close()


async def test_the_view_is_what_the_documents_say(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "inventory.md").read_text(encoding="utf-8")
    inventory = SqliteInventory(tmp_path / "inventory.db")
    columns = [name for _, name, *_ in inventory._rows("PRAGMA table_info(inventory)")]
    assert len(columns) == 19
    assert [name for name in columns if f"`{name}`" not in text] == []
    for table in ("totals", "watermarks"):
        columns = [f"`{name}`" for _, name, *_ in inventory._rows(f"PRAGMA table_info({table})")]
        assert f"| `{table}` | {', '.join(columns)} |" in text
    await inventory.close()


async def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    inventory = SqliteInventory(tmp_path / "inventory.db")
    await record(inventory, granted(1))
    [(pages,)] = inventory._rows("PRAGMA page_count")
    inventory._db.pragma("max_page_count", pages)
    with pytest.raises(KmsFastError, match=r"inventory\.db cannot be used: .*full") as caught:
        await record(inventory, *(granted(number) for number in range(5000)))
    assert caught.value.result.name == "STORAGE_FAILED"
    assert (await get(inventory, 1)).activations == 1
    inventory._db.pragma("max_page_count", 1 << 30)
    await record(inventory, *(granted(number, NOW_MS + 1) for number in range(5000)))
    assert (await get(inventory, 1)).activations == 2
    await inventory.close()


async def test_a_lock_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    inventory = SqliteInventory(tmp_path / "inventory.db")
    (tmp_path / "inventory.lock").mkdir()
    with pytest.raises(KmsFastError, match=r"inventory\.lock cannot be locked") as caught:
        await inventory.elect(HOST)
    assert caught.value.result.name == "STORAGE_FAILED"
    await inventory.close()


def find_in_files(folder: Path, name: bytes) -> list[str]:
    return [path.name for path in folder.iterdir() if name in path.read_bytes()]


async def test_nothing_is_left_of_a_name_that_was_overwritten_before(tmp_path: Path) -> None:
    inventory = SqliteInventory(tmp_path / "inventory.db")
    await record(inventory, granted(1, name="FirstNameOfIt"), granted(2, name="Another"))
    await record(inventory, granted(1, NOW_MS + 1, name="SecondNameThatIsSoLongThatItLiesElsewhere"))
    assert await inventory.forget(cmid(1)) == 1
    assert find_in_files(tmp_path, b"FirstNameOfIt") == find_in_files(tmp_path, b"SecondName") == []
    assert find_in_files(tmp_path, b"Another") == ["inventory.db"]
    await inventory.close()


async def test_while_somebody_reads_it_forgetting_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_inventory, "_EMPTY_LOG_WAIT_S", 0.01)
    monkeypatch.setattr(sqlite_inventory, "_EMPTY_LOG_PAUSE_S", 0.01)
    inventory = SqliteInventory(tmp_path / "inventory.db")
    await record(inventory, granted(1, name="FirstNameOfIt"))
    reader = inventory.read_all()
    await anext(reader)
    with pytest.raises(KmsFastError) as caught:
        await inventory.forget(cmid(1))
    assert caught.value.result.name == "STORE_IN_USE"
    await reader.aclose()
    assert await inventory.forget(cmid(1)) == 1
    assert find_in_files(tmp_path, b"FirstNameOfIt") == []
    await inventory.close()


async def test_forgetting_waits_for_a_recorder_that_takes_longer_than_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "WAIT_S", 0.01)
    recorder, other = SqliteInventory(tmp_path / "inventory.db"), SqliteInventory(tmp_path / "inventory.db")
    await record(recorder, granted(1))
    recorder._db.execute("BEGIN IMMEDIATE")
    with pytest.raises(KmsFastError, match="Another process writes to the inventory") as caught:
        await other.keep_summary(await other.summarize(NOW_MS))
    assert caught.value.result.name == "STORE_IN_USE"
    forgetting = asyncio.create_task(other.forget(cmid(1)))
    await asyncio.sleep(0.2)
    assert not forgetting.done()
    recorder._db.execute("COMMIT")
    assert await forgetting == 1
    await recorder.close()
    await other.close()


async def test_closing_ends_the_wait(tmp_path: Path) -> None:
    recorder, other = SqliteInventory(tmp_path / "inventory.db"), SqliteInventory(tmp_path / "inventory.db")
    recorder._db.execute("BEGIN IMMEDIATE")
    forgetting = asyncio.create_task(other.forget(cmid(1)))
    await asyncio.sleep(0.1)
    await asyncio.wait_for(other.close(), 30)
    with pytest.raises(KmsFastError) as caught:
        await forgetting
    assert caught.value.result.name == "STORE_IN_USE"
    await recorder.close()
