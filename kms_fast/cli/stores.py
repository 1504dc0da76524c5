"""Opening the store that a host's settings name: SQLite files in its home, or PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kms_fast.host.enrolment import read_certificate
from kms_fast.model.settings import HostSettings
from kms_fast.store import Counts, Inventory, Watermark
from kms_fast.store.postgres_counts import PostgresCounts
from kms_fast.store.postgres_inventory import PostgresInventory
from kms_fast.store.sqlite_counts import SqliteCounts
from kms_fast.store.sqlite_inventory import SqliteInventory


def counts_file(home: Path) -> Path:
    """The SQLite file of counts in a home."""
    return home / "host" / "counts.db"


def inventory_file(home: Path) -> Path:
    """The SQLite file of the inventory in a home."""
    return home / "host" / "inventory.db"


def has_counts(settings: HostSettings, home: Path) -> bool:
    """Whether there are counts. Asking must not make the file of those in a home: it would belong to whoever asked."""
    return settings.store is not None or counts_file(home).exists()


def has_inventory(settings: HostSettings, home: Path) -> bool:
    """Whether there is an inventory; as `has_counts`."""
    return settings.store is not None or inventory_file(home).exists()


async def open_counts(settings: HostSettings, home: Path, *, reading: bool = False) -> Counts:
    """Open the counts on the running event loop; with ``reading`` also in a home that may not be written, to look only.

    Raises `KmsFastError`: STORAGE_FAILED, STORE_DAMAGED, STORE_VERSION, or for PostgreSQL STORE_UNAVAILABLE,
    STORE_EMPTY.
    """
    if settings.store is None:
        return SqliteCounts(counts_file(home), reading=reading)
    return await PostgresCounts.open(settings.store)


async def start_counts(settings: HostSettings, home: Path) -> Counts:
    """As `open_counts`, but a shared store that is down now is waited for behind the scenes.

    Raises `KmsFastError` (STORAGE_FAILED, STORE_DAMAGED).
    """
    if settings.store is None:
        return SqliteCounts(counts_file(home))
    return await PostgresCounts.start(settings.store)


async def open_inventory(settings: HostSettings, home: Path, *, reading: bool = False) -> Inventory:
    """Open the inventory on the running event loop. Raises the same as `open_counts`."""
    if settings.store is None:
        return SqliteInventory(inventory_file(home), reading=reading)
    return await PostgresInventory.open(settings.store)


@asynccontextmanager
async def using_counts(settings: HostSettings, home: Path, *, reading: bool = False) -> AsyncIterator[Counts]:
    """The counts, open until the block ends; as `open_counts`."""
    counts = await open_counts(settings, home, reading=reading)
    try:
        yield counts
    finally:
        await counts.close()


@asynccontextmanager
async def using_inventory(settings: HostSettings, home: Path, *, reading: bool = False) -> AsyncIterator[Inventory]:
    """The inventory, open until the block ends; as `open_counts`."""
    inventory = await open_inventory(settings, home, reading=reading)
    try:
        yield inventory
    finally:
        await inventory.close()


async def read_watermarks(settings: HostSettings, home: Path, *, reading: bool = False) -> list[Watermark]:
    """What the inventory has of the ledger in a home; nothing before there is one. As `open_counts`."""
    if not has_inventory(settings, home):
        return []
    async with using_inventory(settings, home, reading=reading) as inventory:
        return await inventory.watermarks(read_certificate(home / "host").host_id)
