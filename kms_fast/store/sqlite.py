"""Counts in an SQLite file, for the hosts of one machine."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

import apsw

from kms_fast.errors import KmsFastError
from kms_fast.store import CountRow

_SCHEMA = """
CREATE TABLE IF NOT EXISTS counts (
    family INTEGER NOT NULL,
    cmid BLOB NOT NULL CHECK (length(cmid) = 16),
    seen_ms INTEGER NOT NULL,
    PRIMARY KEY (family, cmid)
) STRICT;
CREATE INDEX IF NOT EXISTS counts_by_age ON counts (family, seen_ms);
"""

_UPSERT = """
INSERT INTO counts (family, cmid, seen_ms) VALUES (?, ?, ?)
ON CONFLICT (family, cmid) DO UPDATE SET seen_ms = max(seen_ms, excluded.seen_ms)
"""

# Past the cap the machines that were not seen for longest go; rowid tells those of one millisecond apart.
_TRIM = """
DELETE FROM counts WHERE rowid IN (
    SELECT rowid FROM counts WHERE family = ? ORDER BY seen_ms DESC, rowid DESC LIMIT -1 OFFSET ?
)
"""

_WAIT_FOR_LOCK_MS = 5_000


_Returned = TypeVar("_Returned")


class SqliteCounts:
    """`kms_fast.store.Counts` in one SQLite file (WAL, synchronous=FULL), used from a thread of its own.

    Raises `KmsFastError` (STORAGE_FAILED) when the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._storage_errors():
            self._db = apsw.Connection(str(path))
            self._db.set_busy_timeout(_WAIT_FOR_LOCK_MS)
            self._db.pragma("journal_mode", "wal")
            self._db.pragma("synchronous", "full")
            self._db.execute(_SCHEMA)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="counts")

    async def load(self, family: int, now_ms: int, *, cap: int, retention_ms: int) -> list[CountRow]:
        """The machines that count now, oldest first."""

        def read() -> list[CountRow]:
            with self._storage_errors():
                return self._rows(family, now_ms, cap=cap, retention_ms=retention_ms)

        return await self._in_thread(read)

    async def record(
        self, family: int, cmids: Sequence[bytes], now_ms: int, *, cap: int, retention_ms: int
    ) -> list[CountRow]:
        """Store that these machines asked, in one durable transaction; the machines that counted before it, oldest
        first.
        """

        def write() -> list[CountRow]:
            with self._transaction():
                before = self._rows(family, now_ms, cap=cap, retention_ms=retention_ms)
                self._write(family, [(cmid, now_ms) for cmid in cmids], now_ms, cap=cap, retention_ms=retention_ms)
            return before

        return await self._in_thread(write)

    async def flush(
        self, family: int, rows: Sequence[CountRow], now_ms: int, *, cap: int, retention_ms: int
    ) -> list[CountRow]:
        """Store the newest machines of a family that is at its cap; the machines that count now, oldest first."""

        def write() -> list[CountRow]:
            with self._transaction():
                self._write(family, rows, now_ms, cap=cap, retention_ms=retention_ms)
                return self._rows(family, now_ms, cap=cap, retention_ms=retention_ms)

        return await self._in_thread(write)

    async def close(self) -> None:
        """Close the file."""

        def close() -> None:
            with self._storage_errors():
                self._db.close()

        await self._in_thread(close)
        self._thread.shutdown()

    async def _in_thread(self, function: Callable[[], _Returned]) -> _Returned:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    def _rows(self, family: int, now_ms: int, *, cap: int, retention_ms: int) -> list[CountRow]:
        newest_first = self._db.execute(
            "SELECT cmid, seen_ms FROM counts WHERE family = ? AND seen_ms >= ? "
            "ORDER BY seen_ms DESC, rowid DESC LIMIT ?",
            (family, now_ms - retention_ms, cap),
        ).fetchall()
        return cast(list[CountRow], newest_first[::-1])

    def _write(self, family: int, rows: Sequence[CountRow], now_ms: int, *, cap: int, retention_ms: int) -> None:
        self._db.executemany(_UPSERT, [(family, cmid, seen_ms) for cmid, seen_ms in rows])
        self._db.execute("DELETE FROM counts WHERE family = ? AND seen_ms < ?", (family, now_ms - retention_ms))
        self._db.execute(_TRIM, (family, cap))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._storage_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            raise KmsFastError(
                f"The counts in {self._path} cannot be used: {error}.", name="STORAGE_FAILED", file=str(self._path)
            ) from error
