"""One request through the core, by stages, for batches of 1 to 1,024: without disk and without clients.

    python bench/request.py [--json] [--rounds N] [--milliseconds N] [--sizes N N …]

From the bytes that arrive to the bytes that the kernel has taken, as many bound connections as the batch has leaves.
Each stage's time is divided by the size of the batch. ``admit`` is to receive and open requests, ``tree`` leaves, tree
and header; the signature, once a batch, stands alone. ``answer`` is to seal and send, to a datagram socket that nobody
reads; ``send_us`` tells what of it is the sending, measured apart from Python and not part of ``all_us``.
"""

import secrets
import socket
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from program import Say, run_program
from rows import Table
from servers import ANSWER_SIZE, make_folder

from kms_fast import _core
from kms_fast.cli.realm import make_realm
from kms_fast.host.admission import build_table
from kms_fast.host.enrolment import read_installation
from kms_fast.load.plan import Product, find_product
from kms_fast.model.settings import HostSettings

STAGES = ("admit_us", "decide_us", "tree_us", "sign_us", "answer_us")
SENDS = 1000


class Sink:
    """Takes what is sent to it and forgets it: a datagram socket that nobody reads."""

    def __init__(self) -> None:
        self._receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._receiver.bind(("127.0.0.1", 0))

    def connect(self) -> socket.socket:
        """A socket to send with."""
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setblocking(False)
        sender.connect(self._receiver.getsockname())
        return sender


class CoreOnly:
    """A host's core with ``size`` bound connections; `answer_all` lets each ask once and signs one batch for all."""

    def __init__(self, home: Path, product: Product, size: int) -> None:
        now_ms = time.time_ns() // 1_000_000
        installation = read_installation(home / "host")
        self.host = _core.Host(lambda: None, lambda interface, peer: None)
        self.host.use_limits(16_384, 20_000, True)
        self.host.use_table(build_table(installation, HostSettings())[0])
        self.size, self.number, self.signing_ns = size, 0, 0
        self.private_key = installation.private_key
        self.poller, self.sink = _core.Poller(self.host, self.fail), Sink()
        self.sender = self.sink.connect()
        self.connections = [self.poller.adopt(self.sink.connect().detach(), "1688") for _ in range(size)]
        keys = _core.SkuKeys(product.sku_id, product.request_key, product.answer_secret)
        fields = bytearray(b"\1" * 16 + bytes(152))
        fields[96:104] = now_ms.to_bytes(8, "little")
        self.pdus = []
        for connection in self.connections:
            connection.receive_from_peer(_core.build_bind())
            request = keys.seal_request(bytes(fields), secrets.token_bytes(16))
            self.pdus.append(_core.build_request(2, 0, 0, request))

    def fail(self, error: BaseException) -> None:
        raise error

    def sign(self, message: bytes) -> bytes:
        started_ns = time.perf_counter_ns()
        signature = self.private_key.sign(message)
        self.signing_ns = time.perf_counter_ns() - started_ns
        return signature

    def answer_all(self) -> list[int]:
        """Open, decide, sign and answer one batch; the nanoseconds of each of `STAGES`."""
        now_ms = time.time_ns() // 1_000_000
        self.number += 1
        times = [time.perf_counter_ns()]
        for connection, pdu in zip(self.connections, self.pdus, strict=True):
            connection.receive_from_peer(pdu)
        batch = self.host.take_batch()
        assert batch is not None
        assert batch.size == self.size
        times.append(time.perf_counter_ns())
        batch.decide_product_and_clock(now_ms)
        batch.decide_counts(now_ms)
        times.append(time.perf_counter_ns())
        batch.seal(1, self.number, now_ms, bytes(32), self.sign)
        times.append(time.perf_counter_ns())
        batch.answer()
        times.append(time.perf_counter_ns())
        admitted, decided, sealed, answered = (after - before for before, after in pairwise(times))
        return [admitted, decided, sealed - self.signing_ns, self.signing_ns, answered]

    def measure(self, milliseconds: int) -> list[float]:
        """Microseconds a request of each stage, the mean over this many milliseconds."""
        spent, batches = [0] * len(STAGES), 0
        while sum(spent) < milliseconds * 1_000_000:
            spent = [total + ns for total, ns in zip(spent, self.answer_all(), strict=True)]
            batches += 1
        return [total / batches / self.size / 1000 for total in spent]

    def measure_send(self) -> float:
        """Microseconds to send one answer, the mean of many."""
        answer = bytes(ANSWER_SIZE)
        started_ns = time.perf_counter_ns()
        for _ in range(SENDS):
            self.sender.send(answer)
        return (time.perf_counter_ns() - started_ns) / SENDS / 1000


def run(say: Say, *, rounds: int, milliseconds: int, sizes: tuple[int, ...]) -> dict[str, Any]:
    """The report, without its machine."""
    table = Table()
    with make_folder() as folder:
        realm = make_realm(folder, threshold=1)
        product = find_product(realm.publisher, realm.setup_key)
        cores = [CoreOnly(folder, product, size) for size in sizes]
        for number in range(rounds):
            for core in cores:
                say(f"round {number + 1}/{rounds}: a batch of {core.size}")
                us = core.measure(milliseconds)
                table.add(
                    {"batch": core.size},
                    {**dict(zip(STAGES, us, strict=True)), "all_us": sum(us), "send_us": core.measure_send()},
                )
    if any(connection.fd < 0 for core in cores for connection in core.connections):
        raise RuntimeError("a connection was closed: not every request had its answer")
    return {"table": table}


if __name__ == "__main__":
    sys.exit(
        run_program(
            __doc__,
            run,
            rounds=(5, "how often each size is measured"),
            milliseconds=(500, "length of each measurement"),
            sizes=((1, 8, 64, 256, 1024), "requests of a batch"),
        )
    )
