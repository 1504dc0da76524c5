"""Types of the compiled core, in the order of its parts. What each function does is told by its docstring in _core/."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from io import FileIO
from typing import Any, NamedTuple, Self, final

from typing_extensions import disjoint_base

# kms_fast.store.ChangeRow, which the core may not import.
_ChangeRow = tuple[
    bytes, bytes, int, int, int | None, int | None, int, int | None, int | None, int, str | None, bytes | None, bytes,
    bytes, int, bytes | None, bytes | None, int, int, bytes | None,
]  # fmt: skip

# aes.pxi
def backend() -> dict[str, str]: ...
def _use_backend(*, aes: str | None = None, sha256: str | None = None) -> None: ...
def equal(a: bytes, b: bytes) -> bool: ...
def cmac(key: bytes, data: bytes) -> bytes: ...

# sha256.pxi, hmac.pxi
def sha256(data: bytes) -> bytes: ...
def hmac_sha256(key: bytes, data: bytes) -> bytes: ...

# siv.pxi
@final
class SivKey:
    def __new__(cls, key: bytes, *leading: bytes) -> Self: ...
    def encrypt(self, plaintext: bytes, last: bytes | None = None, /) -> bytes: ...
    def decrypt(self, data: bytes, last: bytes | None = None, /) -> bytes | None: ...

def siv_seal(key: bytes, plaintext: bytes, *ad: bytes) -> bytes: ...
def siv_open(key: bytes, data: bytes, *ad: bytes) -> bytes | None: ...

# merkle.pxi
def merkle_root(leaves: list[bytes]) -> bytes: ...
def merkle_path(leaves: list[bytes], index: int) -> list[bytes]: ...
def merkle_verify(leaf_hash: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool: ...

# message.pxi
@final
class SkuKeys:
    sku_id: bytes
    def __new__(cls, sku_id: bytes, request_key: bytes, answer_secret: bytes) -> Self: ...
    def seal_request(self, fields: bytes, nonce: bytes) -> bytes: ...
    def open_request(self, request: bytes) -> bytes | None: ...

# verify.pxi
CHECK_NAMES: tuple[str, ...]

@final
class Checked:
    leaf: bytes
    leaf_hash: bytes
    header: bytes
    result: int

@final
class Verifier:
    def __new__(
        cls,
        *,
        publisher_id: bytes,
        roots: Sequence[bytes],
        sku: SkuKeys,
        family: int,
        generation: int,
        customer_id: int = 0,
        revoked: Collection[int] = (),
        verify_signature: Callable[[bytes, bytes, bytes], bool],
    ) -> Self: ...
    def check(
        self,
        request: bytes,
        cmid: bytes,
        hardware_digest: bytes,
        answer: bytes,
        *,
        now_ms: int,
        mark_ms: int = 0,
        accept: bool = True,
    ) -> Checked: ...

# pdu.pxi
class ProtocolError(ValueError): ...

def build_bind(call_id: int = 1) -> bytes: ...
def build_request(call_id: int, context_id: int, opnum: int, argument: bytes, max_fragment: int = 5840) -> bytes: ...

# session.pxi
@final
class RpcCounters:
    pdus: int
    binds: int
    requests: int
    naks: int
    foreign_binds: int
    faults_unknown_interface: int
    faults_op_range: int
    faults_bad_stub: int
    @property
    def refusals(self) -> dict[str, int]: ...

@disjoint_base
class Session:
    counters: RpcCounters
    requests: list[tuple[int, int, int, bytes]] | None
    foreign_interface: bytes | None
    max_xmit_frag: int
    def __init__(self, counters: RpcCounters, secondary_address: str = "1688", assoc_group_id: int = 1) -> None: ...
    @property
    def closing(self) -> str | None: ...
    def receive(self, data: bytes) -> int: ...
    def take_output(self) -> bytes: ...
    def respond(self, call_id: int, context_id: int, answer: bytes | None, result: int) -> None: ...

# client_session.pxi
class Accepted(NamedTuple):
    call_id: int
    max_fragment: int

class Rejected(NamedTuple):
    call_id: int
    result: int
    reason: int

class BindNak(NamedTuple):
    call_id: int
    reason: int

class Fault(NamedTuple):
    call_id: int
    status: int

class Response(NamedTuple):
    call_id: int
    answer: bytes | None
    result: int

@disjoint_base
class ClientSession:
    def receive(self, data: bytes) -> int: ...
    def take_outcomes(self) -> list[Accepted | Rejected | BindNak | Fault | Response]: ...

# counts.pxi
@final
class FamilyCount:
    threshold: int
    cap: int
    retention_ms: int
    def __new__(cls, threshold: int, cap: int, retention_ms: int) -> Self: ...
    def load(self, rows: list[tuple[bytes, int]]) -> None: ...
    def rows_since(self, since_ms: int) -> list[tuple[bytes, int]]: ...
    def see(self, cmid: bytes, now_ms: int) -> bool: ...
    def current(self, now_ms: int) -> int: ...

# admission.pxi
@final
class AdmissionTable:
    families: list[FamilyCount]
    certificates: bytes
    host_id: bytes
    revocations: bytes
    serial: int
    not_before_ms: int
    not_after_ms: int
    def __new__(
        cls,
        products: list[tuple[SkuKeys, int, int, int, bool, int, int, int]],
        families: list[FamilyCount],
        certificates: bytes,
        host_id: bytes,
        serial: int,
        not_before_ms: int,
        not_after_ms: int,
        revocations: bytes,
    ) -> Self: ...

# batch.pxi
@final
class Batch:
    table: AdmissionTable
    size: int
    def __new__(cls, table: AdmissionTable) -> Self: ...
    def decide_product_and_clock(self, now_ms: int) -> list[int]: ...
    def cmids_of(self, family: int) -> list[bytes]: ...
    def decide_counts(self, now_ms: int) -> None: ...
    def seal(
        self, segment: int, number: int, now_ms: int, previous: bytes, sign: Callable[[bytes], bytes]
    ) -> bytes: ...
    def record_size(self) -> int: ...
    def record_bytes(self) -> bytes: ...
    def answer(self) -> None: ...
    def refuse(self, result: int) -> None: ...
    def refuse_families(self, families: list[int], result: int) -> None: ...

def entries_root(entries: bytes) -> bytes: ...

# commit.pxi
@final
class Committer:
    def __new__(cls, wake_fd: int) -> Self: ...
    def run(self) -> None: ...
    def submit(self, batch: Batch, fd: int, offset: int, zeros_to: int = 0) -> int: ...
    def finish(self) -> Batch: ...
    def stop(self) -> None: ...

# segment.pxi
@final
class RecordReader:
    offset: int
    number: int
    def __new__(cls, fd: int, offset: int, pruned: bool = False) -> Self: ...
    def read(self, limit: int) -> list[bytes]: ...
    def read_headers(self, limit: int, end: int) -> list[bytes]: ...
    def find_entries(self, cmid: bytes) -> list[tuple[int, int]]: ...

def walk_frames(fd: int, offset: int, pruned: bool, every: int) -> list[int]: ...

# audit.pxi
@final
class ChainCheck:
    number: int
    time_ms: int
    batches: int
    records: int
    granted: int
    first_ms: int
    last_ms: int
    @property
    def previous(self) -> bytes: ...
    def __new__(
        cls,
        segment: int,
        host_id: bytes,
        serial: int,
        not_before_ms: int,
        not_after_ms: int,
        number: int,
        previous: bytes,
        time_ms: int,
    ) -> Self: ...
    def check(self, reader: RecordReader, end: int, limit: int) -> list[tuple[int, bytes, bytes, bytes, int]]: ...

# export.pxi
EXPORT_FIELDS: tuple[str, ...]

@final
class EntryFormatter:
    def __new__(cls, csv: bool) -> Self: ...
    def format(self, reader: RecordReader, since_ms: int, until_ms: int) -> bytes: ...

# fold.pxi
class FoldedBatch(NamedTuple):
    offset: int
    number: int
    header_hash: bytes
    time_ms: int

@final
class Fold:
    def __new__(cls, room: int) -> Self: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[_ChangeRow]: ...
    @property
    def is_full(self) -> bool: ...
    def clear(self) -> None: ...
    def add_batches(
        self, reader: RecordReader, segment: int, number: int, header_hash: bytes
    ) -> FoldedBatch | None: ...
    def totals(self) -> list[tuple[bytes, int, int, int]]: ...
    def renewals(self) -> list[Renewals]: ...
    def others(self) -> Iterator[_ChangeRow]: ...
    def sort(self) -> None: ...

# columns.pxi
class Grants(NamedTuple):
    validity_ms: int
    since_ms: int
    packed: bytes
    predecessors: bytes | None

@final
class Renewals:
    def __new__(cls, fold: Fold, number: int) -> Self: ...
    @property
    def sku(self) -> bytes: ...
    @property
    def first_ms(self) -> bytes: ...
    @property
    def cmids(self) -> bytes: ...
    @property
    def said(self) -> bytes: ...
    def grants(self, ids: list[int]) -> Grants: ...

# host.pxi
@final
class Host:
    table: AdmissionTable
    waiting: int
    connections: set[Connection]
    rpc: RpcCounters
    refusal: int
    def __new__(cls, on_waiting: Callable[[], None], on_foreign: Callable[[bytes, bytes], None]) -> Self: ...
    def use_limits(self, max_waiting: int, max_connections: int, record_names: bool) -> None: ...
    def use_table(self, table: AdmissionTable) -> None: ...
    def take_batch(self) -> Batch | None: ...
    def sweep(self) -> None: ...
    def close_connections(self) -> None: ...
    def counters(self) -> dict[str, int]: ...

# sockets.pxi
@final
class Address:
    def __new__(cls, address: str, port: int) -> Self: ...

class SocketSet:
    def fileno(self) -> int: ...

# poller.pxi
@final
class Listener:
    def __new__(cls, fd: int, port: str) -> Self: ...

@final
class Poller(SocketSet):
    def __new__(cls, host: Host, on_error: Callable[[BaseException], None]) -> Self: ...
    def listen(self, fd: int, port: str) -> None: ...
    def stop_listening(self) -> None: ...
    def work(self) -> None: ...
    def adopt(self, fd: int, port: str, peer: bytes | None = None) -> Connection: ...

# connection.pxi
@final
class Connection(Session):
    def __init__(self, *args: object, **kwargs: object) -> None: ...
    fd: int
    is_read: bool
    def receive_from_peer(self, data: bytes) -> None: ...

def unpack_peer(peer: bytes) -> str: ...

# latency.pxi
@final
class LatencyHistogram:
    count: int
    max_ns: int
    def record(self, ns: int) -> None: ...
    def percentile_ns(self, percent: float) -> int: ...
    def counts(self) -> list[tuple[int, int]]: ...
    def merge(self, counts: Iterable[tuple[int, int]], max_ns: int) -> None: ...

# load.pxi
@final
class LoadRun(SocketSet):
    failure: OSError | None
    errors: dict[str, list[Any]]
    refusals: dict[int, int]
    latency: LatencyHistogram
    per_connection: int
    running: bool
    answered: bool
    def __init__(
        self,
        keys: SkuKeys,
        verifier: Verifier | None,
        *,
        address: Address,
        sources: Iterable[Address | None] = (None,),
        machine_seed: bytes,
        clients: range,
        verify_percent: float,
        slots: int,
        per_connection: int,
        library_version: int,
        answer_limit_s: float,
        call_later: Callable[[float, Callable[[], None]], object],
        on_ready: Callable[[], None],
        on_done: Callable[[], None],
        record: FileIO | None = None,
        raw: bool = False,
    ) -> None: ...
    def connect(self) -> None: ...
    def start_phase(self, *, seconds: float = 0.0, activations: int = 0, rate: float = 0.0) -> None: ...
    def stop(self) -> None: ...
    def expire(self) -> None: ...
    def pump(self) -> None: ...
    def release_slot(self) -> None: ...
    def close(self) -> None: ...
    def work(self) -> None: ...
    def figures(self) -> dict[str, Any]: ...

def find_stride(count: int) -> int: ...

# load_connection.pxi
@final
class LoadConnection(ClientSession):
    def __init__(self, *args: object, **kwargs: object) -> None: ...
