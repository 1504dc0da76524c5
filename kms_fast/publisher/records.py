"""What a publisher must not forget: keys and what they activated, certificates, revocation lists, numbers, its log.

Keys are kept as their derived secrets; the keys themselves are shown once and stored nowhere.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from kms_fast.errors import ConfigurationError
from kms_fast.model.certificate import HostCertificate
from kms_fast.model.exchange import HostKeySecrets
from kms_fast.model.machine_activation import ActivationKeySecrets
from kms_fast.publisher.database import Database, Values

# Refusals cost whoever asks nothing, so the log keeps those among so many newest rows; what was granted stays for ever.
KEPT_REFUSALS: Final = 100_000
# By how much numbers are raised after a restoration: more than were given out since any backup worth restoring.
SKIPPED_NUMBERS: Final = 100_000


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
    """A host key as the publisher keeps it; ``disabled_ms``: since when it certifies nothing any more."""

    secrets: HostKeySecrets
    entitlement: Entitlement
    created_ms: int
    disabled_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ActivationKeyRecord:
    """A multiple-activation key as the publisher keeps it. ``machines``: how many it may activate of this SKU."""

    secrets: ActivationKeySecrets
    sku: uuid.UUID
    machines: int
    customer_id: int
    note: str
    created_ms: int
    disabled_ms: int | None = None


_Key = TypeVar("_Key", bound=HostKeyRecord | ActivationKeyRecord)


@dataclass(frozen=True, slots=True)
class KeyUse:
    """How much of a host key is used: hosts it has activated, activations of one of them."""

    hosts: int
    activations_of_host: int


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """A certificate that was issued; ``revoked_ms``: when it was revoked, if it was."""

    certificate: HostCertificate
    issued_ms: int
    revoked_ms: int | None


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """A row of the audit log: one request for a certificate, or for the activation of a machine.

    ``peer``: the address it came from, empty for a file; ``keys``: the last five characters of its keys, or the IDs of
    unknown ones. ``installation_id``: 16 bytes, of a machine its CMID; None for what was no request. SHA-256 of the
    public key and serial are a host's only.
    """

    time_ms: int
    peer: str
    keys: str
    installation_id: bytes | None
    public_key_hash: bytes | None
    result: int
    serial: int | None


class Records(Database):
    """The publisher's records."""

    def add_host_key(self, secrets: HostKeySecrets, entitlement: Entitlement, now_ms: int) -> None:
        """Store a new host key."""
        values = (
            secrets.key_id,
            secrets.last_five,
            secrets.mac_key,
            secrets.seal_key,
            json.dumps(entitlement.families),
            entitlement.hosts,
            entitlement.activations,
            entitlement.customer_id,
            entitlement.note,
            now_ms,
        )
        self._execute("INSERT INTO host_keys VALUES (?,?,?,?,?,?,?,?,?,?,NULL)", values)

    def find_host_key(self, key_id: bytes) -> HostKeyRecord | None:
        """The host key with this ID, if it is one of ours."""
        rows = self._rows("SELECT * FROM host_keys WHERE key_id = ?", (key_id,))
        return _read_host_key(rows[0]) if rows else None

    def name_host_key(self, named: str) -> HostKeyRecord:
        """The host key with these last five characters, or with this ID in hex.

        Raises `ConfigurationError` when there is none, or several.
        """
        return _choose(named, self.list_host_keys(), "host key")

    def list_host_keys(self) -> list[HostKeyRecord]:
        """All host keys, the oldest first."""
        return [_read_host_key(row) for row in self._rows("SELECT * FROM host_keys ORDER BY created_ms, rowid")]

    def count_activations(self, key_id: bytes, installation_id: bytes = b"") -> KeyUse:
        """How much of the key is used, by all hosts and by this one."""
        hosts = "SELECT count(DISTINCT installation_id) FROM activations WHERE key_id = ?"
        of_host = "SELECT count(*) FROM activations WHERE key_id = ? AND installation_id = ?"
        return KeyUse(self._integer(hosts, (key_id,)), self._integer(of_host, (key_id, installation_id)))

    def list_activated(self, key_id: bytes) -> list[bytes]:
        """The public keys that a host key has activated."""
        return [row[0] for row in self._rows("SELECT public_key FROM activations WHERE key_id = ?", (key_id,))]

    def has_activation(self, key_id: bytes, public_key: bytes) -> bool:
        """Whether the key has activated this public key before: then it is a renewal."""
        statement = "SELECT count(*) FROM activations WHERE key_id = ? AND public_key = ?"
        return bool(self._integer(statement, (key_id, public_key)))

    def add_activation(self, key_id: bytes, installation_id: bytes, public_key: bytes, now_ms: int) -> None:
        """Note that the key has activated this public key."""
        self._execute("INSERT INTO activations VALUES (?,?,?,?)", (key_id, installation_id, public_key, now_ms))

    def add_activation_key(self, key: ActivationKeyRecord) -> None:
        """Store a new multiple-activation key."""
        values = (
            key.secrets.key_id,
            key.secrets.last_five,
            key.secrets.mac_key,
            str(key.sku),
            key.machines,
            key.customer_id,
            key.note,
            key.created_ms,
        )
        self._execute("INSERT INTO activation_keys VALUES (?,?,?,?,?,?,?,?,NULL)", values)

    def find_activation_key(self, key_id: bytes) -> ActivationKeyRecord | None:
        """The multiple-activation key with this ID, if it is one of ours."""
        rows = self._rows("SELECT * FROM activation_keys WHERE key_id = ?", (key_id,))
        return _read_activation_key(rows[0]) if rows else None

    def list_activation_keys(self) -> list[ActivationKeyRecord]:
        """All multiple-activation keys, the oldest first."""
        rows = self._rows("SELECT * FROM activation_keys ORDER BY created_ms, rowid")
        return [_read_activation_key(row) for row in rows]

    def count_machines(self, key_id: bytes) -> int:
        """How many machines a multiple-activation key has activated."""
        return self._integer("SELECT count(*) FROM machines WHERE key_id = ?", (key_id,))

    def has_machine(self, key_id: bytes, hardware_digest: bytes) -> bool:
        """Whether the key has activated this machine before."""
        statement = "SELECT count(*) FROM machines WHERE key_id = ? AND hardware_digest = ?"
        return bool(self._integer(statement, (key_id, hardware_digest)))

    def add_machine(self, key_id: bytes, hardware_digest: bytes, cmid: bytes, now_ms: int) -> None:
        """Note that the key has activated this machine."""
        self._execute("INSERT INTO machines VALUES (?,?,?,?)", (key_id, hardware_digest, cmid, now_ms))

    def name_key(self, named: str) -> HostKeyRecord | ActivationKeyRecord:
        """As `name_host_key`, of either kind."""
        keys: list[HostKeyRecord | ActivationKeyRecord] = [*self.list_host_keys(), *self.list_activation_keys()]
        return _choose(named, keys, "key")

    def disable_key(self, key_id: bytes, since_ms: int | None) -> None:
        """Let a key of either kind activate nothing any more; with None it does again."""
        for table in ("host_keys", "activation_keys"):
            self._execute(f"UPDATE {table} SET disabled_ms = ? WHERE key_id = ?", (since_ms, key_id))

    def next_serial(self) -> int:
        """The serial of the next certificate."""
        return max(self._integer("SELECT max(serial) FROM certificates"), self._given_number("serial")) + 1

    def add_certificate(self, certificate: HostCertificate, now_ms: int) -> None:
        """Note a certificate that was issued."""
        values = (certificate.serial, certificate.host_id, certificate.to_bytes(), now_ms)
        self._execute("INSERT INTO certificates VALUES (?,?,?,?)", values)

    def has_certificate(self, serial: int) -> bool:
        """Whether a certificate with this serial was issued."""
        return bool(self._integer("SELECT count(*) FROM certificates WHERE serial = ?", (serial,)))

    def list_certificates(self, host_id: bytes | None = None) -> list[CertificateRecord]:
        """Certificates by serial, all or those of one host."""
        statement = "SELECT certificate, issued_ms, revoked_ms FROM certificates LEFT JOIN revocations USING (serial)"
        values: Values = ()
        if host_id is not None:
            statement, values = f"{statement} WHERE host_id = ?", (host_id,)
        rows = self._rows(f"{statement} ORDER BY serial", values)
        return [CertificateRecord(HostCertificate.parse(data), *times) for data, *times in rows]

    def find_revoked(self, host_id: bytes) -> int | None:
        """The newest serial of a host that is revoked, if one is."""
        statement = "SELECT max(serial) FROM certificates JOIN revocations USING (serial) WHERE host_id = ?"
        return self._integer(statement, (host_id,)) or None

    def add_revocation(self, serial: int, now_ms: int) -> bool:
        """Note that a certificate is revoked; False when it was already."""
        return self._execute("INSERT OR IGNORE INTO revocations VALUES (?,?)", (serial, now_ms)) > 0

    def list_revoked(self) -> list[HostCertificate]:
        """All revoked certificates, by serial."""
        return [record.certificate for record in self.list_certificates() if record.revoked_ms is not None]

    def newest_revocation_list(self) -> tuple[int, bytes]:
        """Number and bytes of the newest revocation list; 0 and none before the first."""
        rows = self._rows("SELECT number, list FROM revocation_lists ORDER BY number DESC LIMIT 1")
        return rows[0] if rows else (0, b"")

    def next_revocation_number(self) -> int:
        """The number of the next revocation list."""
        return max(self.newest_revocation_list()[0], self._given_number("revocations")) + 1

    def add_revocation_list(self, number: int, data: bytes) -> None:
        """Keep a signed revocation list."""
        self._execute("INSERT INTO revocation_lists VALUES (?,?)", (number, data))

    def number_for(self, kind: str, digest: bytes, *, taken: int = 0) -> int:
        """The number of a file of this kind with this content: the last one while it is the same, otherwise the next.

        It is above ``taken``, which a file with other content has. Gives a new number out; ask inside a transaction.
        """
        rows = self._rows("SELECT number, digest FROM numbers WHERE kind = ?", (kind,))
        number, known = rows[0] if rows else (0, b"")
        if known == digest and number > taken:
            return int(number)
        number = max(number, taken) + 1
        self._execute("INSERT OR REPLACE INTO numbers VALUES (?,?,?)", (kind, number, digest))
        return int(number)

    def skip_numbers(self) -> None:
        """Leave out the numbers that may have been given out after these records were copied."""
        with self.transaction():
            given = {"serial": self.next_serial() - 1, "revocations": self.next_revocation_number() - 1}
            for kind in ("publisher", "catalog"):
                given[kind] = self._given_number(kind)
            for kind, number in given.items():
                self._execute("INSERT OR REPLACE INTO numbers VALUES (?,?,x'')", (kind, number + SKIPPED_NUMBERS))

    def _given_number(self, kind: str) -> int:
        """The number of this kind that was given out last; of serials and revocation lists the last one left out."""
        return self._integer("SELECT number FROM numbers WHERE kind = ?", (kind,))

    def add_request(self, request: RequestRecord) -> None:
        """Write a row of the audit log."""
        values = (
            request.time_ms,
            request.peer,
            request.keys,
            request.installation_id,
            request.public_key_hash,
            request.result,
            request.serial,
        )
        self._execute("INSERT INTO requests VALUES (NULL,?,?,?,?,?,?,?)", values)
        if request.result:
            kept = "(SELECT max(number) FROM requests) - ?"
            self._execute(f"DELETE FROM requests WHERE result <> 0 AND number <= {kept}", (KEPT_REFUSALS,))

    def list_requests(
        self, *, limit: int, key: str = "", peer: str = "", refused: bool | None = None, since_ms: int = 0
    ) -> list[RequestRecord]:
        """The audit log, newest first: of a key (its last five characters), of an address, refused or granted."""
        statement = "SELECT time_ms, peer, keys, installation_id, public_key_hash, result, serial FROM requests"
        # Whole items of the list: five digits also occur within the ID of an unknown key.
        of_key = "? = '' OR instr(', ' || keys || ', ', ', ' || ? || ', ')"
        statement += f" WHERE time_ms >= ? AND ({of_key}) AND (? = '' OR peer = ?)"
        if refused is not None:
            statement += f" AND result {'<>' if refused else '='} 0"
        rows = self._rows(f"{statement} ORDER BY number DESC LIMIT ?", (since_ms, key, key, peer, peer, limit))
        return [RequestRecord(*row) for row in rows]


def _choose(named: str, keys: Sequence[_Key], kind: str) -> _Key:
    wanted = named.strip().upper().removeprefix("…")
    found = [key for key in keys if wanted in (key.secrets.last_five, key.secrets.key_id.hex().upper())]
    if not found:
        raise ConfigurationError(f"This publisher made no {kind} that ends in {named}: see kms-fast publisher keys.")
    if len(found) > 1:
        ids = ", ".join(key.secrets.key_id.hex() for key in found)
        raise ConfigurationError(f"Several {kind}s end in {named}: name one by its ID ({ids}).")
    return found[0]


def _read_host_key(row: tuple[Any, ...]) -> HostKeyRecord:
    key_id, last_five, mac_key, seal_key, families, hosts, activations, customer_id, note, created_ms, disabled_ms = row
    generations = {int(number): generation for number, generation in json.loads(families).items()}
    return HostKeyRecord(
        HostKeySecrets(key_id, last_five, mac_key, seal_key),
        Entitlement(generations, hosts, activations, customer_id, note),
        created_ms,
        disabled_ms,
    )


def _read_activation_key(row: tuple[Any, ...]) -> ActivationKeyRecord:
    key_id, last_five, mac_key, sku, *rest = row
    return ActivationKeyRecord(ActivationKeySecrets(key_id, last_five, mac_key), uuid.UUID(sku), *rest)
