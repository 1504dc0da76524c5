"""What hosts and the web pages need of a store, as contracts; the stores themselves are modules of this package.

`Counts` decides whether a host grants. `Inventory` tells an administrator which machines there are; the recorder fills
it from the ledger, some seconds behind.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

CountRow = tuple[bytes, int]
"""A machine that counts: CMID (16 bytes) and when it was last seen (ms since 1970)."""

ChangeRow = tuple[
    bytes,  # cmid, 16 bytes
    bytes,  # sku, 16 bytes
    int,  # first_seen_ms
    int,  # activations
    int | None,  # activated_ms: of the newest grant
    int | None,  # expires_ms: what the newest grant gave
    int,  # refusals
    int | None,  # refused_ms: of the newest refusal
    int | None,  # refusal: its result
    int,  # state
    str | None,  # name
    bytes | None,  # address: 4 or 16 bytes
    bytes,  # first_hardware: of the oldest request, 16 bytes
    bytes,  # hardware: of the newest, 16 bytes
    int,  # hardware_changes: from one of these requests to the next
    bytes | None,  # predecessor, 32 bytes
    bytes | None,  # previous_cmid, 16 bytes
    int,  # virtual
    int,  # library_version
    bytes | None,  # said: 8 bytes of a hash of all it said; None when that is not known, or its hardware changed
]
"""What the requests of one machine for one SKU add to the inventory. Fields that `Client` has too mean the same there;
those without a time of their own are the newest request's.
"""


@runtime_checkable
class RowsInColumns(Protocol):
    """Rows, as of a `kms_fast._core.Fold`; those of machines that were only granted can be had in columns."""

    def __iter__(self) -> Iterator[ChangeRow]:
        """All rows."""

    def renewals(self) -> Sequence[Any]:
        """Sets of columns: `kms_fast._core.Renewals`. Of each the grants must be taken, with id 0 for machines that are
        to be rows.
        """

    def others(self) -> Iterator[ChangeRow]:
        """The rows of which no grants were given, once the grants of all sets are taken."""


class Counts(Protocol):
    """The machines that count towards each family's threshold, durable and shared by all workers.

    At most ``cap`` rows a family and none older than ``retention_ms``. Calls may overlap; none blocks the event loop.
    They raise `KmsFastError` when nothing was stored: STORAGE_FAILED, STORE_IN_USE or STORE_UNAVAILABLE; NOT_ALLOWED,
    STORE_REFUSED or STORE_DAMAGED when trying again cannot help.
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

    async def cut_times(self, now_ms: int) -> None:
        """Let no machine have been seen later than this, after a clock that was ahead."""

    async def read_all(self) -> dict[int, list[CountRow]]:
        """The machines of every family as of one moment, oldest first, for a backup."""

    async def close(self) -> None:
        """Release the store."""


def group_by_family(rows: Iterable[Any]) -> dict[int, list[CountRow]]:
    """Rows of family, CMID and last seen as what `Counts.read_all` gives; the order within a family stays."""
    families: dict[int, list[CountRow]] = {}
    for family, cmid, seen_ms in rows:
        families.setdefault(family, []).append((cmid, seen_ms))
    return families


@dataclass(frozen=True, slots=True)
class Client:
    """One machine and one SKU it asked for (docs/inventory.md). Times are ms since 1970 by the hosts' clocks.

    ``state`` is the licence state after its newest request. ``hardware_changes``: how often its hardware digest was
    another than the time before; machines that share a CMID show there. ``address``: 4 or 16 bytes. None: never
    happened, or not known.
    """

    cmid: bytes
    sku: bytes
    first_seen_ms: int
    last_seen_ms: int
    activations: int
    activated_ms: int | None
    expires_ms: int | None
    refusals: int
    refused_ms: int | None
    refusal: int | None
    state: int
    name: str | None
    address: bytes | None
    hardware: bytes
    hardware_changes: int
    predecessor: bytes | None
    previous_cmid: bytes | None
    virtual: int
    library_version: int

    @property
    def position(self) -> "Position":
        """Where a page that ends with this client goes on."""
        return Position(self.cmid, self.sku, self.name)

    def to_change(self) -> ChangeRow:
        """The row that makes this client in a store that does not know it, as a restored backup does."""
        return (
            self.cmid, self.sku, self.first_seen_ms, self.activations, self.activated_ms, self.expires_ms,
            self.refusals, self.refused_ms, self.refusal, self.state, self.name, self.address, self.hardware,
            self.hardware, self.hardware_changes, self.predecessor, self.previous_cmid, self.virtual,
            self.library_version, None,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list of clients: behind the client with this key, and this name where names give the order."""

    cmid: bytes
    sku: bytes
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Total:
    """How many requests for a SKU from machines in licence state ``state`` a host answered with ``result``."""

    sku: bytes
    result: int
    state: int
    requests: int


@dataclass(frozen=True, slots=True)
class Watermark:
    """The last recorded batch of a segment: where its record begins in the file, its number, the SHA-256 of its header
    and the header's time. Everything up to its end is in the inventory, nothing behind it is.
    """

    segment: int
    offset: int
    number: int
    header_hash: bytes
    time_ms: int


@dataclass(frozen=True, slots=True)
class HostPart:
    """What an inventory keeps for each host beside its clients."""

    host_id: bytes
    totals: Sequence[Total]
    watermarks: Sequence[Watermark]


@dataclass(frozen=True, slots=True)
class Summary:
    """The inventory in numbers, as it was at ``as_of_ms``.

    ``products``: clients of each SKU. ``states``: clients by licence state. ``expired``: those whose newest lease has
    ended, ``expiring``: those whose lease ends within so many days. ``cloned``: those whose hardware changed.
    ``results``: requests by result, from all hosts.
    """

    as_of_ms: int
    products: Sequence[tuple[bytes, int]]
    states: Mapping[int, int]
    expired: int
    expiring: Mapping[int, int]
    cloned: int
    results: Mapping[int, int]


class Inventory(Protocol):
    """All machines that ever asked, with what they told and were told. None of the calls blocks the event loop.

    They raise `KmsFastError`: STORAGE_FAILED, STORE_IN_USE or STORE_UNAVAILABLE; NOT_ALLOWED, STORE_REFUSED or
    STORE_DAMAGED when trying again cannot help; opening one raises STORE_VERSION for other tables.
    """

    async def elect(self, host_id: bytes) -> bool:
        """Become the only recorder of this host, until `close` or the loss of the store; False while another is."""

    async def watermarks(self, host_id: bytes) -> list[Watermark]:
        """How far each segment of this host is recorded, in ascending segment."""

    async def totals(self, host_id: bytes) -> list[Total]:
        """How many requests this host has answered, by SKU, result and licence state of who asked, in that order."""

    async def record(
        self, host_id: bytes, rows: Iterable[ChangeRow], totals: Sequence[Total], watermarks: Sequence[Watermark]
    ) -> None:
        """Add the changes of some batches and set the watermarks to the last of them, in one durable transaction.

        ``rows``: one for each CMID and SKU, in ascending order of both, iterated as often as needed. Of `RowsInColumns`
        a store may take the columns and the other rows instead. They add up to the same whatever order batches arrive
        in, except ``hardware_changes``, which counts in the order of recording.
        Only whoever was elected may record. When this raises, the transaction may have happened all the same: whoever
        goes on asks for the watermarks first.
        """

    async def find(
        self,
        *,
        name: str | None = None,
        state: int | None = None,
        cloned: bool = False,
        after: Position | None = None,
        limit: int = 100,
    ) -> list[Client]:
        """A page of clients behind ``after``: by CMID and SKU; with ``name``, those whose name begins so (upper and
        lower case of ASCII letters alike), by name. ``state`` leaves only those in this licence state, ``cloned`` only
        those whose hardware changed.
        """

    async def get(self, cmid: bytes) -> list[Client]:
        """The clients with this CMID, one for each SKU."""

    async def summarize(self, now_ms: int) -> Summary:
        """Count everything, which takes seconds with millions of clients; changes nothing."""

    async def keep_summary(self, summary: Summary) -> None:
        """Keep what `summarize` gave, for `summary`."""

    async def summary(self) -> Summary | None:
        """What `keep_summary` kept last; None before the first time."""

    async def forget(self, cmid: bytes) -> int:
        """Blank name and address of the clients with this CMID, until it asks again; how many there are."""

    def read_all(self) -> AsyncIterator[Sequence[Client] | HostPart]:
        """Everything as of one moment, for a backup: portions of clients in order, then each host's part."""

    async def close(self) -> None:
        """Release the store, and the election."""
