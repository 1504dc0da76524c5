"""Statements of the PostgreSQL inventory: what `kms_fast.store.postgres_inventory` runs."""

from typing import Final

# The columns of `kms_fast.store.Client`, in its order.
CLIENTS: Final = """
SELECT cmid, sku, first_seen_ms, last_seen_ms, activations, activated_ms, expires_ms, refusals, refused_ms, refusal,
    state, name, address, hardware, hardware_changes, predecessor, previous_cmid, virtual, library_version
FROM kms_fast.inventory
"""
# As in the index, where only ASCII letters are folded.
NAME: Final = 'lower(name COLLATE "C")'

# What `kms_fast.store.ChangeRow` holds, in its order, but ``said``; columns of the table of clients.
CHANGE: Final = (
    "cmid", "sku", "first_seen_ms", "activations", "activated_ms", "expires_ms", "refusals", "refused_ms", "refusal",
    "state", "name", "address", "first_hardware", "hardware", "hardware_changes", "predecessor", "previous_cmid",
    "virtual", "library_version",
)  # fmt: skip

STAGE_TABLE: Final = """
CREATE TEMPORARY TABLE IF NOT EXISTS kms_fast_stage (LIKE kms_fast.clients) ON COMMIT DELETE ROWS
"""

_NEWER: Final = "greatest(excluded.activated_ms, excluded.refused_ms) >= greatest(known.activated_ms, known.refused_ms)"
# What the newest request said.
_SAID: Final = (
    "state", "name", "address", "hardware", "predecessor", "previous_cmid", "virtual", "library_version",
)  # fmt: skip
_COLUMNS: Final = ", ".join(CHANGE)

MERGE_CLIENTS: Final = f"""
INSERT INTO kms_fast.clients AS known ({_COLUMNS})
SELECT {_COLUMNS} FROM pg_temp.kms_fast_stage ORDER BY cmid, sku
ON CONFLICT (cmid, sku) DO UPDATE SET
    first_hardware = CASE WHEN excluded.first_seen_ms < known.first_seen_ms THEN excluded.first_hardware
        ELSE known.first_hardware END,
    first_seen_ms = least(known.first_seen_ms, excluded.first_seen_ms),
    activations = known.activations + excluded.activations,
    expires_ms = CASE WHEN excluded.activated_ms >= coalesce(known.activated_ms, 0) THEN excluded.expires_ms
        ELSE known.expires_ms END,
    activated_ms = greatest(known.activated_ms, excluded.activated_ms),
    refusals = known.refusals + excluded.refusals,
    refusal = CASE WHEN excluded.refused_ms >= coalesce(known.refused_ms, 0) THEN excluded.refusal
        ELSE known.refusal END,
    refused_ms = greatest(known.refused_ms, excluded.refused_ms),
    hardware_changes = known.hardware_changes + excluded.hardware_changes
        + (known.hardware <> excluded.first_hardware)::int,
    {", ".join(f"{name} = CASE WHEN {_NEWER} THEN excluded.{name} ELSE known.{name} END" for name in _SAID)}
"""

ADD_TOTAL: Final = """
INSERT INTO kms_fast.totals AS known (host_id, sku, result, state, requests) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (host_id, sku, result, state) DO UPDATE SET requests = known.requests + excluded.requests
"""
TOTALS: Final = """
SELECT sku, result, state, requests FROM kms_fast.totals WHERE host_id = $1 ORDER BY sku, result, state
"""

SET_WATERMARK: Final = """
INSERT INTO kms_fast.watermarks (host_id, segment, "offset", number, header_hash, time_ms)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (host_id, segment) DO UPDATE SET "offset" = excluded."offset",
    number = excluded.number, header_hash = excluded.header_hash, time_ms = excluded.time_ms
"""
WATERMARKS: Final = """
SELECT segment, "offset", number, header_hash, time_ms FROM kms_fast.watermarks WHERE host_id = $1 ORDER BY segment
"""

HOSTS: Final = "SELECT host_id FROM kms_fast.totals UNION SELECT host_id FROM kms_fast.watermarks ORDER BY host_id"

FORGET: Final = """
UPDATE kms_fast.clients SET name = NULL, address = NULL WHERE cmid = $1 RETURNING 1
"""

KEEP_SUMMARY: Final = """
INSERT INTO kms_fast.summary (only_row, content) VALUES (true, $1)
ON CONFLICT (only_row) DO UPDATE SET content = excluded.content
"""
# One pass for all: a row for each SKU, one for each state, and one for the whole.
COUNT_CLIENTS: Final = """
SELECT sku, state, count(*) AS clients, count(*) FILTER (WHERE hardware_changes > 0) AS cloned,
    ARRAY[count(*) FILTER (WHERE expires_ms <= $1), count(*) FILTER (WHERE expires_ms <= $2),
        count(*) FILTER (WHERE expires_ms <= $3), count(*) FILTER (WHERE expires_ms <= $4)] AS ended
FROM kms_fast.clients GROUP BY GROUPING SETS ((sku), (state), ())
"""
