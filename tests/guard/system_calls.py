"""System calls of a worker per activation, by strace: the real host with its sockets and ledger under `kms-fast load`.

`strace -c` tells neither sockets from pipes nor one thread's sum from another's, so the calls are traced with what
they work on and counted here. Two loads follow each other, the second of twice as many activations: what is per
activation is the difference, so that whatever happens once per load or connection kept open cancels out. How many
batches there are depends on the machine and what else it does; what is per batch is divided by them.
"""

import re
import time
from collections import Counter
from pathlib import Path
from typing import Final

from kms_fast.load.plan import LoadPlan, LoadResult, Product
from kms_fast.load.processes import run_load
from tests.guard.bounds import Cost, Costs, Figure
from tests.hosts import PUBLISHER_ID, SKUS, Realm, RunningHost, make_realm, serve
from tests.tracing import traced

CONNECTIONS: Final = 64
# Activations on each connection, 0 for no limit, and those of the shorter load.
LOADS: Final = {"worker, kept open": (0, 2000), "worker, a connection each": (1, 800)}
END_LIMIT_S: Final = 60

# What a call does, by its name and what it works on; the first that fits. The rest is "other".
KINDS: Final = {
    "receives": r"(read|readv|recv|recvfrom|recvmsg|recvmmsg) socket",
    "sends": r"(write|writev|send|sendto|sendmsg|sendmmsg) socket",
    "accepts": r"accept4? socket",
    "closes": r"(close|shutdown) socket",
    "socket_options": r"(setsockopt|getsockopt|getsockname|getpeername|ioctl|fcntl) socket",
    "epoll_changes": r"(epoll_ctl|io_uring_enter)$",
    "epoll_waits": r"(epoll_wait|epoll_pwait|epoll_pwait2)$",
    "ledger_writes": r"(pwrite64|write|pwritev|pwritev2) ledger",
    "ledger_syncs": r"(fdatasync|fsync) ledger",
    "wake_ups": r"(read|write) (pipe|eventfd)",
    "futexes": r"futex$",
}
OTHER: Final = "other_calls"

# How much more than was measured is allowed. Connections are accepted until none waits, so the last accept of each time
# gets none, and how many wait depends on the machine. Other calls are those of the jobs of every ten seconds. One batch
# in some dozens has a second write, the zeros ahead of the records; how many dozens, the size of batches tells.
PER_ACTIVATION: Final = {
    "receives": 0.01, "sends": 0.01, "accepts": 1.0, "closes": 0.05, "socket_options": 0.05, "epoll_changes": 0.05,
    OTHER: 0.1,
}  # fmt: skip
PER_BATCH: Final = {"ledger_writes": 0.04, "ledger_syncs": 0.01, "wake_ups": 0.1, "futexes": 2.0}
# How many events a wait brings depends on what else the machine does. Each brings one, save that which lets the next
# batch begin; but the event loop and the poller wait one after the other.
WAITS_PER_EVENT: Final = 2.5

_CALL: Final = re.compile(r"\d+ +(\w+)\((?:\d+<([^>]*)>)?")
_TARGETS: Final = {
    "socket": r"socket:|TCP|UNIX", "pipe": r"pipe:", "eventfd": r"anon_inode:\[eventfd\]", "ledger": r".*\.kfl$",
    "": r"anon_inode:|$",
}  # fmt: skip


def count_calls(log: str) -> Counter[str]:
    """How often each call was made on what, as ``read socket``, in a log of ``strace -f -y``."""
    calls = Counter[str]()
    for line in log.splitlines():
        # A call that another thread interrupts comes again as "resumed"; signals and exits are no calls.
        if found := _CALL.match(line):
            name, path = found[1], found[2] or ""
            target = next((target for target, pattern in _TARGETS.items() if re.match(pattern, path)), "file")
            calls[f"{name} {target}".rstrip()] += 1
    return calls


def find_kind(call: str) -> str:
    """The kind of a call, as ``receives`` of ``read socket``."""
    return next((kind for kind, pattern in KINDS.items() if re.match(pattern, call)), OTHER)


def sum_kinds(calls: Counter[str]) -> Counter[str]:
    """The calls by their kind."""
    kinds = Counter[str]()
    for call, times in calls.items():
        kinds[find_kind(call)] += times
    return kinds


def make_product(realm: Realm) -> Product:
    """What a client of the realm's desktop product knows."""
    sku = SKUS["desktop"]
    request_key, answer_secret = sku.derive_keys(PUBLISHER_ID)
    return Product(
        sku_id=sku.id.bytes, request_key=request_key, answer_secret=answer_secret, publisher_id=PUBLISHER_ID,
        roots=(realm.root,), family=sku.family, generation=sku.generation, revoked=(),
    )  # fmt: skip


class TracedWorker:
    """The worker of a running host, and loads on it."""

    def __init__(self, host: RunningHost) -> None:
        self._host = host
        self._product = make_product(host.realm)
        (pid,) = host.worker_pids()
        self._descriptors = Path(f"/proc/{pid}/fd")
        # The family comes to its cap, past which no batch needs the store.
        self._load(per_connection=0, activations=CONNECTIONS)

    def _load(self, *, per_connection: int, activations: int) -> LoadResult:
        """A load that is over for the worker too: it has seen the end of every connection."""
        before = len(list(self._descriptors.iterdir()))
        address, port = self._host.address
        plan = LoadPlan(
            address=address, port=port, product=self._product, connections=CONNECTIONS, per_connection=per_connection,
            activations=activations, machine_seed=bytes(32), verify_percent=1.0,
        )  # fmt: skip
        result = run_load(plan)
        if result.activations != activations or result.failed:
            raise RuntimeError(f"not everything was granted: {result.errors or result.refusals or result.failure}")
        end_s = time.monotonic() + END_LIMIT_S
        while len(list(self._descriptors.iterdir())) > before:
            if time.monotonic() > end_s:
                raise RuntimeError("the worker does not close its connections")
            time.sleep(0.01)
        return result

    def count(self, *, per_connection: int, activations: int) -> tuple[Counter[str], float]:
        """The worker's calls while a load makes so many activations, and the batches they came in."""
        with traced("strace", self._host, "-y", "-s", "0") as log:
            result = self._load(per_connection=per_connection, activations=activations)
        return count_calls(log.read_text()), result.batches


def count_system_calls(folder: Path, environment: dict[str, str] | None = None) -> Costs:
    """System calls of a worker for each way to connect. ``folder``: an empty one; ``environment``: the host's.

    Raises PermissionError where strace may not attach, RuntimeError when the load fails.
    """
    with serve(make_realm(folder), environment=environment) as host:
        worker = TracedWorker(host)
        costs = {}
        for work, (per_connection, activations) in LOADS.items():
            once, _ = worker.count(per_connection=per_connection, activations=activations)
            twice, batches = worker.count(per_connection=per_connection, activations=2 * activations)
            costs[work] = make_cost(once, twice, activations, batches)
    return costs


def make_cost(once: Counter[str], twice: Counter[str], activations: int, batches: float) -> Cost:
    """The figures of two loads: ``once`` of ``activations``, ``twice`` of twice as many in ``batches`` batches."""
    first, second = sum_kinds(once), sum_kinds(twice)

    def figure(value: float, slack: float) -> Figure:
        return Figure(round(value, 3), round(value + slack, 3))

    per_activation = {
        kind: figure((second[kind] - first[kind]) / activations, slack) for kind, slack in PER_ACTIVATION.items()
    }
    per_batch = {f"{kind}_per_batch": figure(second[kind] / batches, slack) for kind, slack in PER_BATCH.items()}
    events = second["receives"] + second["accepts"] + second["ledger_syncs"]
    waits = Figure(round(second["epoll_waits"] / events, 3), WAITS_PER_EVENT)
    parts = {}
    for call in sorted(twice):
        if find_kind(call) in PER_BATCH:
            parts[f"{call}, per batch"] = round(twice[call] / batches, 3)
        elif find_kind(call) in PER_ACTIVATION and twice[call] != once[call]:
            parts[call] = round((twice[call] - once[call]) / activations, 3)
    return Cost(per_activation | per_batch | {"epoll_waits_per_event": waits}, parts)
