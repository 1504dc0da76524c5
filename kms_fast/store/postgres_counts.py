"""Counts in PostgreSQL, for several hosts on one store.

Each call is one statement, a transaction of its own: one round trip and one commit. A family's row is locked first, so
whoever counts for it takes turns, and each sees all that those before it have stored.
"""

from collections.abc import Sequence
from typing import Final

import asyncpg

from kms_fast.store import CountRow, group_by_family
from kms_fast.store.postgres import PostgresSession

# Requests wait for it, so a store that hangs must be given up soon.
_LIMIT_S: Final = 1.0

_LOAD = """
SELECT cmid, seen_ms FROM kms_fast.counts WHERE family = $1 AND seen_ms >= $2
ORDER BY seen_ms DESC, arrival DESC LIMIT $3
"""
_RECORD = "SELECT cmid, seen_ms FROM kms_fast.record_counts($1, $2, $3, $4, $5)"
_CUT_TIMES = "UPDATE kms_fast.counts SET seen_ms = $1 WHERE seen_ms > $1"
_READ_ALL = "SELECT family, cmid, seen_ms FROM kms_fast.counts ORDER BY family, seen_ms, arrival"


class PostgresCounts:
    """`kms_fast.store.Counts` in PostgreSQL; made by `open`. A call gives up after one second."""

    def __init__(self, session: PostgresSession) -> None:
        self._session = session

    @classmethod
    async def open(cls, url: str) -> "PostgresCounts":
        """Connect to a database that `kms-fast store migrate` prepared.

        Raises `KmsFastError`: STORE_UNAVAILABLE when it cannot be reached or would lose what was stored, STORE_EMPTY
        or STORE_VERSION when it has no tables or not this program's.
        """
        return cls(await PostgresSession.open(url, limit_s=_LIMIT_S))

    @classmethod
    async def start(cls, url: str) -> "PostgresCounts":
        """As `open`, but while the store is not fit for use, calls fail until it is."""
        return cls(await PostgresSession.start(url, limit_s=_LIMIT_S))

    async def load(self, family: int, now_ms: int, *, cap: int, retention_ms: int) -> list[CountRow]:
        """The machines that count now, oldest first."""
        return await self._fetch(_LOAD, family, now_ms - retention_ms, cap)

    async def record(
        self, family: int, cmids: Sequence[bytes], now_ms: int, *, cap: int, retention_ms: int
    ) -> list[CountRow]:
        """Store that these machines asked, in one durable transaction; the machines that counted before it, oldest
        first.
        """
        rows = [(cmid, now_ms) for cmid in cmids]
        return await self._store(family, rows, now_ms, cap=cap, retention_ms=retention_ms)

    async def flush(
        self, family: int, rows: Sequence[CountRow], now_ms: int, *, cap: int, retention_ms: int
    ) -> list[CountRow]:
        """Store the newest machines of a family that is at its cap; the machines that count now, oldest first."""
        await self._store(family, rows, now_ms, cap=cap, retention_ms=retention_ms)
        return await self.load(family, now_ms, cap=cap, retention_ms=retention_ms)

    async def cut_times(self, now_ms: int) -> None:
        """Let no machine have been seen later than this, after a clock that was ahead."""
        await self._fetch(_CUT_TIMES, now_ms)

    async def read_all(self) -> dict[int, list[CountRow]]:
        """The machines of every family as of one moment, oldest first, for a backup."""

        async def fetch(connection: asyncpg.Connection) -> list[asyncpg.Record]:
            return await connection.fetch(_READ_ALL)

        return group_by_family(await self._session.run(fetch))

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def _store(
        self, family: int, rows: Sequence[CountRow], now_ms: int, *, cap: int, retention_ms: int
    ) -> list[CountRow]:
        # Each machine once, by its last request; more than `cap` of them would go again at once.
        last_seen_ms: dict[bytes, int] = {}
        for cmid, seen_ms in reversed(rows):
            last_seen_ms.setdefault(cmid, seen_ms)
        cmids, times_ms = list(last_seen_ms)[:cap][::-1], list(last_seen_ms.values())[:cap][::-1]
        return await self._fetch(_RECORD, family, cmids, times_ms, now_ms - retention_ms, cap)

    async def _fetch(self, query: str, *values: object) -> list[CountRow]:
        """The rows of a query that gives the newest first, oldest first."""

        async def fetch(connection: asyncpg.Connection) -> list[CountRow]:
            newest_first = await connection.fetch(query, *values)
            return [(row[0], row[1]) for row in reversed(newest_first)]

        return await self._session.run(fetch)
