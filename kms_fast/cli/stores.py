"""Opening the store that a host's settings name: SQLite files in its home, or PostgreSQL."""

from pathlib import Path

from kms_fast.model.settings import HostSettings
from kms_fast.store import Counts
from kms_fast.store.postgres_counts import PostgresCounts
from kms_fast.store.sqlite_counts import SqliteCounts


async def open_counts(settings: HostSettings, home: Path) -> Counts:
    """Open the counts on the running event loop.

    Raises `KmsFastError`: STORAGE_FAILED, or for PostgreSQL STORE_UNAVAILABLE and STORE_VERSION.
    """
    if settings.store is None:
        return SqliteCounts(home / "host" / "counts.db")
    return await PostgresCounts.open(settings.store)


async def start_counts(settings: HostSettings, home: Path) -> Counts:
    """As `open_counts`, but a shared store that is down now is waited for behind the scenes.

    Raises `KmsFastError` (STORAGE_FAILED).
    """
    if settings.store is None:
        return SqliteCounts(home / "host" / "counts.db")
    return await PostgresCounts.start(settings.store)
