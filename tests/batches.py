"""Batches and ledgers in this process, for tests that need no host process: requests go in as bytes of a connection.

maker = BatchMaker(make_realm(tmp_path))
batch = maker.collect([asked.request, ...])          # a Batch, not yet decided
maker.write(ledger, batch, time_ms)                  # decided, signed, durable and answered: maker.answers()
"""

import os
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

PEER = ("192.0.2.7", 40_007)


class Transport:
    """Stands in for asyncio's: keeps what is written, and notes what the protocol asks of it."""

    def __init__(self, peer: tuple[str, int] = PEER) -> None:
        self.peer = peer
        self.written: list[bytes] = []
        self.reading = True
        self.closed = False

    def get_extra_info(self, name: str) -> object:
        return {"peername": self.peer}[name]

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


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
        self.connection, self.transport = self.connect()
        self._calls = 1

    def connect(self) -> tuple[_core.Connection, Transport]:
        """One more bound connection."""
        connection, transport = _core.Connection(self.host), Transport()
        connection.connection_made(transport)  # type: ignore[arg-type]
        connection.data_received(rpc.build_bind())
        assert len(transport.written) == 1
        transport.written.clear()
        return connection, transport

    def collect(self, requests: Sequence[bytes]) -> _core.Batch:
        """The batch of these requests, at most 1,024."""
        for request in requests:
            self._calls += 1
            self.connection.data_received(rpc.build_request(request, self._calls))
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
        pdus = [rpc.Pdu.parse(written) for written in self.transport.written]
        self.transport.written.clear()
        return [rpc.parse_response(pdu) for pdu in pdus]


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
