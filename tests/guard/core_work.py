"""Activations through the cores of a host and a load generator, without disk: what callgrind counts.

    python -m tests.guard.core_work HOME [PLANT]

HOME is a certified host's. Everything happens here from the bytes that arrive to the bytes that leave, but for Ed25519,
which is `cryptography`'s: a constant stands for each signature. What is to be counted lies between two marks, calls of
a function of the C library that nothing else calls here. One JSON object on stdout says what lay between them, in
order, and what computed it.
"""

import gc
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kms_fast import _core
from kms_fast.host.admission import build_table
from kms_fast.host.enrolment import Installation, read_installation
from kms_fast.model.settings import HostSettings

MARK: Final = "getppid"
CONNECTIONS: Final = 256
BATCH_SIZES: Final = (1, 64, 256)
WARM_UP_ROUNDS: Final = 3
READ_BYTES: Final = 1 << 16
ONE_BLOCK: Final = "one block of SHA-256"


def hash_requests(requests: list[bytes]) -> None:
    """The planted regression: a host that hashes each request once more, called from the interpreter."""
    for request in requests:
        _core.sha256(request)


PLANTS: Final[dict[str, Callable[[list[bytes]], None]]] = {
    "nothing": lambda requests: None,
    "hashed requests": hash_requests,
}


class Loop:
    """A load generator and a host with connections between them, and the batches in step.

    Each connection has one request out at any time: whoever takes an answer sends the next request. Both have sockets
    of their own, of which a system call is one instruction here, and what one sent is handed to the other in between.
    """

    def __init__(self, installation: Installation, verify_percent: float) -> None:
        self._host = _core.Host(lambda: None, lambda interface, peer: None)
        self._host.use_limits(16_384, 20_000, True)
        self._host.use_table(build_table(installation, HostSettings())[0])
        self._batches = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS)
        self._run = self._make_run(installation, verify_percent)
        self._poller = _core.Poller(self._host, self._fail)
        self._sockets: list[socket.socket] = []  # to the host
        self._clients: list[socket.socket] = []  # to the load
        self._connect()
        self._run.start_phase(activations=1 << 40)

    def _make_run(self, installation: Installation, verify_percent: float) -> _core.LoadRun:
        publisher, sku = installation.publisher, installation.catalog.skus[0]
        keys = _core.SkuKeys(sku.id.bytes, *sku.derive_keys(publisher.publisher_id))
        verifier = _core.Verifier(
            publisher_id=publisher.publisher_id, roots=publisher.roots, sku=keys, family=sku.family,
            generation=sku.generation, verify_signature=lambda public_key, message, signature: True,
        )  # fmt: skip
        return _core.LoadRun(
            keys, verifier, address=_core.Address(*self._listener.getsockname()), machine_seed=bytes(32),
            clients=range(100_000), verify_percent=verify_percent, slots=CONNECTIONS, per_connection=0,
            library_version=1, answer_limit_s=3600.0, call_later=lambda delay_s, function: None,
            on_ready=lambda: None, on_done=lambda: None,
        )  # fmt: skip

    def _fail(self, error: BaseException) -> None:
        raise error

    def _connect(self) -> None:
        self._run.connect()
        # Further clients connect when the first ones are bound.
        for _ in range(CONNECTIONS):
            client, _ = self._listener.accept()
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            self._poller.adopt(theirs.detach(), "1688")
            self._clients.append(client)
            self._sockets.append(ours)
            ours.send(client.recv(READ_BYTES))
            self._poller.work()
            client.send(ours.recv(READ_BYTES))
            self._run.work()

    def take_requests(self) -> list[bytes]:
        """The request that each client has sent."""
        return [client.recv(READ_BYTES) for client in self._clients]

    def answer_requests(self, requests: list[bytes], batch_size: int) -> None:
        """Read, open, decide, build leaves and trees, seal, send: batches of a size, one after the other."""
        now_ms = time.time_ns() // 1_000_000
        for first in range(0, CONNECTIONS, batch_size):
            for at in range(first, first + batch_size):
                self._sockets[at].send(requests[at])
            while self._host.waiting < batch_size:
                self._poller.work()
            batch = self._host.take_batch()
            assert batch is not None
            batch.decide_product_and_clock(now_ms)
            batch.decide_counts(now_ms)
            self._batches += 1
            batch.seal(1, self._batches, now_ms, bytes(32), lambda message: bytes(64))
            batch.answer()

    def take_answers(self) -> list[bytes]:
        """The answer that each client has been sent."""
        return [ours.recv(READ_BYTES) for ours in self._sockets]

    def send_answers(self, answers: list[bytes]) -> None:
        """Hand each client its answer."""
        for client, answer in zip(self._clients, answers, strict=True):
            client.send(answer)

    def check_answers(self) -> None:
        """Check each answer and seal the next request."""
        expected = self._run.latency.count + CONNECTIONS
        while self._run.latency.count < expected and not self._run.errors:
            self._run.work()

    def run_round(self, batch_size: int) -> None:
        """One activation on each connection."""
        self.answer_requests(self.take_requests(), batch_size)
        self.send_answers(self.take_answers())
        self.check_answers()

    def check_tally(self) -> None:
        """Raises RuntimeError unless every answer was a grant: anything else costs other instructions."""
        figures = self._run.figures()
        if self._run.errors or figures["activations"] != figures["requests"] - CONNECTIONS:
            raise RuntimeError(f"not everything was granted: {figures}, {self._run.errors}")


def count_activations(home: Path, plant: Callable[[list[bytes]], None]) -> list[str]:
    """The work with its marks; the names of what lies between them."""
    installation = read_installation(home / "host")
    names = []

    def count(name: str, work: Callable[[], object]) -> None:
        os.getppid()
        work()
        os.getppid()
        names.append(name)

    count(ONE_BLOCK, lambda: [_core.sha256(b"") for _ in range(CONNECTIONS)])
    for verify_percent, checking in ((0.0, "load, checking no answer"), (100.0, "load, checking every answer")):
        loop = Loop(installation, verify_percent)
        for _ in range(WARM_UP_ROUNDS):
            loop.run_round(CONNECTIONS)
        loop.answer_requests(loop.take_requests(), CONNECTIONS)
        loop.send_answers(loop.take_answers())
        count(checking, loop.check_answers)
    for size in BATCH_SIZES:
        loop.run_round(size)
        requests = loop.take_requests()

        def answer(requests: list[bytes] = requests, size: int = size) -> None:
            loop.answer_requests(requests, size)
            plant(requests)

        count(f"host, batches of {size}", answer)
        loop.send_answers(loop.take_answers())
        loop.check_answers()
        loop.check_tally()
    return names


def main() -> None:
    """Do the work and say what was done."""
    # When the collector runs depends on all that was allocated before; a host freezes what it has at its start.
    gc.disable()
    home, plant = Path(sys.argv[1]), PLANTS[sys.argv[2] if len(sys.argv) > 2 else "nothing"]
    names = count_activations(home, plant)
    print(json.dumps({"sections": names, "activations": CONNECTIONS, "backend": _core.backend()}))


if __name__ == "__main__":
    main()
