"""What hosts and the web pages need of a store, as contracts; the stores themselves are modules of this package."""

from collections.abc import Sequence
from typing import Protocol

CountRow = tuple[bytes, int]
"""A machine that counts: CMID (16 bytes) and when it was last seen (ms since 1970)."""


class Counts(Protocol):
    """The machines that count towards each family's threshold, durable and shared by all workers.

    At most ``cap`` rows a family and none older than ``retention_ms``. Calls may overlap; none blocks the event loop.
    They raise `KmsFastError` (STORAGE_FAILED or STORE_UNAVAILABLE) when nothing was stored.
    """

    async def load(self, family: int, now_ms: int, *, cap: int, retention_ms: int) -> list[CountRow]:
        """The machines that count now, oldest first."""

    async def record(
        self, family: int, cmids: Sequence[bytes], now_ms: int, *, cap: int, retention_ms: int
    ) -> list[CountRow]:
        """Store that these machines asked, in one durable transaction; the machines that counted before it, oldest
        first.
        """

    async def flush(
        self, family: int, rows: Sequence[CountRow], now_ms: int, *, cap: int, retention_ms: int
    ) -> list[CountRow]:
        """Store the newest machines of a family that is at its cap; the machines that count now, oldest first."""

    async def close(self) -> None:
        """Release the store."""
