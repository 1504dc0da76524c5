"""The tables of a PostgreSQL store: schema ``kms_fast``, and the steps that bring it from version to version.

docs/scaling.md describes them. A step is never changed once it is released; a change is a further step.
"""

from typing import Final

import asyncpg

from kms_fast.errors import KmsFastError

_COUNTS = """
CREATE TABLE kms_fast.schema_version (version integer NOT NULL);
INSERT INTO kms_fast.schema_version VALUES (0);

-- A family's row is locked by whoever counts for it. Family -1 is none: hosts lock it to see that commits return.
CREATE TABLE kms_fast.families (family integer PRIMARY KEY);
INSERT INTO kms_fast.families VALUES (-1);

-- arrival: the order in which a family's machines came within one millisecond. Few rows that change all the time: they
-- are vacuumed by how many have changed, or each call would read past all that were there before.
CREATE TABLE kms_fast.counts (
    family integer NOT NULL,
    cmid bytea NOT NULL CHECK (octet_length(cmid) = 16),
    seen_ms bigint NOT NULL,
    arrival bigint NOT NULL,
    PRIMARY KEY (family, cmid)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX counts_by_age ON kms_fast.counts (family, seen_ms, arrival);

-- A function, because its statements see what was committed before the lock was granted, and because no lock waits
-- for a round trip: a host that stops in the middle would hold up all others.
CREATE FUNCTION kms_fast.record_counts(
    of_family integer, cmids bytea[], seen_at_ms bigint[], oldest_ms bigint, cap integer
) RETURNS TABLE (cmid bytea, seen_ms bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'counts need the isolation level read committed';
    END IF;
    INSERT INTO kms_fast.families (family) VALUES (of_family) ON CONFLICT DO NOTHING;
    PERFORM family FROM kms_fast.families WHERE family = of_family FOR UPDATE;
    RETURN QUERY
        SELECT cmid, seen_ms FROM kms_fast.counts WHERE family = of_family AND seen_ms >= oldest_ms
        ORDER BY seen_ms DESC, arrival DESC LIMIT cap;
    INSERT INTO kms_fast.counts AS known (family, cmid, seen_ms, arrival)
        SELECT of_family, asked.cmid, asked.seen_ms, last.arrival + asked.place
        FROM unnest(cmids, seen_at_ms) WITH ORDINALITY AS asked (cmid, seen_ms, place),
            (SELECT coalesce(max(arrival), 0) FROM kms_fast.counts WHERE family = of_family) AS last (arrival)
        ORDER BY asked.cmid
        ON CONFLICT (family, cmid) DO UPDATE SET seen_ms = excluded.seen_ms, arrival = excluded.arrival
            WHERE known.seen_ms <= excluded.seen_ms;
    DELETE FROM kms_fast.counts WHERE family = of_family AND (seen_ms < oldest_ms OR cmid IN (
        SELECT cmid FROM kms_fast.counts WHERE family = of_family ORDER BY seen_ms DESC, arrival DESC OFFSET cap
    ));
END
$$;
"""

# Rows leave room in their page, so that a renewal, which changes no indexed column, touches no index. first_hardware
# stands here because ON CONFLICT sees nothing of a new row but its columns.
_INVENTORY = """
CREATE TABLE kms_fast.clients (
    cmid bytea NOT NULL CHECK (octet_length(cmid) = 16),
    sku bytea NOT NULL CHECK (octet_length(sku) = 16),
    first_seen_ms bigint NOT NULL,
    activations bigint NOT NULL,
    activated_ms bigint,
    expires_ms bigint,
    refusals bigint NOT NULL,
    refused_ms bigint,
    refusal bigint,
    state smallint NOT NULL,
    name text,
    address bytea,
    first_hardware bytea NOT NULL,
    hardware bytea NOT NULL,
    hardware_changes bigint NOT NULL,
    predecessor bytea,
    previous_cmid bytea,
    virtual smallint NOT NULL,
    library_version bigint NOT NULL,
    PRIMARY KEY (cmid, sku)
) WITH (fillfactor = 85);
CREATE INDEX clients_by_name ON kms_fast.clients (lower(name COLLATE "C"), cmid, sku) WHERE name IS NOT NULL;
CREATE INDEX clients_by_state ON kms_fast.clients (state, cmid, sku) WHERE state <> 1;
CREATE INDEX clients_cloned ON kms_fast.clients (cmid, sku) WHERE hardware_changes > 0;

CREATE TABLE kms_fast.totals (
    host_id bytea NOT NULL,
    sku bytea NOT NULL,
    result bigint NOT NULL,
    state smallint NOT NULL,
    requests bigint NOT NULL,
    PRIMARY KEY (host_id, sku, result, state)
);

CREATE TABLE kms_fast.watermarks (
    host_id bytea NOT NULL,
    segment bigint NOT NULL,
    "offset" bigint NOT NULL,
    number bigint NOT NULL,
    header_hash bytea NOT NULL,
    time_ms bigint NOT NULL,
    PRIMARY KEY (host_id, segment)
);

CREATE TABLE kms_fast.summary (only_row boolean PRIMARY KEY CHECK (only_row), content text NOT NULL);

CREATE VIEW kms_fast.inventory AS
SELECT cmid, sku, first_seen_ms, greatest(activated_ms, refused_ms) AS last_seen_ms, activations, activated_ms,
    expires_ms, refusals, refused_ms, refusal, state, name, address, hardware, hardware_changes, predecessor,
    previous_cmid, virtual, library_version
FROM kms_fast.clients;
"""

STEPS: Final = (_COUNTS, _INVENTORY)
"""What leads from version 0 (nothing) to 1, from 1 to 2, and so on."""

VERSION: Final = len(STEPS)
"""The version that this program works with."""

# The schema's owner, or who may make it, and what the role of this session lacks to be one.
_FIND_OWNER: Final = """
SELECT current_user AS role, current_database() AS database, pg_get_userbyid(datdba) AS database_owner,
    (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'kms_fast') AS schema_owner
FROM pg_database WHERE datname = current_database()
"""

# Any number will do; whoever migrates takes it. Only one on PostgreSQL's 64 bits that others hardly choose.
_MIGRATION_LOCK: Final = int.from_bytes(b"kms_fast", "big", signed=True)


async def read_version(connection: asyncpg.Connection) -> int:
    """The version of the tables in this database, 0 when there are none. Raises asyncpg's errors."""
    if await connection.fetchval("SELECT to_regclass('kms_fast.schema_version') IS NULL"):
        return 0
    return int(await connection.fetchval("SELECT version FROM kms_fast.schema_version"))


async def check_version(connection: asyncpg.Connection) -> None:
    """Raise `KmsFastError` (STORE_EMPTY, STORE_VERSION) unless the tables are of this program's version."""
    version = await read_version(connection)
    if version == 0:
        raise KmsFastError("The database has no tables of kms_fast yet.", name="STORE_EMPTY")
    if version != VERSION:
        raise KmsFastError(
            f"The database has tables of version {version}; this program needs version {VERSION}.",
            name="STORE_VERSION",
            version=version,
            needed=VERSION,
        )


async def explain_rights(connection: asyncpg.Connection) -> str:
    """What the role of this connection lacks to migrate, and which role has it. Raises asyncpg's errors."""
    row = await connection.fetchrow(_FIND_OWNER)
    assert row is not None
    if row["schema_owner"] is None:
        right, owner = f"the right CREATE on the database {row['database']}", row["database_owner"]
    else:
        right, owner = "to own the schema kms_fast", row["schema_owner"]
    return f"the role {row['role']} needs {right}, as the role {owner} has it"


async def migrate_tables(connection: asyncpg.Connection) -> int:
    """Bring the tables up to date, all of it or nothing; the version they had before.

    Whoever else migrates waits. Raises `KmsFastError` (STORE_VERSION) for tables of a newer program; asyncpg's errors.
    """
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
        before = await read_version(connection)
        if before > VERSION:
            await check_version(connection)
        if before == 0:
            await connection.execute("CREATE SCHEMA IF NOT EXISTS kms_fast")
        for step in STEPS[before:]:
            await connection.execute(step)
        if before != VERSION:
            await connection.execute("UPDATE kms_fast.schema_version SET version = $1", VERSION)
        return before
