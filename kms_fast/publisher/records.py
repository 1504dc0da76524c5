"""What a publisher must not forget, in SQLite: host keys, their activations, certificates, revocation lists, numbers.

Host keys are kept as their derived secrets; the keys themselves are shown once and stored nowhere.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw

from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.files import SECRET
from kms_fast.model.certificate import HostCertificate
from kms_fast.model.exchange import HostKeySecrets

_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
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
-- The number last given to each kind of file, and the digest of what it held.
CREATE TABLE numbers (kind TEXT PRIMARY KEY, number INTEGER NOT NULL, digest BLOB NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Entitlement:
    """What a host key entitles its customer to. ``families``: newest generation by family number."""

    families: dict[int, int]
    hosts: int
    activations: int
    customer_id: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class HostKeyRecord:
    """A host key as the publisher keeps it."""

    secrets: HostKeySecrets
    entitlement: Entitlement
    created_ms: int


@dataclass(frozen=True, slots=True)
class KeyUse:
    """How much of a host key is used: hosts it has activated, activations of one of them."""

    hosts: int
    activations_of_host: int


class Records:
    """The publisher's database. One process at a time writes; others wait up to five seconds."""

    def __init__(self, path: Path) -> None:
        """Open or create it. Raises OSError or `KmsFastError` (STORAGE_FAILED, NOT_ALLOWED, CONFIGURATION_INVALID)."""
        self._path = path
        if not path.exists():
            path.touch(SECRET)
        with self._translated():
            self._connection = apsw.Connection(str(path))
            self._connection.set_busy_timeout(5000)
            self._connection.execute("PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL")
        with self.transaction():
            version = self._value("PRAGMA user_version")
            if version == 0:
                self._connection.execute(f"{_SCHEMA}; PRAGMA user_version = {_SCHEMA_VERSION}")
            elif version != _SCHEMA_VERSION:
                raise ConfigurationError(f"{path} was made by another version of kms_fast (its schema is {version}).")

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable at the end; no other writer in between."""
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (apsw.ReadOnlyError, apsw.PermissionsError, apsw.AuthError) as error:
            raise KmsFastError(f"{self._path}: {error}", name="NOT_ALLOWED", file=str(self._path)) from None
        except apsw.Error as error:
            raise KmsFastError(f"{self._path}: {error}", name="STORAGE_FAILED", file=str(self._path)) from None

    def _value(self, statement: str, bindings: tuple[bytes | int, ...] = ()) -> object:
        row = self._connection.execute(statement, bindings).fetchone()
        return row[0] if row else None

    def _integer(self, statement: str, bindings: tuple[bytes | int, ...] = ()) -> int:
        value = self._value(statement, bindings)
        return value if isinstance(value, int) else 0

    def add_host_key(self, secrets: HostKeySecrets, entitlement: Entitlement, now_ms: int) -> None:
        """Store a new host key."""
        families = json.dumps(entitlement.families)
        values = (
            secrets.key_id,
            secrets.last_five,
            secrets.mac_key,
            secrets.seal_key,
            families,
            entitlement.hosts,
            entitlement.activations,
            entitlement.customer_id,
            entitlement.note,
            now_ms,
        )
        with self._translated():
            self._connection.execute("INSERT INTO host_keys VALUES (?,?,?,?,?,?,?,?,?,?)", values)

    def find_host_key(self, key_id: bytes) -> HostKeyRecord | None:
        """The host key with this ID, if it is one of ours."""
        with self._translated():
            row = self._connection.execute("SELECT * FROM host_keys WHERE key_id = ?", (key_id,)).fetchone()
        if row is None:
            return None
        identity, last_five, mac_key, seal_key, families, hosts, activations, customer_id, note, created_ms = row
        generations = {int(number): generation for number, generation in json.loads(families).items()}
        return HostKeyRecord(
            HostKeySecrets(identity, last_five, mac_key, seal_key),
            Entitlement(generations, hosts, activations, customer_id, note),
            created_ms,
        )

    def count_activations(self, key_id: bytes, installation_id: bytes) -> KeyUse:
        """How much of the key is used, by all hosts and by this one."""
        with self._translated():
            hosts = "SELECT count(DISTINCT installation_id) FROM activations WHERE key_id = ?"
            of_host = "SELECT count(*) FROM activations WHERE key_id = ? AND installation_id = ?"
            return KeyUse(self._integer(hosts, (key_id,)), self._integer(of_host, (key_id, installation_id)))

    def has_activation(self, key_id: bytes, public_key: bytes) -> bool:
        """Whether the key has activated this public key before: then it is a renewal."""
        with self._translated():
            statement = "SELECT count(*) FROM activations WHERE key_id = ? AND public_key = ?"
            return bool(self._integer(statement, (key_id, public_key)))

    def add_activation(self, key_id: bytes, installation_id: bytes, public_key: bytes, now_ms: int) -> None:
        """Note that the key has activated this public key."""
        with self._translated():
            values = (key_id, installation_id, public_key, now_ms)
            self._connection.execute("INSERT INTO activations VALUES (?,?,?,?)", values)

    def next_serial(self) -> int:
        """The serial of the next certificate."""
        with self._translated():
            return self._integer("SELECT max(serial) FROM certificates") + 1

    def add_certificate(self, certificate: HostCertificate, now_ms: int) -> None:
        """Note a certificate that was issued."""
        with self._translated():
            values = (certificate.serial, certificate.host_id, certificate.to_bytes(), now_ms)
            self._connection.execute("INSERT INTO certificates VALUES (?,?,?,?)", values)

    def has_certificate(self, serial: int) -> bool:
        """Whether a certificate with this serial was issued."""
        with self._translated():
            return bool(self._integer("SELECT count(*) FROM certificates WHERE serial = ?", (serial,)))

    def add_revocation(self, serial: int, now_ms: int) -> bool:
        """Note that a certificate is revoked; False when it was already."""
        with self._translated():
            self._connection.execute("INSERT OR IGNORE INTO revocations VALUES (?,?)", (serial, now_ms))
            return self._connection.changes() > 0

    def revoked_serials(self) -> tuple[int, ...]:
        """Serials of all revoked certificates, ascending."""
        with self._translated():
            return tuple(row[0] for row in self._connection.execute("SELECT serial FROM revocations ORDER BY serial"))

    def newest_revocation_list(self) -> tuple[int, bytes]:
        """Number and bytes of the newest revocation list; 0 and none before the first."""
        with self._translated():
            statement = "SELECT number, list FROM revocation_lists ORDER BY number DESC LIMIT 1"
            row = self._connection.execute(statement).fetchone()
        return (row[0], row[1]) if row else (0, b"")

    def add_revocation_list(self, number: int, data: bytes) -> None:
        """Keep a signed revocation list."""
        with self._translated():
            self._connection.execute("INSERT INTO revocation_lists VALUES (?,?)", (number, data))

    def number_for(self, kind: str, digest: bytes) -> int:
        """The number of a file of this kind with this content: the last one while it is the same, otherwise the next.

        Gives a new number out; ask inside a transaction.
        """
        with self._translated():
            row = self._connection.execute("SELECT number, digest FROM numbers WHERE kind = ?", (kind,)).fetchone()
            number, known = row or (0, b"")
            if known == digest:
                return int(number)
            self._connection.execute("INSERT OR REPLACE INTO numbers VALUES (?,?,?)", (kind, number + 1, digest))
            return int(number) + 1
