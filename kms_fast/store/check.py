"""What can be wrong with a store, each as a sentence: damage that the database finds, and content that cannot be."""

import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import apsw

from kms_fast.errors import KmsFastError
from kms_fast.model.policy import DAY_MS
from kms_fast.model.settings import mask_password
from kms_fast.sqlite import describe_error, open_to_read
from kms_fast.store import Client, CountRow, HostPart, Watermark
from kms_fast.store.postgres import POSTGRES_ERRORS, close, connect, describe, explain
from kms_fast.store.postgres_schema import check_version

# Clocks of hosts differ; what lies further ahead was not written by a host that worked.
_AHEAD_MS: Final = DAY_MS
_MOST_FOUND: Final = 10

_INVALID_INDEXES: Final = """
SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE relnamespace = 'kms_fast'::regnamespace AND NOT indisvalid
"""
_TABLES: Final = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'kms_fast'::regnamespace AND relkind = 'r' ORDER BY 1"
)


def check_sqlite_file(path: Path) -> Iterator[str]:
    """What SQLite finds wrong with a file: pages, rows, indexes, constraints.

    Raises `KmsFastError` (STORAGE_FAILED) when it cannot be read.
    """
    try:
        with closing(open_to_read(path)) as db:
            for (found,) in db.execute(f"PRAGMA integrity_check({_MOST_FOUND})"):
                if found != "ok":
                    yield f"{path}: {found}"
    except (apsw.CorruptError, apsw.NotADBError) as error:
        yield f"{path}: {error}"
    except apsw.Error as error:
        raise KmsFastError(
            f"{path} cannot be checked: {describe_error(error)}.", name="STORAGE_FAILED", file=str(path)
        ) from error


async def check_postgres(url: str) -> AsyncIterator[str]:
    """What PostgreSQL finds wrong when it reads every row of every table, and indexes that it does not use.

    Raises `KmsFastError` (STORE_UNAVAILABLE, STORE_REFUSED, STORE_VERSION) when it cannot be asked.
    """
    connection = await connect(url)
    try:
        await check_version(connection)
        for (index,) in await connection.fetch(_INVALID_INDEXES):
            yield f"The index {index} is not valid: REINDEX INDEX {index}"
        for (table,) in await connection.fetch(_TABLES):
            try:
                # Each row as a whole; a mere count would be content with an index.
                await connection.fetchval(f'SELECT count(whole) FROM kms_fast."{table}" AS whole')
            except POSTGRES_ERRORS as error:
                if connection.is_closed():
                    raise
                yield f"The table {table} cannot be read: {describe(error)}"
    except POSTGRES_ERRORS as error:
        raise explain(error, mask_password(url)) from error
    finally:
        await close(connection)


def check_counts(families: Mapping[int, Sequence[CountRow]], caps: Mapping[int, int], now_ms: int) -> Iterator[str]:
    """Families above their cap (those whose cap is known), and machines seen in the future."""
    for family, rows in families.items():
        if len(rows) > caps.get(family, len(rows)):
            yield f"Family {family} counts {len(rows)} machines; its cap is {caps[family]}"
        ahead = sum(seen_ms > now_ms + _AHEAD_MS for _, seen_ms in rows)
        if ahead:
            yield f"Family {family} counts {ahead} machines that were seen in the future"


def check_clients(clients: Sequence[Client], now_ms: int) -> Iterator[str]:
    """Clients whose times contradict each other."""
    for client in clients:
        if not client.first_seen_ms <= client.last_seen_ms <= now_ms + _AHEAD_MS:
            times = f"first {client.first_seen_ms}, last {client.last_seen_ms}"
            yield f"The times of client {uuid.UUID(bytes=client.cmid)} cannot be: {times}"
        elif client.activations + client.refusals < 1 or min(client.activations, client.refusals) < 0:
            numbers = f"{client.activations} activations and {client.refusals} refusals"
            yield f"Client {uuid.UUID(bytes=client.cmid)} has {numbers}"


def check_watermarks(part: HostPart, now_ms: int) -> Iterator[str]:
    """Watermarks that no ledger can have."""
    for mark in part.watermarks:
        if not _is_possible(mark, now_ms):
            yield f"The watermark of host {uuid.UUID(bytes=part.host_id)}, segment {mark.segment}, cannot be: {mark}"


def _is_possible(mark: Watermark, now_ms: int) -> bool:
    return (
        mark.segment >= 1
        and mark.offset >= 0
        and mark.number >= 1
        and len(mark.header_hash) == 32
        and 0 < mark.time_ms <= now_ms + _AHEAD_MS
    )
