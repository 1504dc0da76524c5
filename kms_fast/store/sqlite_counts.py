"""Counts in an SQLite file, for the hosts of one machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from kms_fast.store import CountRow, group_by_family
from kms_fast.store.sqlite import SqliteFile

# Files that were made before versions were kept have the first one's tables and say 0.
_MIGRATIONS = (
    """
CREATE TABLE IF NOT EXISTS counts (
    family INTEGER NOT NULL,
    cmid BLOB NOT NULL CHECK (length(cmid) = 16),
    seen_ms INTEGER NOT NULL,
    PRIMARY KEY (family, cmid)
) STRICT;
CREATE INDEX IF NOT EXISTS counts_by_age ON counts (family, seen_ms);
""",
)

_WITHOUT_IT = "machines count again as they ask, and none is granted until as many as its threshold have asked"

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


class SqliteCounts:
    """`kms_fast.store.Counts` in one SQLite file; ``reading``: one that need not be writable, to look only.

    Raises `KmsFastError` (STORAGE_FAILED, STORE_DAMAGED, STORE_VERSION) when the file cannot be opened.
    """

    def __init__(self, path: Path, *, reading: bool = False) -> None:
        self._file = SqliteFile(path, "counts", _MIGRATIONS, without_it=_WITHOUT_IT, reading=reading)
        self._db = self._file.db

    async def load(self, family: int, now_ms: int, *, cap: int, retention_ms: int) -> list[CountRow]:
        """The machines that count now, oldest first."""
        return await self._file.in_thread(lambda: self._rows(family, now_ms, cap=cap, retention_ms=retention_ms))

    async def record(
        self, family: int, cmids: Sequence[bytes], now_ms: int, *, cap: int, retention_ms: int
    ) -> list[CountRow]:
        """Store that these machines asked, in one durable transaction; the machines that counted before it, oldest
        first.
        """

        def write() -> list[CountRow]:
            with self._file.transaction():
                before = self._rows(family, now_ms, cap=cap, retention_ms=retention_ms)
                self._write(family, [(cmid, now_ms) for cmid in cmids], now_ms, cap=cap, retention_ms=retention_ms)
            return before

        return await self._file.in_thread(write)

    async def flush(
        self, family: int, rows: Sequence[CountRow], now_ms: int, *, cap: int, retention_ms: int
    ) -> list[CountRow]:
        """Store the newest machines of a family that is at its cap; the machines that count now, oldest first."""

        def write() -> list[CountRow]:
            with self._file.transaction():
                self._write(family, rows, now_ms, cap=cap, retention_ms=retention_ms)
                return self._rows(family, now_ms, cap=cap, retention_ms=retention_ms)

        return await self._file.in_thread(write)

    async def cut_times(self, now_ms: int) -> None:
        """Let no machine have been seen later than this, after a clock that was ahead."""

        def cut() -> None:
            with self._file.transaction():
                self._db.execute("UPDATE counts SET seen_ms = ?1 WHERE seen_ms > ?1", (now_ms,))

        await self._file.in_thread(cut)

    async def read_all(self) -> dict[int, list[CountRow]]:
        """The machines of every family as of one moment, oldest first, for a backup."""
        query = "SELECT family, cmid, seen_ms FROM counts ORDER BY family, seen_ms, rowid"
        return group_by_family(await self._file.in_thread(lambda: self._db.execute(query).fetchall()))

    async def close(self) -> None:
        """Close the file."""
        await self._file.close()

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
