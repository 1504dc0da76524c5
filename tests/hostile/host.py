"""A server on loopback that treats every connection as one function of :class:`Dialogue` says.

It knows the realm's secrets, so what it says is wrong only where it is meant to be.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.hosts import PUBLISHER_ID, Realm, make_key
from tests.reference import rpc
from tests.reference.certificate import Family
from tests.reference.host import Publisher, Scene, Sku
from tests.reference.request import SkuKeys, open_request
from tests.reference.rpc import Pdu


@dataclass
class Dialogue:
    """One connection, from the host's side. ``memory`` is what earlier connections of the same host left there."""

    realm: Realm
    socket: socket.socket
    stopped: threading.Event
    memory: list[bytes]
    call_id: int = 0
    request: bytes = field(default=b"", repr=False)

    def accept_bind(self) -> Pdu:
        """Takes the bind and accepts it."""
        bind = self.read()
        self.send(rpc.build_bind_ack(bind))
        return bind

    def take_call(self) -> bytes:
        """Takes bind and activation request; gives the request's 220 bytes."""
        self.accept_bind()
        return self.take_argument()

    def take_argument(self) -> bytes:
        """Takes the next call; gives its argument."""
        self.request = rpc.parse_request(self.read())[1]
        return self.request

    def respond(self, answer: bytes | None, result: int = 0) -> None:
        """Answers the call taken last."""
        self.send(rpc.build_response(self.call_id, answer, result))

    def read(self) -> Pdu:
        """The client's next PDU, whose call ID is noted. Raises ConnectionError at the end of the connection."""
        pdu = rpc.read_pdu(self.socket)
        if pdu is None:
            raise ConnectionError("the client closed the connection")
        self.call_id = pdu.call_id
        return pdu

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def wait(self, seconds: float = 60) -> bool:
        """Says nothing for a while; whether the test has ended meanwhile."""
        return self.stopped.wait(seconds)

    def scene(self) -> Scene:
        """An honest host's view of the request taken last."""
        return make_scene(self.realm, self.request)


Behaviour = Callable[[Dialogue], None]


def make_scene(realm: Realm, request: bytes) -> Scene:
    """The honest publisher and host of ``realm`` with a request of one of its SKUs, now."""
    found = next(sku for sku in realm.skus.values() if sku.id.bytes == request[4:20])
    keys = SkuKeys.derive(found.secret, PUBLISHER_ID, found.id.bytes)
    sku = Sku(
        keys, found.family, found.generation, 1, found.validity_min, found.activation_interval_min,
        found.renewal_interval_min,
    )  # fmt: skip
    publisher = Publisher(PUBLISHER_ID, realm.root_key, realm.issuer_key)
    families = [Family(1, 3, 1, 259_200), Family(3, 9, 1, 259_200)]
    now_ms = time.time_ns() // 1_000_000
    return Scene(publisher, make_key("host"), families, sku, open_request(keys, request), request, now_ms)


@contextmanager
def hostile_host(realm: Realm, behave: Behaviour) -> Iterator[str]:
    """Runs a host of this behaviour until the block ends; gives its address as ``host:port``."""
    stopped, memory = threading.Event(), list[bytes]()
    threads: list[threading.Thread] = []

    def talk(connection: socket.socket) -> None:
        # Whatever is left of a dialogue when the client is gone is of no interest.
        with connection, suppress(OSError):
            connection.settimeout(60)
            behave(Dialogue(realm, connection, stopped, memory))

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            if stopped.is_set():
                connection.close()
                return
            threads.append(threading.Thread(target=talk, args=(connection,), daemon=True))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield f"{address[0]}:{address[1]}"
        finally:
            stopped.set()
            # Wakes the acceptor.
            socket.create_connection(address).close()
            acceptor.join()
            for thread in threads:
                thread.join(60)
