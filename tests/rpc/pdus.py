"""DCE/RPC PDUs in plain Python, written from docs/rpc.md, valid and otherwise: what the tests send and expect."""

import struct
from collections.abc import Sequence
from uuid import UUID

REQUEST, RESPONSE, FAULT, BIND, BIND_ACK, BIND_NAK, ALTER_CONTEXT, ALTER_CONTEXT_RESP = 0, 2, 3, 11, 12, 13, 14, 15
CO_CANCEL, ORPHANED = 18, 19
FIRST, LAST, WHOLE, CONC_MPX, DID_NOT_EXECUTE, OBJECT_UUID = 1, 2, 3, 0x10, 0x20, 0x80

ACCESS_DENIED, BAD_STUB = 0x5, 0x6F7
OP_RANGE, UNKNOWN_INTERFACE, PROTOCOL_ERROR = 0x1C010002, 0x1C010003, 0x1C01000B


def syntax(uuid: str, major: int, minor: int = 0) -> bytes:
    return UUID(uuid).bytes_le + struct.pack("<HH", major, minor)


INTERFACE = syntax("f96e4d9c-c270-4994-be5f-bbef9f3235ea", 1)
FOREIGN = syntax("6a2f3c1e-0000-4000-8000-0123456789ab", 1)  # made up
NDR = syntax("8a885d04-1ceb-11c9-9fe8-08002b104860", 2)
NDR64 = syntax("71710533-beba-4937-8319-b5dbef9ccc36", 1)
NO_SYNTAX = bytes(20)


def features(flags: int) -> bytes:
    """Transfer syntax of bind-time feature negotiation (MS-RPCE 2.2.2.14)."""
    return syntax("6cb71c2c-9812-4540-0000-000000000000", 1)[:8] + struct.pack("<QHH", flags, 1, 0)


def pdu(
    ptype: int,
    body: bytes = b"",
    *,
    call_id: int = 1,
    flags: int = WHOLE,
    version: tuple[int, int] = (5, 0),
    drep: bytes = b"\x10\0\0\0",
    size: int | None = None,
    auth: int = 0,
    order: str = "<",
) -> bytes:
    size = 16 + len(body) if size is None else size
    return bytes([*version, ptype, flags]) + drep + struct.pack(order + "HHI", size, auth, call_id) + body


def context(context_id: int, abstract: bytes = INTERFACE, *transfer: bytes) -> bytes:
    transfer = transfer or (NDR,)
    return struct.pack("<HBx", context_id, len(transfer)) + abstract + b"".join(transfer)


def bind_body(
    *contexts: bytes, max_xmit: int = 5840, max_recv: int = 5840, group: int = 0, count: int | None = None
) -> bytes:
    count = len(contexts) if count is None else count
    return struct.pack("<HHIBxxx", max_xmit, max_recv, group, count) + b"".join(contexts)


BOUND = pdu(BIND, bind_body(context(0)))


def call_body(body: bytes, context_id: int = 0, opnum: int = 0, hint: int | None = None) -> bytes:
    return struct.pack("<IHH", len(body) if hint is None else hint, context_id, opnum) + body


def argument_stub(argument: bytes) -> bytes:
    return struct.pack("<II", len(argument), len(argument)) + argument


def request(
    argument: bytes = b"", *, call_id: int = 2, context_id: int = 0, opnum: int = 0, stub: bytes | None = None
) -> bytes:
    stub = argument_stub(argument) if stub is None else stub
    return pdu(REQUEST, call_body(stub, context_id, opnum), call_id=call_id)


def fragment(stub: bytes, flags: int, *, call_id: int = 2, context_id: int = 0, opnum: int = 0) -> bytes:
    return pdu(REQUEST, call_body(stub, context_id, opnum), call_id=call_id, flags=flags)


def fault(call_id: int, status: int, context_id: int = 0) -> bytes:
    body = call_body(struct.pack("<II", status, 0), context_id, hint=0)
    return pdu(FAULT, body, call_id=call_id, flags=WHOLE | DID_NOT_EXECUTE)


def bind_nak(call_id: int, reason: int) -> bytes:
    return pdu(BIND_NAK, struct.pack("<HBBB", reason, 1, 5, 0), call_id=call_id)


ACCEPTED = (0, 0, NDR)
NOT_OURS = (2, 1, NO_SYNTAX)
NOT_NDR = (2, 2, NO_SYNTAX)
NO_ROOM = (2, 3, NO_SYNTAX)


def bind_ack(
    *results: tuple[int, int, bytes],
    call_id: int = 1,
    flags: int = WHOLE,
    max_xmit: int = 5840,
    max_recv: int = 5840,
    group: int = 1,
    address: bytes = b"1688\0",
    ptype: int = BIND_ACK,
) -> bytes:
    head = struct.pack("<HHIH", max_xmit, max_recv, group, len(address)) + address
    head += bytes(-len(head) % 4)
    return pdu(ptype, head + context_results(results), call_id=call_id, flags=flags)


def context_results(results: Sequence[tuple[int, int, bytes]]) -> bytes:
    return struct.pack("<Bxxx", len(results)) + b"".join(struct.pack("<HH20s", *result) for result in results)


def alter_context_resp(*results: tuple[int, int, bytes], call_id: int = 1) -> bytes:
    return bind_ack(*results, call_id=call_id, address=b"", ptype=ALTER_CONTEXT_RESP)


def answer_stub(answer: bytes | None, result: int) -> bytes:
    if answer is None:
        return struct.pack("<III", 0, 0, result)
    size = len(answer)
    return struct.pack("<III", size, 0x00020000, size) + answer + bytes(-size % 4) + struct.pack("<I", result)


def response(answer: bytes | None, result: int, *, call_id: int = 2, context_id: int = 0) -> bytes:
    return pdu(RESPONSE, call_body(answer_stub(answer, result), context_id), call_id=call_id)
