"""Requests through the core, without disk: from the bytes that arrive to the bytes that the kernel has taken."""

import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kms_fast import _core
from kms_fast.host.admission import build_table
from kms_fast.host.enrolment import read_installation
from kms_fast.model.settings import HostSettings
from tests.hosts import PUBLISHER_ID, SKUS, Realm, make_realm

Benchmark = Callable[..., Any]


class Sink:
    """Takes what connections send and forgets it: a datagram socket that nobody reads."""

    def __init__(self) -> None:
        self._receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._receiver.bind(("127.0.0.1", 0))

    def connect(self) -> int:
        """A descriptor to send to."""
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.setblocking(False)
        sender.connect(self._receiver.getsockname())
        return sender.detach()


class CoreOnly:
    """A host's core with ``size`` bound connections; `answer_all` lets each ask once and signs one batch for all."""

    def __init__(self, realm: Realm, size: int) -> None:
        now_ms = time.time_ns() // 1_000_000
        installation = read_installation(realm.home / "host")
        self.sign = installation.private_key.sign
        self.host = _core.Host(lambda: None, lambda interface, peer: None)
        self.host.use_limits(16_384, 20_000, True)
        self.host.use_table(build_table(installation, HostSettings())[0])
        self.poller, self.sink = _core.Poller(self.host, print), Sink()
        self.connections = [self.poller.adopt(self.sink.connect(), "1688") for _ in range(size)]
        sku = SKUS["desktop"]
        keys = _core.SkuKeys(sku.id.bytes, *sku.derive_keys(PUBLISHER_ID))
        fields = bytearray(b"\1" * 16 + bytes(152))
        fields[96:104] = now_ms.to_bytes(8, "little")
        self.pdus = []
        for connection in self.connections:
            connection.receive_from_peer(_core.build_bind())
            request = keys.seal_request(bytes(fields), secrets.token_bytes(16))
            self.pdus.append(_core.build_request(2, 0, 0, request))
        self.number = 0

    def answer_all(self) -> None:
        """Open, decide, build leaves and tree, sign, seal the answers, send them."""
        now_ms = time.time_ns() // 1_000_000
        for connection, pdu in zip(self.connections, self.pdus, strict=True):
            connection.receive_from_peer(pdu)
        batch = self.host.take_batch()
        assert batch is not None
        batch.decide_product_and_clock(now_ms)
        batch.decide_counts(now_ms)
        self.number += 1
        batch.seal(1, self.number, now_ms, bytes(32), self.sign)
        batch.record_bytes()
        batch.answer()


@pytest.mark.parametrize("size", [1, 64, 256])
def bench_a_batch_of_requests(benchmark: Benchmark, tmp_path: Path, size: int) -> None:
    core = CoreOnly(make_realm(tmp_path), size)
    benchmark(core.answer_all)
    assert all(connection.fd >= 0 for connection in core.connections)
    benchmark.extra_info["us_per_request"] = benchmark.stats.stats.median * 1e6 / size  # type: ignore[attr-defined]
