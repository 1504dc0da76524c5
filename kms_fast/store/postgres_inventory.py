"""The inventory in PostgreSQL, for several hosts on one store (docs/inventory.md).

Changes are copied into a temporary table and merged by one statement in the order of their key, so that several hosts
record at once and wait for each other, but never in a circle.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final

import asyncpg
import msgspec

from kms_fast.errors import KmsFastError
from kms_fast.model.policy import DAY_MS, EXPIRY_WARNING_DAYS
from kms_fast.store import ChangeRow, Client, HostPart, Position, Summary, Total, Watermark
from kms_fast.store import postgres_inventory_sql as sql
from kms_fast.store.postgres import POSTGRES_ERRORS, PostgresSession, close, connect, explain

PORTION_CLIENTS: Final = 10_000

# Pages wait for it; recording and counting work on millions of rows.
_LIMIT_S: Final = 5.0
_LONG_LIMIT_S: Final = 600.0
# No name sorts behind its prefix and these: a name has at most 64 bytes.
_LAST_NAME: Final = "\U0010ffff" * 16


class PostgresInventory:
    """`kms_fast.store.Inventory` in PostgreSQL; made by `open`."""

    def __init__(self, url: str, session: PostgresSession) -> None:
        self._url = url
        self._session = session
        # On which connection each host's election was won; on another one it counts no more.
        self._elected_on: dict[bytes, asyncpg.Connection] = {}

    @classmethod
    async def open(cls, url: str) -> "PostgresInventory":
        """Connect to a database that `kms-fast store migrate` prepared.

        Raises `KmsFastError`: STORE_UNAVAILABLE when it cannot be reached or would lose what was stored, STORE_EMPTY
        or STORE_VERSION when it has no tables or not this program's.
        """
        return cls(url, await PostgresSession.open(url, limit_s=_LIMIT_S))

    async def elect(self, host_id: bytes) -> bool:
        """Become the only recorder of this host: an advisory lock of the connection, lost with it."""

        async def lock(connection: asyncpg.Connection) -> bool:
            if self._elected_on.get(host_id) is not connection:
                key = int.from_bytes(host_id[:8], "big", signed=True)
                if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", key):
                    return False
                self._elected_on[host_id] = connection
            return True

        return await self._session.run(lock)

    async def watermarks(self, host_id: bytes) -> list[Watermark]:
        """How far each segment of this host is recorded, in ascending segment."""
        return [Watermark(*row) for row in await self._fetch(sql.WATERMARKS, host_id)]

    async def totals(self, host_id: bytes) -> list[Total]:
        """How many requests this host has answered, by SKU, result and licence state of who asked, in that order."""
        return [Total(*row) for row in await self._fetch(sql.TOTALS, host_id)]

    async def record(
        self, host_id: bytes, rows: Iterable[ChangeRow], totals: Sequence[Total], watermarks: Sequence[Watermark]
    ) -> None:
        """Add the changes of some batches and set the watermarks to the last of them, in one durable transaction.

        Raises `KmsFastError` (STORE_UNAVAILABLE) also when the election was lost together with its connection.
        """

        async def write(connection: asyncpg.Connection) -> None:
            if self._elected_on.get(host_id) is not connection:
                raise KmsFastError(
                    f"The election in the store {self._session.shown} was lost or never won; elect again.",
                    name="STORE_UNAVAILABLE",
                    store=self._session.shown,
                )
            async with connection.transaction():
                await connection.execute(sql.STAGE_TABLE)
                await connection.copy_records_to_table(
                    "kms_fast_stage", schema_name="pg_temp", records=(row[:-1] for row in rows), columns=sql.CHANGE
                )
                await connection.execute(sql.MERGE_CLIENTS)
                await connection.executemany(
                    sql.ADD_TOTAL, sorted((host_id, t.sku, t.result, t.state, t.requests) for t in totals)
                )
                await connection.executemany(
                    sql.SET_WATERMARK,
                    [(host_id, w.segment, w.offset, w.number, w.header_hash, w.time_ms) for w in watermarks],
                )

        await self._session.run(write, limit_s=_LONG_LIMIT_S)

    async def find(
        self,
        *,
        name: str | None = None,
        state: int | None = None,
        cloned: bool = False,
        after: Position | None = None,
        limit: int = 100,
    ) -> list[Client]:
        """A page of clients behind ``after``, by CMID and SKU, or by name with ``name``."""
        query, values = _build_query(name=name, state=state, cloned=cloned, after=after)
        rows = await self._fetch(f"{query} LIMIT ${len(values) + 1}", *values, limit)
        return [Client(*row) for row in rows]

    async def get(self, cmid: bytes) -> list[Client]:
        """The clients with this CMID, one for each SKU."""
        rows = await self._fetch(f"{sql.CLIENTS} WHERE cmid = $1 ORDER BY sku", cmid)
        return [Client(*row) for row in rows]

    async def summarize(self, now_ms: int) -> Summary:
        """Count everything, as of one moment."""

        async def count(connection: asyncpg.Connection) -> Summary:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                ends = [now_ms + days * DAY_MS for days in EXPIRY_WARNING_DAYS]
                rows = await connection.fetch(sql.COUNT_CLIENTS, now_ms, *ends)
                results = await connection.fetch("SELECT result, sum(requests)::bigint FROM kms_fast.totals GROUP BY 1")
            return _summarize(now_ms, rows, {row[0]: row[1] for row in results})

        return await self._session.run(count, limit_s=_LONG_LIMIT_S)

    async def keep_summary(self, summary: Summary) -> None:
        """Keep it for `summary`."""
        await self._fetch(sql.KEEP_SUMMARY, msgspec.json.encode(summary).decode())

    async def summary(self) -> Summary | None:
        """What `keep_summary` kept last; None before the first time."""
        rows = await self._fetch("SELECT content FROM kms_fast.summary")
        return msgspec.json.decode(rows[0][0], type=Summary) if rows else None

    async def forget(self, cmid: bytes) -> int:
        """Blank name and address of the clients with this CMID; PostgreSQL's vacuum removes the old rows."""
        return len(await self._fetch(sql.FORGET, cmid))

    async def read_all(self) -> AsyncIterator[Sequence[Client] | HostPart]:
        """Everything as of one moment, on a connection of its own."""
        connection = await connect(self._url)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                cursor = await connection.cursor(f"{sql.CLIENTS} ORDER BY cmid, sku")
                while rows := await cursor.fetch(PORTION_CLIENTS):
                    yield [Client(*row) for row in rows]
                for (host_id,) in await connection.fetch(sql.HOSTS):
                    totals = [Total(*row) for row in await connection.fetch(sql.TOTALS, host_id)]
                    watermarks = [Watermark(*row) for row in await connection.fetch(sql.WATERMARKS, host_id)]
                    yield HostPart(host_id, totals, watermarks)
        except POSTGRES_ERRORS as error:
            raise explain(error, self._session.shown) from error
        finally:
            await close(connection)

    async def close(self) -> None:
        """Close the connection, and give the election up."""
        await self._session.close()

    async def _fetch(self, query: str, *values: object) -> list[asyncpg.Record]:
        async def fetch(connection: asyncpg.Connection) -> list[asyncpg.Record]:
            return await connection.fetch(query, *values)

        return await self._session.run(fetch)


def _summarize(now_ms: int, rows: Sequence[asyncpg.Record], results: Mapping[int, int]) -> Summary:
    """The summary of what `COUNT_CLIENTS` gives: a row for each SKU, for each state, and one for all."""
    (whole,) = (row for row in rows if row["sku"] is None and row["state"] is None)
    expired, *ending = whole["ended"]
    return Summary(
        as_of_ms=now_ms,
        products=sorted((row["sku"], row["clients"]) for row in rows if row["sku"] is not None),
        states={row["state"]: row["clients"] for row in rows if row["state"] is not None},
        expired=expired,
        expiring={days: end - expired for days, end in zip(EXPIRY_WARNING_DAYS, ending, strict=True)},
        cloned=whole["cloned"],
        results=dict(results),
    )


def _build_query(*, name: str | None, state: int | None, cloned: bool, after: Position | None) -> tuple[str, list[Any]]:
    """The query of a page, without its limit, and its values."""
    wanted, order = [], "cmid, sku"
    values: list[Any] = []

    def put(value: object) -> str:
        values.append(value)
        return f"${len(values)}"

    if name is not None:
        order = f"{sql.NAME}, {order}"
        first, last = put(_fold_case(name)), put(_fold_case(name) + _LAST_NAME)
        wanted.append(
            f"name IS NOT NULL AND {sql.NAME} BETWEEN {first} AND {last} AND starts_with({sql.NAME}, {first})"
        )
    if state is not None:
        # What the partial index of the other states asks for has to be said in as many words.
        wanted.append(f"state = {put(state)}" + (" AND state <> 1" if state != 1 else ""))
    if cloned:
        wanted.append("hardware_changes > 0")
    if after is not None:
        place = [put(_fold_case(after.name or ""))] if name is not None else []
        wanted.append(f"({order}) > ({', '.join([*place, put(after.cmid), put(after.sku)])})")
    where = f" WHERE {' AND '.join(wanted)}" if wanted else ""
    return f"{sql.CLIENTS}{where} ORDER BY {order}", values


def _fold_case(text: str) -> str:
    """The text with its ASCII letters in lower case, as the index has them."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)
