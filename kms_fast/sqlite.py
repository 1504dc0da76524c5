"""What hosts' stores and a publisher's records share of SQLite: a transaction, a copy of a file that is in use."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import apsw

from kms_fast.errors import KmsFastError

# How long to wait for another process that writes. Answers wait for counts.
WAIT_S: Final = 5.0


@contextmanager
def transaction(db: apsw.Connection) -> Iterator[None]:
    """One durable transaction: all of it or, when anything is raised, nothing; no other writer in between."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def describe_error(error: apsw.Error | OSError) -> str:
    """What SQLite or the system says; of places where SQLite cannot write, more than it does."""
    if isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError):
        return "this user must be able to read the file, and while it is in use to write to it and its folder"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


def open_to_read(path: Path) -> apsw.Connection:
    """A connection to a file that is there, to look only: also where it cannot be written to. Raises `apsw.Error`."""
    db = apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE)
    try:
        db.set_busy_timeout(int(WAIT_S * 1000))
        # Nothing but the first read tells whether SQLite can make the files that it shares with writers.
        db.pragma("schema_version")
        return db
    except apsw.Error as error:
        db.close()
        # With a log beside it somebody writes, and what is in the file alone is not all.
        if not isinstance(error, apsw.CantOpenError | apsw.ReadOnlyError) or Path(f"{path}-wal").exists():
            raise
    address = f"{path.absolute().as_uri()}?immutable=1"
    return apsw.Connection(address, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)


def copy_database(source: Path, target: Path) -> None:
    """Copy an SQLite file as of one moment, also while others write to it. Raises `KmsFastError` (STORAGE_FAILED)."""
    try:
        with (
            closing(open_to_read(source)) as read,
            closing(apsw.Connection(str(target))) as written,
            written.backup("main", read, "main") as backup,
        ):
            # In one step: the write-ahead log lets others write meanwhile.
            backup.step(-1)
    except apsw.Error as error:
        raise KmsFastError(
            f"{source} cannot be copied to {target}: {describe_error(error)}.", name="STORAGE_FAILED", file=str(source)
        ) from error
