"""A load as a value: what each process is told to do, and what it tells back. Both travel as one line of JSON."""

from dataclasses import dataclass, field, replace

from kms_fast._core import LatencyHistogram
from kms_fast.model.catalog import Sku
from kms_fast.model.keys import KeyKind, derive_sku_keys, parse_key
from kms_fast.model.names import format_address
from kms_fast.model.publisher_file import PublisherFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """What a client of one SKU knows: its keys and what answers are checked against."""

    sku_id: bytes
    request_key: bytes = field(repr=False)
    answer_secret: bytes = field(repr=False)
    publisher_id: bytes
    roots: tuple[bytes, ...]
    family: int
    generation: int
    revoked: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """One load, or one process's share of it.

    ``address``: literal IP address. ``clients``: first machine and the one after the last. Either ``seconds`` or
    ``activations`` is set. ``rate``: starts a second in open loop, 0 for closed loop. ``per_connection``: 0 keeps
    connections open.
    ``machine_seed``: 32 bytes that all machines are derived from. ``record``: file that lines are appended to.
    ``cpu``: the core to run on. ``linger_s``: how long connections stay open after the last answer. ``product`` None:
    what answers is no host, only the RPC layer is looked at.
    """

    address: str
    port: int
    product: Product | None
    connections: int = 256
    per_connection: int = 0
    clients: tuple[int, int] = (0, 100_000)
    machine_seed: bytes
    seconds: float = 0.0
    activations: int = 0
    rate: float = 0.0
    verify_percent: float = 100.0
    answer_limit_s: float = 10.0
    record: str | None = None
    cpu: int | None = None
    linger_s: float = 0.0

    @property
    def host(self) -> str:
        """Address and port as users write them."""
        return format_address(self.address, self.port)

    def split(self, processes: int) -> list["LoadPlan"]:
        """The shares of this many processes; connections, machines, activations and rate are divided among them."""
        return [
            replace(
                self,
                connections=_share(self.connections, processes, i),
                clients=(
                    self.clients[0] + _before(self.clients[1] - self.clients[0], processes, i),
                    self.clients[0] + _before(self.clients[1] - self.clients[0], processes, i + 1),
                ),
                activations=_share(self.activations, processes, i),
                rate=self.rate / processes,
            )
            for i in range(processes)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadResult:
    """What a process, or all of them together, saw so far; of one load phase.

    ``batches``: number of batches seen, by the tree sizes in their headers. ``latencies``: buckets (ns, count).
    ``errors``: kind to (count, first example). ``refusals``: result code to count. ``failure``: kind and text of what
    ended the load before it had an answer. ``cpu_s``: user and system time of the load's own processes.
    """

    requests: int = 0
    activations: int = 0
    verified: int = 0
    refused: int = 0
    failed: int = 0
    connections: int = 0
    batches: float = 0.0
    batch_max: int = 0
    start_ns: int = 0
    end_ns: int = 0
    cpu_s: float = 0.0
    latencies: tuple[tuple[int, int], ...] = ()
    latency_max_ns: int = 0
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)
    refusals: dict[int, int] = field(default_factory=dict)
    failure: tuple[str, str] | None = None
    finished: bool = False

    @property
    def seconds(self) -> float:
        """From the first start to the last answer."""
        return max(0, self.end_ns - self.start_ns) / 1e9

    def histogram(self) -> LatencyHistogram:
        """The latencies, to ask for percentiles."""
        histogram = LatencyHistogram()
        histogram.merge(self.latencies, self.latency_max_ns)
        return histogram


def merge_results(results: list[LoadResult]) -> LoadResult:
    """What several processes saw of one load, as one result."""
    errors: dict[str, tuple[int, str]] = {}
    refusals: dict[int, int] = {}
    histogram = LatencyHistogram()
    for result in results:
        histogram.merge(result.latencies, result.latency_max_ns)
        for kind, (count, example) in result.errors.items():
            before, first = errors.get(kind, (0, example))
            errors[kind] = (before + count, first)
        for code, count in result.refusals.items():
            refusals[code] = refusals.get(code, 0) + count
    started = [result.start_ns for result in results if result.start_ns]
    return LoadResult(
        requests=sum(result.requests for result in results),
        activations=sum(result.activations for result in results),
        verified=sum(result.verified for result in results),
        refused=sum(result.refused for result in results),
        failed=sum(result.failed for result in results),
        connections=sum(result.connections for result in results),
        batches=sum(result.batches for result in results),
        batch_max=max(result.batch_max for result in results),
        start_ns=min(started, default=0),
        end_ns=max(result.end_ns for result in results),
        cpu_s=sum(result.cpu_s for result in results),
        latencies=tuple(histogram.counts()),
        latency_max_ns=histogram.max_ns,
        errors=errors,
        refusals=refusals,
        failure=next((result.failure for result in results if result.failure), None),
        finished=all(result.finished for result in results),
    )


def find_product(publisher: PublisherFile, key: str) -> Product:
    """What a client with this setup key knows.

    Raises `KeyInvalid` for a key that is mistyped, of another kind or publisher, `ConfigurationError` for an unknown
    product.
    """
    setup_key = parse_key(key, expect=KeyKind.CLIENT_SETUP, publisher_id=publisher.publisher_id)
    sku: Sku = publisher.sku(setup_key.reference)
    request_key, answer_secret = derive_sku_keys(setup_key.secret, publisher.publisher_id, sku.id.bytes)
    return Product(
        sku_id=sku.id.bytes,
        request_key=request_key,
        answer_secret=answer_secret,
        publisher_id=publisher.publisher_id,
        roots=publisher.roots,
        family=sku.family,
        generation=sku.generation,
        revoked=publisher.revoked,
    )


def _before(total: int, shares: int, share: int) -> int:
    return total * share // shares


def _share(total: int, shares: int, share: int) -> int:
    return _before(total, shares, share + 1) - _before(total, shares, share)
