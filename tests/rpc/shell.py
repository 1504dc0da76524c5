"""The smallest server around a Session: blocking sockets, one thread a connection. It answers a call with its argument
reversed and the opnum as result, or without an answer and with result 0xE04B0001 when the argument is empty."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kms_fast._core import RpcCounters, Session


class Handler(socketserver.BaseRequestHandler):
    """One connection."""

    request: socket.socket
    server: "Server"

    def handle(self) -> None:
        session = Session(self.server.counters)
        while session.closing is None and (data := self.request.recv(65536)):
            session.receive(data)
            for call_id, context_id, opnum, argument in session.requests or ():
                answer, result = (argument[::-1], opnum) if argument else (None, 0xE04B0001)
                session.respond(call_id, context_id, answer, result)
            if session.requests:
                session.requests.clear()
            self.request.sendall(session.take_output())


class Server(socketserver.ThreadingTCPServer):
    """Threads end with the test, not with the last client."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.counters = RpcCounters()
        self.port: int = self.server_address[1]


@contextmanager
def serving() -> Iterator[Server]:
    """A server on loopback for the time of the block."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
