"""A name server over TCP that answers updates as a test says; for answers that no real server can be brought to."""

import socket
import struct
import threading

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.update

ZONE = "example.com."


class ScriptedServer:
    """Has an empty zone ``example.com``. ``answer``: the code for updates, or bytes to send before closing.

    ``updates``: those that came.
    """

    def __init__(self, answer: dns.rcode.Rcode | bytes, *, authoritative: bool = True) -> None:
        self.updates: list[dns.update.UpdateMessage] = []
        self._answer = answer
        self._authoritative = authoritative
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> "ScriptedServer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                while size := stream.read(2):
                    connection.sendall(self._reply(stream.read(*struct.unpack(">H", size))))
                    if isinstance(self._answer, bytes):
                        break

    def _reply(self, data: bytes) -> bytes:
        # It has no keys, and answers what is signed as if it were not.
        query = dns.message.from_wire(data, continue_on_error=True)
        response = dns.message.Message(query.id)
        response.flags = dns.flags.QR | dns.opcode.to_flags(query.opcode())
        response.question = query.question
        if isinstance(query, dns.update.UpdateMessage):
            self.updates.append(query)
            if isinstance(self._answer, bytes):
                return self._answer
            response.set_rcode(self._answer)
        else:
            response.flags |= dns.flags.AA if self._authoritative else 0
            self._fill(query, response)
        wire = response.to_wire()
        return struct.pack(">H", len(wire)) + wire

    def _fill(self, query: dns.message.Message, response: dns.message.Message) -> None:
        asked = query.question[0]
        soa = dns.rrset.from_text(ZONE, 60, "IN", "SOA", "ns1.example.com. a.example.com. 1 2 3 4 5")
        if asked.rdtype == dns.rdatatype.SOA and asked.name == soa.name:
            response.answer.append(soa)
        else:
            response.authority.append(soa)
            response.set_rcode(dns.rcode.NXDOMAIN)
