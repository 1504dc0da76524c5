"""A store as one SQLite file: written from either kind of store, and restored into either (docs/store.md).

Tables: ``counts`` (family, cmid, seen_ms), ``inventory``, ``totals`` and ``watermarks`` (the columns of
docs/inventory.md). Counts and inventory are each as of one moment.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Final, cast, get_args

import apsw

from kms_fast.errors import KmsFastError
from kms_fast.files import SECRET, sync_folder
from kms_fast.store import Client, Counts, HostPart, Inventory, Total, Watermark, group_by_family

PORTION_CLIENTS: Final = 50_000

_APPLICATION_ID: Final = int.from_bytes(b"KFSB", "big")
_FORMAT: Final = 1
_CLIENT: Final = tuple(field.name for field in fields(Client))
_TABLES: Final = f"""
CREATE TABLE counts (family INTEGER NOT NULL, cmid BLOB NOT NULL, seen_ms INTEGER NOT NULL) STRICT;
CREATE TABLE inventory ({", ".join(_CLIENT)}, PRIMARY KEY (cmid, sku)) WITHOUT ROWID;
CREATE TABLE totals (host_id BLOB NOT NULL, sku BLOB NOT NULL, result INTEGER NOT NULL, state INTEGER NOT NULL,
    requests INTEGER NOT NULL) STRICT;
CREATE TABLE watermarks (host_id BLOB NOT NULL, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
    number INTEGER NOT NULL, header_hash BLOB NOT NULL, time_ms INTEGER NOT NULL) STRICT;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_FORMAT};
"""
_ALL_TIME_MS: Final = 1 << 62
_read_fields = attrgetter(*_CLIENT)


@dataclass(slots=True)
class Content:
    """How much a backup holds: machines that count, clients of the inventory, hosts that recorded them."""

    counts: int = 0
    clients: int = 0
    hosts: int = 0


async def write_backup(
    path: Path, counts: Counts, inventory: Inventory, on_progress: Callable[[Content], None]
) -> Content:
    """Write a backup to a file that is not there yet; under its name it is whole and on disk, or not at all.

    Raises `KmsFastError` (STORAGE_FAILED, or what the store raises), FileExistsError.
    """
    if path.exists():
        raise FileExistsError(17, "a backup is written to a new file", str(path))
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET))
    content = Content()
    try:
        with _open(unfinished) as db:
            # Nothing is read from it before it is whole, and then all of it is synced.
            db.pragma("journal_mode", "off")
            db.pragma("synchronous", "off")
            db.execute("BEGIN")
            db.execute(_TABLES)
            for family, rows in (await counts.read_all()).items():
                db.executemany("INSERT INTO counts VALUES (?, ?, ?)", [(family, *row) for row in rows])
                content.counts += len(rows)
            async for part in inventory.read_all():
                _write_part(db, part, content)
                on_progress(content)
            db.execute("COMMIT")
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    return content


def check_backup(path: Path) -> None:
    """Read all of a backup, as `restore_backup` will.

    Raises `KmsFastError` (STORE_DAMAGED) when the file is no backup, damaged, or holds what no store takes.
    """
    with _open(path, apsw.SQLITE_OPEN_READONLY) as db:
        if (db.pragma("application_id"), db.pragma("user_version")) != (_APPLICATION_ID, _FORMAT):
            raise KmsFastError(f"{path} is no backup of a store.", name="STORE_DAMAGED", file=str(path))
        fault = _find_fault(db)
    if fault is not None:
        raise KmsFastError(f"{path} is damaged: {fault}.", name="STORE_DAMAGED", file=str(path))


async def restore_backup(
    path: Path, counts: Counts, inventory: Inventory, on_progress: Callable[[Content], None]
) -> Content:
    """Fill an empty store from a backup, which `check_backup` has found whole.

    Raises `KmsFastError`: STORE_IN_USE when the store is not empty or a recorder uses it, or what the store raises.
    """
    with _open(path, apsw.SQLITE_OPEN_READONLY) as db:
        await _require_empty(counts, inventory)
        hosts = list(_read_hosts(db))
        for host in hosts:
            if not await inventory.elect(host.host_id):
                raise KmsFastError("A recorder uses this store.", name="STORE_IN_USE")
        content = Content()
        for family, rows in group_by_family(db.execute("SELECT * FROM counts ORDER BY rowid")).items():
            await counts.flush(family, rows, rows[-1][1], cap=len(rows), retention_ms=_ALL_TIME_MS)
            content.counts += len(rows)
        # First, so that after an interruption a recorder goes on behind them and counts nothing twice.
        for host in hosts:
            await inventory.record(host.host_id, (), host.totals, host.watermarks)
            content.hosts += 1
        clients = (Client(*row) for row in db.execute("SELECT * FROM inventory ORDER BY cmid, sku"))
        while portion := list(islice(clients, PORTION_CLIENTS)):
            # Whose recorder it was does not show in a client.
            await inventory.record(hosts[0].host_id, [client.to_change() for client in portion], (), ())
            content.clients += len(portion)
            on_progress(content)
    return content


def _write_part(db: apsw.Connection, part: Sequence[Client] | HostPart, content: Content) -> None:
    if isinstance(part, HostPart):
        db.executemany("INSERT INTO totals VALUES (?, ?, ?, ?, ?)", [(part.host_id, *astuple(t)) for t in part.totals])
        db.executemany(
            "INSERT INTO watermarks VALUES (?, ?, ?, ?, ?, ?)", [(part.host_id, *astuple(w)) for w in part.watermarks]
        )
        content.hosts += 1
    else:
        places = ", ".join("?" * len(_CLIENT))
        db.executemany(f"INSERT INTO inventory VALUES ({places})", map(_read_fields, part))
        content.clients += len(part)


def _read_hosts(db: apsw.Connection) -> Iterator[HostPart]:
    query = "SELECT host_id FROM totals UNION SELECT host_id FROM watermarks ORDER BY host_id"
    for host_id in [cast(bytes, row[0]) for row in db.execute(query)]:
        totals = db.execute("SELECT sku, result, state, requests FROM totals WHERE host_id = ?", (host_id,))
        watermarks = db.execute(
            "SELECT segment, offset, number, header_hash, time_ms FROM watermarks WHERE host_id = ?", (host_id,)
        )
        yield HostPart(host_id, [Total(*row) for row in totals], [Watermark(*row) for row in watermarks])


def _find_fault(db: apsw.Connection) -> str | None:
    """What is wrong with a backup; None when all of it can be restored."""
    found = db.execute("PRAGMA integrity_check(1)").get
    if found != "ok":
        return str(found)
    # Its columns have no types of their own. There are few kinds of rows, so few comparisons.
    for kinds in {tuple(map(type, row)) for row in db.execute(f"SELECT {', '.join(_CLIENT)} FROM inventory")}:
        for field, kind in zip(fields(Client), kinds, strict=True):
            if kind not in (get_args(field.type) or (field.type,)):
                return f"{field.name} of a client cannot be {kind.__name__}"
    if db.execute("SELECT EXISTS (SELECT 1 FROM inventory WHERE length(cmid) <> 16 OR length(sku) <> 16)").get:
        return "a client has no ID"
    if db.execute("SELECT EXISTS (SELECT 1 FROM counts WHERE length(cmid) <> 16)").get:
        return "a machine that counts has no ID"
    if not any(_read_hosts(db)) and db.execute("SELECT EXISTS (SELECT 1 FROM inventory)").get:
        return "it has clients but no host that recorded them"
    return None


async def _require_empty(counts: Counts, inventory: Inventory) -> None:
    """Raise `KmsFastError` (STORE_IN_USE) when either holds anything."""
    async for _ in inventory.read_all():
        raise KmsFastError(
            "The inventory of this store is not empty; empty it if a restore into it was interrupted (docs/store.md).",
            name="STORE_IN_USE",
        )
    if await counts.read_all():
        raise KmsFastError("The counts of this store are not empty.", name="STORE_IN_USE")


@contextmanager
def _open(path: Path, flags: int = apsw.SQLITE_OPEN_READWRITE) -> Iterator[apsw.Connection]:
    """The backup's file, and SQLite's errors as `KmsFastError` that names it."""
    try:
        db = apsw.Connection(str(path), flags=flags)
        try:
            yield db
        finally:
            db.close()
    except (apsw.Error, UnicodeDecodeError) as error:
        damaged = isinstance(error, apsw.CorruptError | apsw.NotADBError | UnicodeDecodeError)
        raise KmsFastError(
            f"The backup {path} cannot be used: {error}.",
            name="STORE_DAMAGED" if damaged else "STORAGE_FAILED",
            file=str(path),
        ) from error
