"""Backups from either kind of store into either."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import apsw
import pytest

from kms_fast.errors import KmsFastError
from kms_fast.store import Counts, HostPart, Inventory, Total, Watermark
from kms_fast.store import backup as backup_module
from kms_fast.store.backup import Content, check_backup, restore_backup, write_backup
from kms_fast.store.postgres import migrate
from kms_fast.store.postgres_counts import PostgresCounts
from kms_fast.store.postgres_inventory import PostgresInventory
from kms_fast.store.sqlite_counts import SqliteCounts
from kms_fast.store.sqlite_inventory import SqliteInventory
from tests.postgres import PostgresServer, own_database
from tests.store import contract
from tests.store.inventory_contract import (
    HOST,
    NOW_MS,
    OTHER_HOST,
    OTHER_SKU,
    REFUSED,
    SKU,
    cmid,
    granted,
    record,
    refused,
)

OpenStore = Callable[[], Awaitable[tuple[Counts, Inventory]]]
MARKS = [Watermark(1, 4096, 3, b"x" * 32, NOW_MS), Watermark(2, 9000, 7, b"y" * 32, NOW_MS + 1)]
TOTALS = [Total(SKU, 0, 1, 3), Total(OTHER_SKU, REFUSED, 2, 1)]


@pytest.fixture
def open_sqlite(tmp_path: Path) -> OpenStore:
    async def open_store() -> tuple[Counts, Inventory]:
        return SqliteCounts(tmp_path / "counts.db"), SqliteInventory(tmp_path / "inventory.db")

    return open_store


@pytest.fixture
def open_postgres(migrated_url: str) -> OpenStore:
    async def open_store() -> tuple[Counts, Inventory]:
        return await PostgresCounts.open(migrated_url), await PostgresInventory.open(migrated_url)

    return open_store


@pytest.fixture(params=["sqlite", "postgres"])
def open_first(request: pytest.FixtureRequest) -> OpenStore:
    return request.getfixturevalue(f"open_{request.param}")  # type: ignore[no-any-return]


@pytest.fixture(params=["sqlite", "postgres"])
async def open_second(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer
) -> AsyncIterator[OpenStore]:
    with own_database(postgres_server) as url:
        await migrate(url)

        async def open_store() -> tuple[Counts, Inventory]:
            if request.param == "postgres":
                return await PostgresCounts.open(url), await PostgresInventory.open(url)
            return SqliteCounts(tmp_path / "counts2.db"), SqliteInventory(tmp_path / "inventory2.db")

        yield open_store


async def fill(counts: Counts, inventory: Inventory) -> None:
    await contract.record(counts, [5, 3, 9], family=0)
    await contract.record(counts, [7], NOW_MS + 1, family=65_535)
    assert await inventory.elect(HOST)
    assert await inventory.elect(OTHER_HOST)
    await record(
        inventory, granted(1), refused(1, sku=OTHER_SKU), granted(2, hardware_changes=3, name="Zoë \U0001f600")
    )
    await inventory.record(HOST, [refused(3, name=None, address=None, predecessor=b"p" * 32)], TOTALS, MARKS)
    await inventory.record(OTHER_HOST, [], TOTALS[:1], MARKS[:1])


async def close(store: tuple[Counts, Inventory]) -> None:
    for part in store:
        await part.close()


async def read_everything(store: tuple[Counts, Inventory]) -> list[object]:
    counts, inventory = store
    parts = [part async for part in inventory.read_all()]
    return [await counts.read_all(), *(list(part) if not isinstance(part, HostPart) else part for part in parts)]


def ignore(content: Content) -> None:
    """For a command that shows no progress."""


async def test_what_is_restored_is_what_was_stored(
    open_first: OpenStore, open_second: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_module, "PORTION_CLIENTS", 2)
    path, seen = tmp_path / "backup.db", list[int]()
    first = await open_first()
    await fill(*first)
    expected = await read_everything(first)
    content = await write_backup(path, *first, lambda content: seen.append(content.clients))
    assert content == Content(counts=4, clients=4, hosts=2)
    assert seen[-1] == 4
    second = await open_second()
    assert await restore_backup(path, *second, ignore) == content
    assert await read_everything(second) == expected
    for store in (first, second):
        await close(store)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob("*unfinished*")) == []


async def test_the_tables_are_those_of_the_documents(open_sqlite: OpenStore, tmp_path: Path) -> None:
    store = await open_sqlite()
    await fill(*store)
    await write_backup(tmp_path / "backup.db", *store, ignore)
    db = apsw.Connection(str(tmp_path / "backup.db"))
    names = "SELECT name FROM pragma_table_info('inventory')"
    assert db.execute(names).fetchall() == apsw.Connection(str(tmp_path / "inventory.db")).execute(names).fetchall()
    assert db.execute("SELECT family, cmid FROM counts").fetchall() == [
        (0, cmid(5)), (0, cmid(3)), (0, cmid(9)), (65_535, cmid(7)),
    ]  # fmt: skip
    assert db.execute("SELECT host_id, number FROM watermarks").fetchall() == [(HOST, 3), (HOST, 7), (OTHER_HOST, 3)]
    await close(store)


async def test_an_empty_store(open_sqlite: OpenStore, open_postgres: OpenStore, tmp_path: Path) -> None:
    first, second = await open_sqlite(), await open_postgres()
    assert await write_backup(tmp_path / "backup.db", *first, ignore) == Content()
    assert await restore_backup(tmp_path / "backup.db", *second, ignore) == Content()
    await close(first)
    await close(second)


@pytest.mark.parametrize("what", ["counts", "inventory"])
async def test_a_store_that_holds_anything_is_left_alone(open_second: OpenStore, tmp_path: Path, what: str) -> None:
    store = await open_second()
    await write_backup(tmp_path / "backup.db", *store, ignore)
    counts, inventory = store
    if what == "counts":
        await contract.record(counts, [1])
    else:
        assert await inventory.elect(HOST)
        await inventory.record(HOST, [], [], MARKS)
    before = await read_everything(store)
    with pytest.raises(KmsFastError, match="not empty") as caught:
        await restore_backup(tmp_path / "backup.db", *store, ignore)
    assert caught.value.result.name == "STORE_IN_USE"
    assert await read_everything(store) == before
    await close(store)


async def test_a_recorder_at_work_refuses_a_restore(
    open_sqlite: OpenStore, open_second: OpenStore, tmp_path: Path
) -> None:
    filled, store, recorder = await open_sqlite(), await open_second(), await open_second()
    await fill(*filled)
    await write_backup(tmp_path / "backup.db", *filled, ignore)
    assert await recorder[1].elect(HOST)
    with pytest.raises(KmsFastError, match="A recorder uses") as caught:
        await restore_backup(tmp_path / "backup.db", *store, ignore)
    assert caught.value.result.name == "STORE_IN_USE"
    assert await read_everything(store) == [{}]
    for opened in (filled, store, recorder):
        await close(opened)


async def test_a_file_that_is_there_is_not_overwritten(open_sqlite: OpenStore, tmp_path: Path) -> None:
    store, path = await open_sqlite(), tmp_path / "backup.db"
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        await write_backup(path, *store, ignore)
    assert path.read_text() == "precious"
    await close(store)


def overwrite(path: Path, at: int, data: bytes) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:at] + data + content[at + len(data) :])


def execute(path: Path, statements: str) -> None:
    db = apsw.Connection(str(path))
    db.execute(statements)
    db.close()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "not a database": lambda path: path.write_bytes(b"x" * 5000),
    "another database": lambda path: (path.unlink(), execute(path, "CREATE TABLE inventory (x)")),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "corrupt": lambda path: overwrite(path, path.stat().st_size // 2, b"\xff" * 4096),
    "no hosts": lambda path: execute(path, "DELETE FROM watermarks; DELETE FROM totals"),
    "a name that is no text": lambda path: overwrite(path, path.read_bytes().index(b"desk-1399"), b"\xff"),
    "a time that is text": lambda path: execute(path, "UPDATE inventory SET first_seen_ms = 'now' WHERE state = 2"),
    "a state that is missing": lambda path: execute(path, "UPDATE inventory SET state = NULL WHERE state = 2"),
    "a short ID": lambda path: execute(path, "UPDATE inventory SET sku = x'00' WHERE state = 2"),
    "a short ID that counts": lambda path: execute(path, "UPDATE counts SET cmid = x'00' WHERE family = 65535"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_damaged_backup_is_found(
    open_sqlite: OpenStore, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    path = tmp_path / "backup.db"
    store = await open_sqlite()
    await fill(*store)
    await record(store[1], refused(999), *(granted(number) for number in range(1000, 1400)))
    await write_backup(path, *store, ignore)
    await close(store)
    check_backup(path)
    damage(path)
    with pytest.raises(KmsFastError, match=r"backup\.db") as caught:
        check_backup(path)
    assert caught.value.result.name == "STORE_DAMAGED"


async def test_a_backup_that_fails_leaves_no_file(open_sqlite: OpenStore, tmp_path: Path) -> None:
    store = await open_sqlite()
    await fill(*store)

    def stop(content: Content) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await write_backup(tmp_path / "backup.db", *store, stop)
    assert sorted(path.name for path in tmp_path.iterdir() if "backup" in path.name) == []
    await close(store)


async def test_after_an_interrupted_restore_no_recorder_begins_anew(
    tmp_path: Path, open_first: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would count everything twice that the backup knows."""
    monkeypatch.setattr(backup_module, "PORTION_CLIENTS", 2)
    file, stores = tmp_path / "backup", (SqliteCounts(tmp_path / "c.db"), SqliteInventory(tmp_path / "i.db"))
    await record(stores[1], *(granted(number) for number in range(9)))
    await stores[1].record(HOST, (), TOTALS, MARKS)
    await write_backup(file, *stores, lambda content: None)

    def interrupt(content: Content) -> None:
        raise KeyboardInterrupt

    counts, inventory = await open_first()
    with pytest.raises(KeyboardInterrupt):
        await restore_backup(file, counts, inventory, interrupt)
    assert await inventory.watermarks(HOST) == MARKS
    with pytest.raises(KmsFastError, match="not empty") as caught:
        await restore_backup(file, counts, inventory, lambda content: None)
    assert caught.value.result.name == "STORE_IN_USE"
    for store in (*stores, counts, inventory):
        await store.close()
