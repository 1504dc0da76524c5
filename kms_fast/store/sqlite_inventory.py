"""The inventory in an SQLite file, for the hosts of one home (docs/inventory.md).

A renewal changes little: times, a number and the predecessor. So what changes then (``activity``) lies apart from what
a machine is (``clients``), by a number that clients get in the order of their arrival. With millions of clients a
transaction rewrites most pages of ``activity`` and none of ``clients`` or its indexes. Nearly all renewals repeat what
the machine said before, which a hash of it tells; they are merged straight from the columns of a fold. What is left is
staged in memory. Either way statements work on the whole set: one for each row costs several times as much.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from kms_fast.errors import KmsFastError
from kms_fast.model.policy import DAY_MS, EXPIRY_WARNING_DAYS, LicenceState
from kms_fast.store import ChangeRow, Client, HostPart, Position, RowsInColumns, Summary, Total, Watermark
from kms_fast.store import sqlite_inventory_sql as sql
from kms_fast.store.sqlite import SqliteFile

PORTION_CLIENTS: Final = 10_000

# Staging this many rows at once costs least: the price of a step is shared, and SQLite's program stays small.
_STAGED_AT_ONCE: Final = 20
# A checkpoint writes and syncs the pages of many transactions at once; beyond the second bound it waits for readers.
_PAGE_BYTES: Final = 16 << 10
_CHECKPOINT_PAGES: Final = (16 << 20) // _PAGE_BYTES
_WAIT_FOR_READERS_PAGES: Final = (2 << 30) // _PAGE_BYTES
_CACHE_KIB: Final = 128 << 10
_WITHOUT_IT: Final = "the recorder makes the inventory anew from the ledger, but for records that were pruned"
# A recorder's transaction may take longer than others wait, with millions of clients; who forgets can wait for it.
_FORGET_WAIT_S: Final = 60.0
# Whoever empties the log keeps others from writing meanwhile.
_EMPTY_LOG_WAIT_S: Final = 1.0
_EMPTY_LOG_TRIES: Final = 30
_EMPTY_LOG_PAUSE_S: Final = 1.0
# No name sorts behind its prefix and these: a name has at most 64 bytes.
_LAST_NAME: Final = "\U0010ffff" * 16


class SqliteInventory:
    """`kms_fast.store.Inventory` in one SQLite file; ``reading``: one that need not be writable, to look only.

    Raises `KmsFastError` (STORAGE_FAILED, STORE_DAMAGED, STORE_VERSION) when the file cannot be opened.
    """

    def __init__(self, path: Path, *, reading: bool = False) -> None:
        self._path = path
        self._file = SqliteFile(
            path, "inventory", sql.MIGRATIONS, without_it=_WITHOUT_IT, page_bytes=_PAGE_BYTES, reading=reading
        )
        self._db = self._file.db
        self._elected_fd: int | None = None
        self._wal_pages = 0
        with self._file.storage_errors():
            self._db.pragma("temp_store", "memory")
            # What an update takes away is zeroed in its page: a name that is forgotten must not stay there.
            self._db.pragma("secure_delete", "fast")
            self._db.pragma("cache_size", -_CACHE_KIB)
            self._db.pragma("wal_autocheckpoint", 0)
            self._db.execute(sql.STAGE_TABLES)
        self._db.set_wal_hook(self._note_wal)

    async def elect(self, host_id: bytes) -> bool:
        """Become the only recorder of this host: the lock of a file beside the inventory's."""
        if self._elected_fd is None:
            path = self._path.with_suffix(".lock")
            try:
                self._elected_fd = _lock(path)
            except OSError as error:
                raise KmsFastError(
                    f"{path} cannot be locked: {error.strerror}.", name="STORAGE_FAILED", file=str(path)
                ) from error
        return self._elected_fd is not None

    async def watermarks(self, host_id: bytes) -> list[Watermark]:
        """How far each segment of this host is recorded, in ascending segment."""
        return await self._file.in_thread(lambda: self._watermarks(host_id))

    async def totals(self, host_id: bytes) -> list[Total]:
        """How many requests this host has answered, by SKU, result and licence state of who asked, in that order."""
        return await self._file.in_thread(lambda: self._totals(host_id))

    async def record(
        self, host_id: bytes, rows: Iterable[ChangeRow], totals: Sequence[Total], watermarks: Sequence[Watermark]
    ) -> None:
        """Add the changes of some batches and set the watermarks to the last of them, in one durable transaction."""

        def write() -> None:
            with self._file.transaction():
                self._stage(self._add_renewals(rows) if isinstance(rows, RowsInColumns) else rows)
                self._merge()
                self._db.executemany(sql.ADD_TOTAL, [(host_id, t.sku, t.result, t.state, t.requests) for t in totals])
                self._db.executemany(
                    sql.SET_WATERMARK,
                    [(host_id, w.segment, w.offset, w.number, w.header_hash, w.time_ms) for w in watermarks],
                )
            self._checkpoint()

        await self._file.in_thread(write)

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
        return await self._file.in_thread(lambda: self._clients(f"{query} LIMIT :limit", values | {"limit": limit}))

    async def get(self, cmid: bytes) -> list[Client]:
        """The clients with this CMID, one for each SKU."""
        return await self._file.in_thread(lambda: self._clients(f"{sql.CLIENTS} WHERE c.cmid = :cmid", {"cmid": cmid}))

    async def summarize(self, now_ms: int) -> Summary:
        """Count everything, as of one moment."""
        return await self._file.in_thread(lambda: self._count(now_ms))

    async def keep_summary(self, summary: Summary) -> None:
        """Keep it for `summary`."""
        content = msgspec.json.encode(summary).decode()
        await self._file.in_thread(lambda: self._db.execute(sql.KEEP_SUMMARY, (content,)))

    async def summary(self) -> Summary | None:
        """What `keep_summary` kept last; None before the first time."""
        row = await self._file.in_thread(lambda: self._db.execute("SELECT content FROM summary").fetchone())
        return None if row is None else msgspec.json.decode(row[0], type=Summary)

    async def forget(self, cmid: bytes) -> int:
        """Blank name and address of the clients with this CMID, also in what the files hold of earlier contents.

        Waits for a recorder at work. Raises `KmsFastError` (STORE_IN_USE) while somebody reads what was there before.
        """

        def blank() -> int:
            with self._file.waiting(_FORGET_WAIT_S), self._file.transaction():
                # Without the hash of what was said, too: what it says next is news.
                self._db.execute("UPDATE clients SET name = NULL, address = NULL, said = NULL WHERE cmid = ?", (cmid,))
                return self._db.changes()

        changed = await self._file.in_thread(blank)
        for _ in range(_EMPTY_LOG_TRIES):
            if await self._file.in_thread(self._empty_log):
                return changed
            await asyncio.sleep(_EMPTY_LOG_PAUSE_S)
        raise KmsFastError(
            f"The machine is blanked, but {self._path}-wal keeps what stood there until nobody reads it.",
            name="STORE_IN_USE",
            file=f"{self._path}-wal",
        )

    async def read_all(self) -> AsyncIterator[Sequence[Client] | HostPart]:
        """Everything as of one moment. While it is read the file beside the database grows with what is recorded."""
        snapshot = SqliteInventory(self._path, reading=True)
        file, db = snapshot._file, snapshot._db
        try:
            await file.in_thread(lambda: db.execute("BEGIN"))
            clients = await file.in_thread(lambda: db.execute(f"{sql.CLIENTS} ORDER BY c.cmid, p.sku"))
            while rows := await file.in_thread(lambda: list(islice(clients, PORTION_CLIENTS))):
                yield [Client(*row) for row in rows]
            for part in await file.in_thread(snapshot._host_parts):
                yield part
        finally:
            await snapshot.close()

    async def close(self) -> None:
        """Close the file, and give the election up."""
        await self._file.close()
        if self._elected_fd is not None:
            os.close(self._elected_fd)
            self._elected_fd = None

    def _add_renewals(self, rows: RowsInColumns) -> Iterator[ChangeRow]:
        """Add the machines in columns that say what they said before; the other rows."""
        for renewals in rows.renewals():
            times = apsw.carray(renewals.first_ms, flags=apsw.SQLITE_CARRAY_INT64)
            [(ids,)] = self._rows(sql.FIND_RENEWED, (times, renewals.cmids, renewals.sku, renewals.said))
            grants = renewals.grants(msgspec.json.decode(ids, type=list[int]))
            if grants.packed:
                packed = apsw.carray(grants.packed, flags=apsw.SQLITE_CARRAY_INT64)
                self._db.execute(sql.ADD_GRANTS, (packed, grants.since_ms, grants.validity_ms, grants.predecessors))
        return rows.others()

    def _stage(self, rows: Iterable[ChangeRow]) -> None:
        """Put the rows into the staging table."""
        rows, staged, products = iter(rows), 0, set[bytes]()

        def flatten() -> Iterator[tuple[Any, ...]]:
            nonlocal staged
            while portion := list(islice(rows, _STAGED_AT_ONCE)):
                for sku in {row[1] for row in portion} - products:
                    self._add_product(sku)
                    products.add(sku)
                staged += len(portion)
                missing = (_STAGED_AT_ONCE - len(portion)) * len(portion[0])
                yield (*chain.from_iterable(portion), *(None,) * missing)

        self._db.executemany(sql.stage_rows(_STAGED_AT_ONCE), flatten())
        self._db.execute("DELETE FROM temp.stage WHERE rowid > ?", (staged,))

    def _merge(self) -> None:
        """Add what is staged to the clients."""
        for statement in sql.MERGE:
            self._db.execute(statement)

    def _add_product(self, sku: bytes) -> None:
        self._db.execute("INSERT INTO products (sku, clients) VALUES (?, 0) ON CONFLICT DO NOTHING", (sku,))

    def _note_wal(self, db: object, name: str, pages: int) -> int:
        self._wal_pages = pages
        return 0

    def _checkpoint(self) -> None:
        """Bring what was recorded from the write-ahead log into the database, once it is worth it, so that the log is
        used again from its beginning.
        """
        if self._wal_pages < _CHECKPOINT_PAGES:
            return
        mode = "PASSIVE" if self._wal_pages < _WAIT_FOR_READERS_PAGES else "RESTART"
        self._db.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()

    def _empty_log(self) -> bool:
        """Bring all of the log into the database and leave nothing of it; False while others read or write."""
        with self._file.waiting(_EMPTY_LOG_WAIT_S):
            [(busy, _, _)] = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return not busy

    def _totals(self, host_id: bytes) -> list[Total]:
        return [Total(*row) for row in self._rows(sql.TOTALS, (host_id,))]

    def _watermarks(self, host_id: bytes) -> list[Watermark]:
        return [Watermark(*row) for row in self._rows(sql.WATERMARKS, (host_id,))]

    def _clients(self, query: str, values: dict[str, Any]) -> list[Client]:
        return [Client(*row) for row in self._rows(query, values)]

    def _host_parts(self) -> list[HostPart]:
        return [
            HostPart(host_id, self._totals(host_id), self._watermarks(host_id)) for (host_id,) in self._rows(sql.HOSTS)
        ]

    def _rows(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        return self._db.execute(query, values).fetchall()

    def _count(self, now_ms: int) -> Summary:
        ends = (now_ms + days * DAY_MS for days in EXPIRY_WARNING_DAYS)
        with self._db:
            products = self._rows("SELECT sku, clients FROM products WHERE clients > 0 ORDER BY sku")
            others = dict(self._rows("SELECT state, count(*) FROM clients WHERE state <> 1 GROUP BY state"))
            [(ended, *ending)] = self._rows(sql.COUNT_EXPIRY, (now_ms, *ends))
            [(cloned,)] = self._rows("SELECT count(*) FROM clients WHERE hardware_changes > 0")
            results = dict(self._rows("SELECT result, sum(requests) FROM totals GROUP BY result"))
        licensed = sum(clients for _, clients in products) - sum(others.values())
        return Summary(
            as_of_ms=now_ms,
            products=products,
            states=others | ({int(LicenceState.LICENSED): licensed} if licensed else {}),
            expired=ended,
            expiring={days: end - ended for days, end in zip(EXPIRY_WARNING_DAYS, ending, strict=True)},
            cloned=cloned,
            results=results,
        )


def _lock(path: Path) -> int | None:
    """A descriptor of the file that holds its lock; None while another process does. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _build_query(
    *, name: str | None, state: int | None, cloned: bool, after: Position | None
) -> tuple[str, dict[str, Any]]:
    """The query of a page, without its limit, and its values."""
    wanted, values, order = [], dict[str, Any](), "c.cmid, p.sku"
    if name is not None:
        order = f"c.name, {order}"
        # The bounds find the place in the index; the comparison leaves nothing else in.
        wanted += ["c.name >= :name", "c.name <= :last_name", "substr(c.name, 1, :name_length) = :name COLLATE NOCASE"]
        values |= {"name": name, "last_name": name + _LAST_NAME, "name_length": len(name)}
    if state is not None:
        # What the partial index of the other states asks for has to be said in as many words.
        wanted.append("c.state = :state" if state == LicenceState.LICENSED else "c.state = :state AND c.state <> 1")
        values["state"] = state
    if cloned:
        wanted.append("c.hardware_changes > 0")
    if after is not None:
        place, behind = ("(c.name, c.cmid)", "(:after_name, :after)") if name is not None else ("c.cmid", ":after")
        wanted += [f"{place} >= {behind}", f"({place} > {behind} OR p.sku > :after_sku)"]
        values |= {"after_name": after.name, "after": after.cmid, "after_sku": after.sku}
    where = f" WHERE {' AND '.join(wanted)}" if wanted else ""
    return f"{sql.CLIENTS}{where} ORDER BY {order}", values
