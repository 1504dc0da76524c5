"""Activations through the cores of a host and a load generator, without sockets and disk: what callgrind counts.

    python -m tests.guard.core_work HOME [PLANT]

HOME is a certified host's. Everything happens here from the bytes that arrive to the bytes that leave, but for Ed25519,
which is `cryptography`'s: a constant stands for each signature. What is to be counted lies between two marks, calls of
a function of the C library that nothing else calls here. One JSON object on stdout says what lay between them, in
order, and what computed it.
"""

import gc
import json
import os
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
ONE_BLOCK: Final = "one block of SHA-256"


class Transport:
    """Keeps what is written until the other side takes it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write: Callable[[bytes], None] = self.written.append

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return "127.0.0.1", 40_000


class WastefulTransport(Transport):
    """The planted regression: it hashes each answer that a host writes."""

    def __init__(self) -> None:
        super().__init__()
        self.write = self.hash_and_keep

    def hash_and_keep(self, data: bytes) -> None:
        _core.sha256(data)
        self.written.append(data)


PLANTS: Final = {"nothing": Transport, "wasteful transport": WastefulTransport}


class Loop:
    """A load generator and a host, as many connections between them as there are, and the batches in step.

    Each connection has one request out at any time: whoever takes an answer sends the next request.
    """

    def __init__(self, installation: Installation, verify_percent: float, make_transport: type[Transport]) -> None:
        self._host = _core.Host(lambda: None, lambda interface, peer: None)
        self._host.use_limits(16_384, 20_000, True)
        self._host.use_table(build_table(installation, HostSettings())[0])
        self._batches = 0
        self._clients: list[_core.LoadConnection] = []
        self._run = self._make_run(installation, verify_percent)
        self._servers = [_core.Connection(self._host) for _ in range(CONNECTIONS)]
        self._client_transports = [Transport() for _ in self._servers]
        self._server_transports = [make_transport() for _ in self._servers]
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
            keys, verifier, machine_seed=bytes(32), clients=range(100_000), verify_percent=verify_percent,
            slots=CONNECTIONS, per_connection=0, library_version=1, answer_limit_s=3600.0,
            open_connection=self._clients.append, call_later=lambda delay_s, function: None,
            on_ready=lambda: None, on_done=lambda: None,
        )  # fmt: skip

    def _connect(self) -> None:
        self._run.connect()
        # Further clients are opened when the first ones are bound.
        for number, client in enumerate(self._clients):
            server, transport = self._servers[number], self._client_transports[number]
            server.connection_made(self._server_transports[number])  # type: ignore[arg-type]
            client.connection_made(transport)  # type: ignore[arg-type]
            server.data_received(transport.written.pop())
            client.data_received(self._server_transports[number].written.pop())

    def take_requests(self) -> list[bytes]:
        """The request that each client has written."""
        return [transport.written.pop() for transport in self._client_transports]

    def answer_requests(self, requests: list[bytes], batch_size: int) -> None:
        """Open, decide, build leaves and trees, seal, answer: batches of a size, one after the other."""
        now_ms = time.time_ns() // 1_000_000
        for first in range(0, CONNECTIONS, batch_size):
            for at in range(first, first + batch_size):
                self._servers[at].data_received(requests[at])
            batch = self._host.take_batch()
            assert batch is not None
            batch.decide_product_and_clock(now_ms)
            batch.decide_counts(now_ms)
            self._batches += 1
            batch.seal(1, self._batches, now_ms, bytes(32), lambda message: bytes(64))
            batch.answer()

    def take_answers(self) -> list[bytes]:
        """The answer that the host has written to each connection."""
        return [transport.written.pop() for transport in self._server_transports]

    def check_answers(self, answers: list[bytes]) -> None:
        """Check each answer and seal the next request."""
        for client, answer in zip(self._clients, answers, strict=True):
            client.data_received(answer)

    def run_round(self, batch_size: int) -> None:
        """One activation on each connection."""
        self.answer_requests(self.take_requests(), batch_size)
        self.check_answers(self.take_answers())

    def check_tally(self) -> None:
        """Raises RuntimeError unless every answer was a grant: anything else costs other instructions."""
        figures = self._run.figures()
        if self._run.errors or figures["activations"] != figures["requests"] - CONNECTIONS:
            raise RuntimeError(f"not everything was granted: {figures}, {self._run.errors}")


def count_activations(home: Path, make_transport: type[Transport]) -> list[str]:
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
        loop = Loop(installation, verify_percent, make_transport)
        for _ in range(WARM_UP_ROUNDS):
            loop.run_round(CONNECTIONS)
        loop.answer_requests(loop.take_requests(), CONNECTIONS)
        answers = loop.take_answers()
        count(checking, lambda loop=loop, answers=answers: loop.check_answers(answers))  # type: ignore[misc]
    for size in BATCH_SIZES:
        loop.run_round(size)
        requests = loop.take_requests()
        count(f"host, batches of {size}", lambda: loop.answer_requests(requests, size))  # noqa: B023
        loop.check_answers(loop.take_answers())
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
