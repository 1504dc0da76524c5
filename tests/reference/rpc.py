"""docs/rpc.md: the PDUs of both sides, and a blocking client of a few lines."""

import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple, Self
from uuid import UUID

HEADER = struct.Struct("<BBBB4sHHI")
LITTLE_ENDIAN = b"\x10\0\0\0"
FIRST, LAST = 1, 2
REQUEST, RESPONSE, FAULT, BIND, BIND_ACK, BIND_NAK, ALTER_CONTEXT, ALTER_CONTEXT_RESP = 0, 2, 3, 11, 12, 13, 14, 15
ACTIVATE, GET_REVOCATIONS = 0, 2
FRAGMENT = 5_840


def syntax(uuid: str, major: int, minor: int) -> bytes:
    """The 20 octets of a syntax."""
    return UUID(uuid).bytes_le + struct.pack("<HH", major, minor)


INTERFACE = syntax("f96e4d9c-c270-4994-be5f-bbef9f3235ea", 1, 0)
NDR = syntax("8a885d04-1ceb-11c9-9fe8-08002b104860", 2, 0)
NDR64 = syntax("71710533-beba-4937-8319-b5dbef9ccc36", 1, 0)
FEATURES = UUID("6cb71c2c-9812-4540-0300-000000000000").bytes_le + struct.pack("<HH", 1, 0)


class Pdu(NamedTuple):
    """A PDU: its type, flags, call ID and what follows the 16 octets of the header."""

    kind: int
    call_id: int
    body: bytes
    flags: int = FIRST | LAST

    def to_bytes(self) -> bytes:
        size = HEADER.size + len(self.body)
        return HEADER.pack(5, 0, self.kind, self.flags, LITTLE_ENDIAN, size, 0, self.call_id) + self.body

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises ValueError when ``data`` is not one PDU of our form."""
        version, minor, kind, flags, representation, size, authentication, call_id = HEADER.unpack(data[: HEADER.size])
        if (version, minor, representation[:2], authentication) != (5, 0, LITTLE_ENDIAN[:2], 0) or size != len(data):
            raise ValueError("not a PDU of our form")
        return cls(kind, call_id, data[HEADER.size :], flags)


class Context(NamedTuple):
    """A context offered in a bind."""

    context_id: int = 0
    interface: bytes = INTERFACE
    transfers: tuple[bytes, ...] = (NDR,)


class Refused(Exception):
    """A fault, bind_nak or rejected context: ``kind`` of the PDU, and its status or reason."""

    def __init__(self, kind: int, status: int) -> None:
        super().__init__(f"PDU of type {kind}, status or reason 0x{status:08X}")
        self.kind = kind
        self.status = status


def build_bind(contexts: Sequence[Context] = (Context(),), call_id: int = 1, kind: int = BIND) -> bytes:
    """A bind, or an alter_context."""
    body = struct.pack("<HHIBBH", FRAGMENT, FRAGMENT, 0, len(contexts), 0, 0)
    for context in contexts:
        body += struct.pack("<HBB", context.context_id, len(context.transfers), 0) + context.interface
        body += b"".join(context.transfers)
    return Pdu(kind, call_id, body).to_bytes()


def build_bind_ack(pdu: Pdu, results: Sequence[tuple[int, int, bytes]] = ((0, 0, NDR),)) -> bytes:
    """The answer to a bind: (result, reason, transfer syntax) of each context."""
    address = b"1688\0"
    body = struct.pack("<HHIH", FRAGMENT, FRAGMENT, 1, len(address)) + address
    body += bytes(-len(body) % 4) + struct.pack("<BBH", len(results), 0, 0)
    return Pdu(BIND_ACK, pdu.call_id, body + b"".join(struct.pack("<HH20s", *each) for each in results)).to_bytes()


def parse_bind_ack(pdu: Pdu) -> list[tuple[int, int]]:
    """(result, reason) of each context in a bind_ack or alter_context_resp."""
    at = 10 + struct.unpack("<H", pdu.body[8:10])[0]
    at += -at % 4
    count = pdu.body[at]
    return [struct.unpack("<HH", pdu.body[i : i + 4]) for i in range(at + 4, at + 4 + 24 * count, 24)]


def build_bind_nak(pdu: Pdu, reason: int) -> bytes:
    """The refusal of a bind."""
    return Pdu(BIND_NAK, pdu.call_id, struct.pack("<HBBB", reason, 1, 5, 0)).to_bytes()


def build_request(
    argument: bytes, call_id: int, operation: int = ACTIVATE, context_id: int = 0, fragment: int = FRAGMENT
) -> bytes:
    """A call, in as many PDUs as fragments of this size need."""
    stub = struct.pack("<II", len(argument), len(argument)) + argument
    room = (fragment - 24) // 8 * 8
    parts = [stub[at : at + room] for at in range(0, len(stub), room)]
    pdus = []
    for number, part in enumerate(parts):
        flags = (FIRST if number == 0 else 0) | (LAST if number == len(parts) - 1 else 0)
        head = struct.pack("<IHH", len(stub) - number * room, context_id, operation)
        pdus.append(Pdu(REQUEST, call_id, head + part, flags).to_bytes())
    return b"".join(pdus)


def parse_request(pdu: Pdu) -> tuple[int, bytes]:
    """Operation and argument of a call in one PDU."""
    operation: int = struct.unpack("<H", pdu.body[6:8])[0]
    length = struct.unpack("<I", pdu.body[8:12])[0]
    return operation, pdu.body[16 : 16 + length]


def build_response(call_id: int, answer: bytes | None, result: int) -> bytes:
    """The answer to a call."""
    stub = struct.pack("<II", 0, 0)
    if answer is not None:
        stub = struct.pack("<III", len(answer), 0x20000, len(answer)) + answer + bytes(-len(answer) % 4)
    stub += struct.pack("<I", result)
    return Pdu(RESPONSE, call_id, struct.pack("<IHBB", len(stub), 0, 0, 0) + stub).to_bytes()


def parse_response(pdu: Pdu) -> tuple[bytes | None, int]:
    """Answer and result of a response, or Refused for a fault. Raises ValueError for anything else."""
    if pdu.kind == FAULT:
        raise Refused(FAULT, struct.unpack("<I", pdu.body[8:12])[0])
    if pdu.kind != RESPONSE or pdu.flags & 3 != FIRST | LAST:
        raise ValueError(f"a PDU of type {pdu.kind} where a response belongs")
    stub = pdu.body[8:]
    length, referent = struct.unpack("<II", stub[:8])
    if referent == 0:
        return None, struct.unpack("<I", stub[8:12])[0]
    if struct.unpack("<I", stub[8:12])[0] != length:
        raise ValueError("the lengths of the answer differ")
    at = 12 + length + -length % 4
    return stub[12 : 12 + length], struct.unpack("<I", stub[at : at + 4])[0]


def build_fault(call_id: int, status: int) -> bytes:
    """A fault: the call was not executed."""
    return Pdu(FAULT, call_id, struct.pack("<IHBBII", 0, 0, 0, 0, status, 0), FIRST | LAST | 0x20).to_bytes()


def read_pdu(file: socket.socket) -> Pdu | None:
    """The next PDU of a connection, or None at its end."""
    head = _read(file, HEADER.size)
    if not head:
        return None
    return Pdu.parse(head + _read(file, struct.unpack("<H", head[8:10])[0] - HEADER.size))


def split_pdus(data: bytes) -> list[Pdu]:
    """PDUs that follow each other. Raises ValueError when something else does."""
    pdus, at = [], 0
    while at < len(data):
        size = struct.unpack_from("<H", data, at + 8)[0]
        pdus.append(Pdu.parse(data[at : at + size]))
        at += size
    return pdus


def _read(file: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = file.recv(size - len(data))
        if not part:
            break
        data += part
    return data


class Connection:
    """A client's connection. Raises Refused for what a server refuses, OSError and ValueError for what breaks."""

    def __init__(self, address: tuple[str, int], timeout_s: float = 30) -> None:
        self.socket = socket.create_connection(address, timeout=timeout_s)
        self.call_id = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.socket.sendall(data)

    def receive(self) -> Pdu:
        """The next PDU. Raises ConnectionError when the server has closed the connection."""
        pdu = read_pdu(self.socket)
        if pdu is None:
            raise ConnectionError("the server closed the connection")
        return pdu

    def bind(self, contexts: Sequence[Context] = (Context(),), kind: int = BIND) -> list[tuple[int, int]]:
        """(result, reason) of each context; Refused for a bind_nak or a fault."""
        self.call_id += 1
        self.send(build_bind(contexts, self.call_id, kind))
        pdu = self.receive()
        if pdu.kind == BIND_NAK:
            raise Refused(BIND_NAK, struct.unpack("<H", pdu.body[:2])[0])
        if pdu.kind == FAULT:
            parse_response(pdu)
        return parse_bind_ack(pdu)

    def call(
        self, argument: bytes, operation: int = ACTIVATE, context_id: int = 0, fragment: int = FRAGMENT
    ) -> tuple[bytes | None, int]:
        """One call in turn: its answer, if any, and its result."""
        self.send_call(argument, operation, context_id, fragment)
        return self.take_answer()

    def send_call(
        self, argument: bytes, operation: int = ACTIVATE, context_id: int = 0, fragment: int = FRAGMENT
    ) -> None:
        """The first half of :meth:`call`."""
        self.call_id += 1
        self.send(build_request(argument, self.call_id, operation, context_id, fragment))

    def take_answer(self) -> tuple[bytes | None, int]:
        """The second half of :meth:`call`."""
        return parse_response(self.receive())

    def call_many(self, arguments: Sequence[bytes]) -> list[tuple[bytes | None, int]]:
        """Pipelined calls: all sent, then all answers in the order of the calls, however they come."""
        first = self.call_id + 1
        self.call_id += len(arguments)
        self.send(b"".join(build_request(argument, first + i) for i, argument in enumerate(arguments)))
        answers = {pdu.call_id: pdu for pdu in (self.receive() for _ in arguments)}
        return [parse_response(answers[first + i]) for i in range(len(arguments))]
