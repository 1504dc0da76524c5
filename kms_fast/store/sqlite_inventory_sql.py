"""Tables and statements of the SQLite inventory: what `kms_fast.store.sqlite_inventory` runs."""

from typing import Final

# The columns of `kms_fast.store.Client`, in its order. SQLite joins in the order of CROSS JOIN: from a client on.
CLIENTS: Final = """
SELECT c.cmid, p.sku, c.first_seen_ms, max(coalesce(a.activated_ms, 0), coalesce(a.refused_ms, 0)) AS last_seen_ms,
    a.activations, a.activated_ms, a.expires_ms, a.refusals, a.refused_ms, a.refusal, c.state, c.name, c.address,
    c.hardware, c.hardware_changes, iif(length(a.predecessor) = 32, a.predecessor, NULL) AS predecessor,
    c.previous_cmid, c.virtual, c.library_version
FROM clients c CROSS JOIN activity a ON a.id = c.id CROSS JOIN products p ON p.product = c.product
"""

MIGRATIONS: Final = (
    f"""
CREATE TABLE products (
    product INTEGER PRIMARY KEY,
    sku BLOB NOT NULL UNIQUE CHECK (length(sku) = 16),
    clients INTEGER NOT NULL
) STRICT;

CREATE TABLE clients (
    cmid BLOB NOT NULL CHECK (length(cmid) = 16),
    product INTEGER NOT NULL REFERENCES products,
    id INTEGER NOT NULL,
    first_seen_ms INTEGER NOT NULL,
    state INTEGER NOT NULL,
    name TEXT COLLATE NOCASE,
    address BLOB,
    hardware BLOB NOT NULL,
    hardware_changes INTEGER NOT NULL,
    previous_cmid BLOB,
    virtual INTEGER NOT NULL,
    library_version INTEGER NOT NULL,
    PRIMARY KEY (cmid, product)
) STRICT, WITHOUT ROWID;
CREATE INDEX clients_by_name ON clients (name, cmid, product) WHERE name IS NOT NULL;
CREATE INDEX clients_by_state ON clients (state, cmid, product) WHERE state <> 1;
CREATE INDEX clients_cloned ON clients (cmid, product) WHERE hardware_changes > 0;

CREATE TABLE activity (
    id INTEGER PRIMARY KEY,
    activations INTEGER NOT NULL,
    activated_ms INTEGER,
    expires_ms INTEGER,
    refusals INTEGER NOT NULL,
    refused_ms INTEGER,
    refusal INTEGER,
    predecessor BLOB NOT NULL
) STRICT;

CREATE TABLE totals (
    host_id BLOB NOT NULL,
    sku BLOB NOT NULL CHECK (length(sku) = 16),
    result INTEGER NOT NULL,
    state INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    PRIMARY KEY (host_id, sku, result, state)
) STRICT, WITHOUT ROWID;

CREATE TABLE watermarks (
    host_id BLOB NOT NULL,
    segment INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    number INTEGER NOT NULL,
    header_hash BLOB NOT NULL,
    time_ms INTEGER NOT NULL,
    PRIMARY KEY (host_id, segment)
) STRICT, WITHOUT ROWID;

CREATE TABLE summary (only INTEGER PRIMARY KEY CHECK (only = 1), content TEXT NOT NULL) STRICT;

CREATE VIEW inventory AS {CLIENTS};
""",
    "ALTER TABLE clients ADD COLUMN said BLOB",
)

# What `kms_fast.store.ChangeRow` holds, in its order, with the product's number in place of its SKU.
_CHANGE: Final = (
    "cmid", "product", "first_seen_ms", "activations", "activated_ms", "expires_ms", "refusals", "refused_ms",
    "refusal", "state", "name", "address", "first_hardware", "hardware", "hardware_changes", "predecessor",
    "previous_cmid", "virtual", "library_version", "said",
)  # fmt: skip
STAGE_TABLES: Final = f"""
CREATE TEMP TABLE stage ({", ".join(_CHANGE)});
CREATE TEMP TABLE found (id INTEGER, row INTEGER NOT NULL, changed INTEGER);
"""

# What the newest request says of a machine, beside its hardware.
_SAID: Final = ("state", "name", "address", "previous_cmid", "virtual", "library_version", "said")
_CLIENT: Final = ("cmid", "product", "first_seen_ms", *_SAID, "hardware", "hardware_changes")
_ACTIVITY: Final = ("activations", "activated_ms", "expires_ms", "refusals", "refused_ms", "refusal")


def stage_rows(count: int) -> str:
    """The statement that stages ``count`` rows of 20 values at once."""
    values = ["?"] * len(_CHANGE)
    values[1] = "(SELECT product FROM products WHERE sku = ?)"
    row = f"({', '.join(values)})"
    return f"INSERT INTO temp.stage VALUES {', '.join([row] * count)}"


# Where each staged row belongs, in the order of activity: its client's id, null for a new one, and whether the row says
# anything new of what a machine is. Nearly all renewals do not.
FIND_CLIENTS: Final = """
INSERT INTO temp.found (id, row, changed)
SELECT c.id, s.rowid,
    CASE WHEN c.id IS NOT NULL THEN s.said IS NULL OR c.said IS NOT s.said OR c.first_seen_ms > s.first_seen_ms END
FROM temp.stage s LEFT JOIN clients c ON c.cmid = s.cmid AND c.product = s.product
ORDER BY c.id
"""

_NEWER: Final = (
    "max(coalesce({new}.activated_ms, 0), coalesce({new}.refused_ms, 0)) >= "
    "max(coalesce({old}.activated_ms, 0), coalesce({old}.refused_ms, 0))"
)

CHANGE_CLIENTS: Final = f"""
WITH changed AS MATERIALIZED (
    SELECT s.*, {_NEWER.format(new="s", old="a")} AS newer
    FROM temp.found f CROSS JOIN temp.stage s ON s.rowid = f.row CROSS JOIN activity a ON a.id = f.id
    WHERE f.changed
)
UPDATE clients SET
    first_seen_ms = min(clients.first_seen_ms, n.first_seen_ms),
    hardware_changes = clients.hardware_changes + n.hardware_changes + (clients.hardware <> n.first_hardware),
    {", ".join(f"{name} = iif(n.newer, n.{name}, clients.{name})" for name in (*_SAID, "hardware"))}
FROM changed n WHERE clients.cmid = n.cmid AND clients.product = n.product
"""

NUMBER_NEW_CLIENTS: Final = """
UPDATE temp.found SET id = rowid + (SELECT coalesce(max(id), 0) FROM activity) WHERE id IS NULL
"""
ADD_CLIENTS: Final = f"""
INSERT INTO clients (id, {", ".join(_CLIENT)})
SELECT f.id, {", ".join(f"s.{name}" for name in _CLIENT)}
FROM temp.found f CROSS JOIN temp.stage s ON s.rowid = f.row WHERE f.changed IS NULL
"""
COUNT_NEW_CLIENTS: Final = """
UPDATE products SET clients = products.clients + n.added FROM (
    SELECT s.product, count(*) AS added
    FROM temp.found f CROSS JOIN temp.stage s ON s.rowid = f.row WHERE f.changed IS NULL GROUP BY s.product
) n WHERE products.product = n.product
"""

# A row is written with more room for its predecessor than that needs, so that the first renewals make no page overflow:
# pages that new rows filled would split into halves.
_ROOM: Final = 34
_MERGE_ACTIVITY: Final = f"""
ON CONFLICT (id) DO UPDATE SET
    activations = activations + excluded.activations,
    expires_ms = iif(excluded.activated_ms >= coalesce(activated_ms, 0), excluded.expires_ms, expires_ms),
    activated_ms = max(coalesce(activated_ms, excluded.activated_ms), coalesce(excluded.activated_ms, activated_ms)),
    refusals = refusals + excluded.refusals,
    refusal = iif(excluded.refused_ms >= coalesce(refused_ms, 0), excluded.refusal, refusal),
    refused_ms = max(coalesce(refused_ms, excluded.refused_ms), coalesce(excluded.refused_ms, refused_ms)),
    predecessor = iif({_NEWER.format(new="excluded", old="activity")}, excluded.predecessor, predecessor)
"""

ADD_ACTIVITY: Final = f"""
INSERT INTO activity (id, {", ".join(_ACTIVITY)}, predecessor)
SELECT f.id, {", ".join(f"s.{name}" for name in _ACTIVITY)}, coalesce(s.predecessor, zeroblob({_ROOM}))
FROM temp.found f CROSS JOIN temp.stage s ON s.rowid = f.row
WHERE true ORDER BY f.rowid
{_MERGE_ACTIVITY}
"""

# The ids of renewals in columns, in their order, which is that of the outer side of a LEFT JOIN; 0 for clients that are
# new or say something new. In JSON, since SQLite has no other way to return many numbers at the price of one row.
# Values: times as an array, CMIDs, the SKU, what they said.
FIND_RENEWED: Final = """
SELECT json_group_array(iif(c.said = substr(?4, 8 * r.rowid - 7, 8) AND c.first_seen_ms <= r.value, c.id, 0))
FROM carray(?1) r LEFT JOIN clients c ON c.cmid = substr(?2, 16 * r.rowid - 15, 16)
    AND c.product = (SELECT product FROM products WHERE sku = ?3)
"""
# Values: `kms_fast._core.Grants`, packed ones as an array, the time since, the validity in ms, predecessors or null.
ADD_GRANTS: Final = f"""
INSERT INTO activity (id, {", ".join(_ACTIVITY)}, predecessor)
SELECT value >> 32, 1 + (value >> 26 & 0x3f), ?2 + (value & 0x3ffffff), ?2 + (value & 0x3ffffff) + ?3, 0, NULL, NULL,
    iif(?4 IS NULL, zeroblob({_ROOM}), substr(?4, 32 * rowid - 31, 32))
FROM carray(?1) WHERE true
{_MERGE_ACTIVITY}
"""

# Known clients are changed before new ones are added, which need no comparison, and both before their activity is.
MERGE: Final = (
    FIND_CLIENTS,
    CHANGE_CLIENTS,
    NUMBER_NEW_CLIENTS,
    ADD_CLIENTS,
    COUNT_NEW_CLIENTS,
    ADD_ACTIVITY,
    "DELETE FROM temp.found",
    "DELETE FROM temp.stage",
)

ADD_TOTAL: Final = """
INSERT INTO totals (host_id, sku, result, state, requests) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (host_id, sku, result, state) DO UPDATE SET requests = requests + excluded.requests
"""
TOTALS: Final = "SELECT sku, result, state, requests FROM totals WHERE host_id = ? ORDER BY sku, result, state"

SET_WATERMARK: Final = """
INSERT INTO watermarks (host_id, segment, offset, number, header_hash, time_ms) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (host_id, segment) DO UPDATE SET
    offset = excluded.offset, number = excluded.number, header_hash = excluded.header_hash, time_ms = excluded.time_ms
"""
WATERMARKS: Final = """
SELECT segment, offset, number, header_hash, time_ms FROM watermarks WHERE host_id = ? ORDER BY segment
"""

HOSTS: Final = "SELECT host_id FROM totals UNION SELECT host_id FROM watermarks ORDER BY host_id"

KEEP_SUMMARY: Final = """
INSERT INTO summary (only, content) VALUES (1, ?) ON CONFLICT (only) DO UPDATE SET content = excluded.content
"""
COUNT_EXPIRY: Final = """
SELECT count(*) FILTER (WHERE expires_ms <= ?), count(*) FILTER (WHERE expires_ms <= ?),
    count(*) FILTER (WHERE expires_ms <= ?), count(*) FILTER (WHERE expires_ms <= ?) FROM activity
"""
