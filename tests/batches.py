"""Batches and ledgers in this process, for tests that need no host process: requests go in as bytes of a connection.

maker = BatchMaker(make_realm(tmp_path))
batch = maker.collect([asked.request, ...])          # a Batch, not yet decided
maker.write(ledger, batch, time_ms)                  # decided, signed, durable and answered: maker.answers()
"""

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kms_fast import _core
from kms_fast.host.admission import build_table
from kms_fast.host.enrolment import read_installation
from kms_fast.host.ledger import Ledger, open_ledger
from kms_fast.model.settings import HostSettings
from tests.hosts import Realm
from tests.reference import rpc

PEER = bytes(10) + b"\xff\xff\xc0\0\2\7" + (40_007).to_bytes(2, "little")
"""192.0.2.7, port 40,007, as `_core` packs it."""


class Peer:
    """The other end of a connection of the host, which is bound. What it sends skips the socket, answers do not."""

    def __init__(self, poller: _core.Poller) -> None:
        self._poller = poller
        ours, self.socket = socket.socketpair()
        ours.setblocking(False)
        self.socket.setblocking(False)
        self.connection = poller.adopt(ours.detach(), "1688", PEER)
        self.send(rpc.build_bind())
        assert len(self.receive()) > 0

    def send(self, data: bytes) -> None:
        """Let the connection take these bytes as one read."""
        self.connection.receive_from_peer(data)

    def receive(self) -> bytes:
        """All that the host has said since the last time."""
        received = bytearray()
        self._poller.work()
        while part := self._read():
            received += part
            self._poller.work()
        return bytes(received)

    def answers(self) -> list[tuple[bytes | None, int]]:
        """(answer, result) of each call since the last time."""
        return [rpc.parse_response(pdu) for pdu in rpc.split_pdus(self.receive())]

    def _read(self) -> bytes:
        try:
            return self.socket.recv(1 << 20)
        except BlockingIOError:
            return b""


def fail(error: BaseException) -> None:
    """A connection was lost by a bug."""
    raise error


class BatchMaker:
    """A host's admission table and one bound connection. Batches are counted, signed and committed here, in step."""

    def __init__(self, realm: Realm, settings: HostSettings | None = None) -> None:
        self.settings = settings or HostSettings()
        self.installation = read_installation(realm.home / "host")
        self.folder = realm.home / "host" / "ledger"
        self.table, self.family_numbers = build_table(self.installation, self.settings)
        settings = self.settings
        self.host = _core.Host(lambda: None, lambda interface, peer: None)
        self.host.use_limits(settings.max_waiting, settings.max_connections, settings.record_names)
        self.host.use_table(self.table)
        self.poller = _core.Poller(self.host, fail)
        self.peer = Peer(self.poller)
        self._calls = 1

    def collect(self, requests: Sequence[bytes]) -> _core.Batch:
        """The batch of these requests, at most 1,024."""
        for request in requests:
            self._calls += 1
            self.peer.send(rpc.build_request(request, self._calls))
        batch = self.host.take_batch()
        assert batch is not None
        return batch

    def decide(self, batch: _core.Batch, time_ms: int) -> None:
        """Both decisions, with counts in memory only."""
        batch.decide_product_and_clock(time_ms)
        batch.decide_counts(time_ms)

    def open_ledger(self) -> Ledger:
        """A new segment of the realm's ledger."""
        return open_ledger(
            self.folder, host_id=self.installation.certificate.host_id, certificates=self.installation.chain_data
        )

    def write(self, ledger: Ledger, batch: _core.Batch, time_ms: int) -> None:
        """A batch from decision to answers."""
        self.decide(batch, time_ms)
        header_hash = batch.seal(
            ledger.segment, ledger.number, time_ms, ledger.previous, self.installation.private_key.sign
        )
        with committer() as (commits, wake_fd):
            ledger.append(commits, batch, header_hash, time_ms)
            os.read(wake_fd, 1)
            commits.finish().answer()

    def answers(self) -> list[tuple[bytes | None, int]]:
        """(answer, result) of each call since the last time."""
        return self.peer.answers()


@contextmanager
def committer() -> Iterator[tuple[_core.Committer, int]]:
    """A running committer and the descriptor that it wakes."""
    wake_fd, write_fd = os.pipe()
    commits = _core.Committer(write_fd)
    thread = threading.Thread(target=commits.run)
    thread.start()
    try:
        yield commits, wake_fd
    finally:
        commits.stop()
        thread.join()
        os.close(wake_fd)
        os.close(write_fd)
