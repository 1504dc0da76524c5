"""Letting a host's time go back, after its clock was ahead: a segment whose first block says so (docs/ledger.md)."""

from pathlib import Path

from kms_fast.host.ledger import find_newest_time, open_ledger, storage_errors
from kms_fast.host.segment import NO_BATCH, UNKNOWN, Head


def reset_clock(folder: Path, *, host_id: bytes, certificates: bytes, now_ms: int) -> int:
    """Let the ledger in this folder go on from ``now_ms``; by how much time went back (ms), 0 when it need not.

    The first batch that is signed afterwards covers that with its signature, as all that its segment continues. Raises
    `LedgerError`; `KmsFastError` (HOST_RUNNING, STORAGE_FAILED).
    """
    if not folder.exists():
        return 0
    with storage_errors(folder):
        newest_ms = find_newest_time(folder)
    if newest_ms is None or newest_ms <= now_ms:
        return 0
    reset = Head(UNKNOWN, NO_BATCH, now_ms, reset=True)
    open_ledger(folder, host_id=host_id, certificates=certificates, added=[reset]).close()
    return newest_ms - now_ms
