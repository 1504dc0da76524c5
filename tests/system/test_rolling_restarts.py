"""A new host beside the old one, fifty times under load: nothing acknowledged is lost, nobody fails after one retry."""

import hashlib
import json
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.hosts import make_realm, run_cli, serve
from tests.reference.answer import Answer, Header
from tests.reference.rpc import Connection
from tests.reference.verify import Asked
from tests.system.asker import Asker

RESTARTS, CLIENTS, SAMPLE = 50, 8, 20


class Client(threading.Thread):
    """Machines that ask one after the other, half of them on a connection that stays open.

    ``acknowledged``: what was told of each; ``failures``: requests that failed, and failed again when they were sent
    once more on a new connection, as protocol.md asks of a client.
    """

    def __init__(self, asker: Asker, address: tuple[str, int], *, keeps_open: bool) -> None:
        super().__init__()
        self.acknowledged: list[tuple[Asked, bytes]] = []
        self.retries = 0
        self.failures: list[object] = []
        self.ended = threading.Event()
        self._asker = asker
        self._address = address
        self._keeps_open = keeps_open
        self._connection: Connection | None = None

    def run(self) -> None:
        while not self.ended.is_set():
            asked = self._asker.ask()
            answer = self._try(asked)
            if isinstance(answer, bytes):
                self.acknowledged.append((asked, answer))
                continue
            self.retries += 1
            again = self._try(asked)
            if isinstance(again, bytes):
                self.acknowledged.append((asked, again))
            else:
                self.failures.append((answer, again))

    def _try(self, asked: Asked) -> object:
        """The answer, or what came in its place."""
        try:
            if self._connection is None:
                self._connection = Connection(self._address)
                self._connection.bind()
            answer, result = self._connection.call(asked.request)
        except OSError as error:
            self._close()
            return error
        if answer is None or not self._keeps_open:
            self._close()
        return result if answer is None else answer

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.socket.close()
            self._connection = None


@pytest.mark.timeout(400)
def test_fifty_rolling_restarts_lose_nothing(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    with ExitStack() as hosts:
        host = hosts.enter_context(serve(realm, "--workers", "2"))
        address = host.address
        clients = [Client(asker, address, keeps_open=bool(number % 2)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            for _ in range(RESTARTS):
                successor = hosts.enter_context(serve(realm, "--workers", "2", listen=f"127.0.0.1:{address[1]}"))
                assert host.stop() == 0
                host = successor
        finally:
            for client in clients:
                client.ended.set()
            for client in clients:
                client.join()
        assert host.stop() == 0
    assert [failure for client in clients for failure in client.failures] == []
    assert sum(client.retries for client in clients) > 0, "the restarts met no client"
    acknowledged = [one for client in clients for one in client.acknowledged]
    for asked, answer in acknowledged[::SAMPLE]:
        assert asker.check(asked, answer).leaf.result == 0
    verdict = run_cli("ledger", "verify", home=realm.home)[1]
    assert (verdict["ok"], verdict["segments"]) == (True, 2 * (RESTARTS + 1))
    recorded = read_ledger(realm.home)
    told = [name_leaf(asked, answer) for asked, answer in acknowledged]
    assert len(told) > 10 * RESTARTS
    assert set(told) <= set(recorded)
    assert len(recorded) == len(set(recorded))


Leaf = tuple[str, int, str]


def name_leaf(asked: Asked, answer: bytes) -> Leaf:
    """Batch, index and request hash of an answer's leaf; the first two stand in clear."""
    parsed = Answer.parse(answer)
    header = Header.parse(parsed.header)
    return f"{header.segment}/{header.number}", parsed.leaf_index, hashlib.sha256(asked.request).hexdigest()


def read_ledger(home: Path) -> list[Leaf]:
    """The same of every leaf in the ledger."""
    command = [sys.executable, "-m", "kms_fast", "ledger", "export", "--home", home]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout.splitlines()
    return [(leaf["batch"], leaf["index"], leaf["request_hash"]) for leaf in map(json.loads, lines)]
