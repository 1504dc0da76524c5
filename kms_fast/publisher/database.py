"""The publisher's SQLite file: its tables and their migrations, transactions, and its errors as ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.files import SECRET
from kms_fast.sqlite import WAIT_S, transaction

Values = tuple[bytes | int | str | None, ...]

# Each makes the tables of the version before it into those of its own; the file knows how many it has had.
MIGRATIONS: Final = (
    """
CREATE TABLE host_keys (
    key_id BLOB PRIMARY KEY, last_five TEXT NOT NULL, mac_key BLOB NOT NULL, seal_key BLOB NOT NULL,
    families TEXT NOT NULL, hosts INTEGER NOT NULL, activations INTEGER NOT NULL,
    customer_id INTEGER NOT NULL, note TEXT NOT NULL, created_ms INTEGER NOT NULL
) STRICT;
-- One row for each public key that a host key has activated: a renewal adds none.
CREATE TABLE activations (
    key_id BLOB NOT NULL REFERENCES host_keys, installation_id BLOB NOT NULL, public_key BLOB NOT NULL,
    activated_ms INTEGER NOT NULL, PRIMARY KEY (key_id, public_key)
) STRICT, WITHOUT ROWID;
CREATE TABLE certificates (
    serial INTEGER PRIMARY KEY, host_id BLOB NOT NULL, certificate BLOB NOT NULL, issued_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE revocations (serial INTEGER PRIMARY KEY REFERENCES certificates, revoked_ms INTEGER NOT NULL) STRICT;
CREATE TABLE revocation_lists (number INTEGER PRIMARY KEY, list BLOB NOT NULL) STRICT;
-- The number last given to each kind of file, and the digest of what it held; of serials and revocation lists, which
-- have tables of their own, the last one that a restoration left out.
CREATE TABLE numbers (kind TEXT PRIMARY KEY, number INTEGER NOT NULL, digest BLOB NOT NULL) STRICT;
""",
    """
ALTER TABLE host_keys ADD COLUMN disabled_ms INTEGER;
CREATE INDEX certificates_by_host ON certificates (host_id);
-- The audit log: what was asked of the publisher, and what it answered. serial: only where it granted.
CREATE TABLE requests (
    number INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, peer TEXT NOT NULL, keys TEXT NOT NULL,
    installation_id BLOB, public_key_hash BLOB, result INTEGER NOT NULL, serial INTEGER REFERENCES certificates
) STRICT;
""",
    """
CREATE TABLE activation_keys (
    key_id BLOB PRIMARY KEY, last_five TEXT NOT NULL, mac_key BLOB NOT NULL, sku TEXT NOT NULL,
    machines INTEGER NOT NULL, customer_id INTEGER NOT NULL, note TEXT NOT NULL, created_ms INTEGER NOT NULL,
    disabled_ms INTEGER
) STRICT;
-- One row for each machine that a key has activated: one that asks again adds none.
CREATE TABLE machines (
    key_id BLOB NOT NULL REFERENCES activation_keys, hardware_digest BLOB NOT NULL, cmid BLOB NOT NULL,
    activated_ms INTEGER NOT NULL, PRIMARY KEY (key_id, hardware_digest)
) STRICT, WITHOUT ROWID;
""",
)


class Database:
    """A connection to the file. One process at a time writes; others wait up to five seconds."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open it, or make one that is empty: without numbers and serials that were given out it must not be replaced.

        Raises OSError or `KmsFastError` (STORAGE_FAILED, NOT_ALLOWED, CONFIGURATION_INVALID).
        """
        self._path = path
        if create:
            path.touch(SECRET)
        elif not path.exists():
            raise _lost(path)
        with self._translated():
            self._connection = apsw.Connection(str(path))
            self._connection.set_busy_timeout(int(WAIT_S * 1000))
            self._connection.execute("PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL")
        with self.transaction():
            version = self._integer("PRAGMA user_version")
            if not version and not create:
                raise _lost(path)
            if version > len(MIGRATIONS):
                raise ConfigurationError(f"{path} was made by a newer version of kms_fast: update this one.")
            for script in MIGRATIONS[version:]:
                self._connection.execute(script)
            self._connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable at the end; no other writer in between."""
        with self._translated(), transaction(self._connection):
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError) as error:
            raise KmsFastError(f"{self._path}: {error}", name="NOT_ALLOWED", file=str(self._path)) from None
        except apsw.Error as error:
            raise KmsFastError(f"{self._path}: {error}", name="STORAGE_FAILED", file=str(self._path)) from None

    def _execute(self, statement: str, values: Values = ()) -> int:
        """Run a statement; how many rows it changed."""
        with self._translated():
            self._connection.execute(statement, values)
            return self._connection.changes()

    def _rows(self, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
        with self._translated():
            return self._connection.execute(statement, values).fetchall()

    def _integer(self, statement: str, values: Values = ()) -> int:
        """The first column of the first row; 0 when there is none."""
        rows = self._rows(statement, values)
        return rows[0][0] or 0 if rows else 0


def _lost(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is missing or empty. An empty one would give serials and numbers out again: make the publisher from a "
        "backup, in another home (kms-fast publisher restore FILE)."
    )
