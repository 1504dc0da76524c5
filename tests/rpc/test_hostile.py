"""The table of bad input in docs/rpc.md: every row there is a case here, with the octets that answer it."""

import re
import struct
from pathlib import Path
from typing import NamedTuple

import pytest

from kms_fast._core import RpcCounters, Session
from tests.rpc.pdus import (
    ACCEPTED,
    ACCESS_DENIED,
    ALTER_CONTEXT,
    BAD_STUB,
    BIND,
    BOUND,
    CO_CANCEL,
    FIRST,
    FOREIGN,
    INTERFACE,
    LAST,
    NO_ROOM,
    NOT_NDR,
    NOT_OURS,
    OBJECT_UUID,
    OP_RANGE,
    ORPHANED,
    PROTOCOL_ERROR,
    REQUEST,
    UNKNOWN_INTERFACE,
    WHOLE,
    alter_context_resp,
    argument_stub,
    bind_ack,
    bind_body,
    bind_nak,
    call_body,
    context,
    fault,
    fragment,
    pdu,
    request,
    syntax,
)

ONE = bind_body(context(0))
STUB = argument_stub(b"12345678")
GOOD = request(b"good", call_id=9)
MANY = [context(number) for number in range(100)]


class Case(NamedTuple):
    """What a client sends, what it gets, and the name of the refusal when the connection is closed."""

    sent: bytes
    answer: bytes
    closing: str | None = None
    bound: bool = False


def before(sent: bytes, answer: bytes, closing: str | None = None) -> Case:
    return Case(sent, answer, closing)


def after(sent: bytes, answer: bytes, closing: str | None = None) -> Case:
    return Case(sent, answer, closing, bound=True)


def big_endian(ptype: int, body: bytes) -> bytes:
    return pdu(ptype, body, call_id=7, drep=bytes(4), order=">")


# fmt: off
CASES: dict[str, list[Case]] = {
    "bind of another version": [
        before(pdu(BIND, ONE, version=(5, 1)), bind_nak(1, 4), "version"),
        before(pdu(BIND, ONE, version=(4, 0)), bind_nak(1, 4), "version"),
    ],
    "any other PDU of another version, or no DCE/RPC at all": [
        before(pdu(REQUEST, call_body(STUB), version=(4, 0)), b"", "version"),
        before(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"", "version"),
        before(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), b"", "version"),
        before(bytes(16), b"", "version"),
        after(pdu(REQUEST, call_body(STUB), version=(5, 1)), b"", "version"),
    ],
    "bind in another data representation": [
        before(big_endian(BIND, ONE), bind_nak(7, 0), "data representation"),
        before(pdu(BIND, ONE, drep=b"\x11\0\0\0"), bind_nak(1, 0), "data representation"),
        before(pdu(BIND, ONE, drep=b"\x10\1\0\0"), bind_nak(1, 0), "data representation"),
    ],
    "any other PDU in another data representation": [
        after(big_endian(REQUEST, call_body(STUB)), fault(7, PROTOCOL_ERROR), "data representation"),
    ],
    "bind with an authentication trailer": [
        before(pdu(BIND, ONE + bytes(24), auth=16), bind_nak(1, 8), "authentication"),
    ],
    "any other PDU with an authentication trailer": [
        after(pdu(REQUEST, call_body(STUB), auth=16), fault(1, ACCESS_DENIED), "authentication"),
        after(pdu(ALTER_CONTEXT, ONE, auth=65535), fault(1, ACCESS_DENIED), "authentication"),
        after(pdu(16, bytes(24), auth=16), fault(1, ACCESS_DENIED), "authentication"),
    ],
    "request, alter_context, co_cancel or orphaned before a bind was answered with bind_ack": [
        before(request(call_id=3), fault(3, PROTOCOL_ERROR), "out of turn"),
        before(pdu(ALTER_CONTEXT, ONE), fault(1, PROTOCOL_ERROR), "out of turn"),
        before(pdu(CO_CANCEL), fault(1, PROTOCOL_ERROR), "out of turn"),
        before(pdu(ORPHANED), fault(1, PROTOCOL_ERROR), "out of turn"),
    ],
    "second bind": [after(pdu(BIND, ONE, call_id=5), bind_nak(5, 0), "out of turn")],
    "PDU type that only a server or connectionless RPC sends, or that is unknown": [
        case(pdu(ptype, bytes(48)), fault(1, PROTOCOL_ERROR), "out of turn")
        for case in (before, after)
        for ptype in sorted({*range(256)} - {REQUEST, BIND, ALTER_CONTEXT, CO_CANCEL, ORPHANED})
    ],
    "bind with a fragment length below 28 or above 5,840": [
        before(pdu(BIND, ONE, size=size), bind_nak(1, 0), "fragment length") for size in (0, 15, 16, 27, 5841, 65535)
    ],
    "any other PDU with a fragment length below its least or above 5,840": [
        *(after(pdu(REQUEST, size=size), fault(1, PROTOCOL_ERROR), "fragment length") for size in (0, 23, 5841, 65535)),
        after(pdu(ALTER_CONTEXT, size=27), fault(1, PROTOCOL_ERROR), "fragment length"),
        after(pdu(CO_CANCEL, size=15), fault(1, PROTOCOL_ERROR), "fragment length"),
        after(pdu(ORPHANED, size=5841), fault(1, PROTOCOL_ERROR), "fragment length"),
    ],
    "bind in fragments, without contexts, with a context without transfer syntax, or whose list does not fill it": [
        before(pdu(BIND, body, flags=flags), bind_nak(1, 0), "malformed")
        for body, flags in [
            (ONE, FIRST), (ONE, LAST), (ONE, 0),
            (bind_body(), WHOLE),
            (bind_body(context(0)[:2] + b"\0\0" + INTERFACE), WHOLE),
            (bind_body(context(0), count=2), WHOLE),
            (bind_body(context(0), count=255), WHOLE),
            (bind_body(context(0), context(1), count=1), WHOLE),
            (bind_body(context(0)[:2] + b"\xff\0" + context(0)[4:]), WHOLE),
            (ONE[:-1], WHOLE), (ONE + b"\0", WHOLE),
        ]
    ],
    "alter_context with such a fault": [
        after(pdu(ALTER_CONTEXT, bind_body()), fault(1, PROTOCOL_ERROR), "malformed"),
        after(pdu(ALTER_CONTEXT, ONE, flags=FIRST), fault(1, PROTOCOL_ERROR), "malformed"),
        after(pdu(ALTER_CONTEXT, ONE[:-20]), fault(1, PROTOCOL_ERROR), "malformed"),
    ],
    "bind whose answer is larger than the client receives": [
        before(pdu(BIND, bind_body(*MANY, max_recv=1432)), bind_nak(1, 2), "too large"),
        before(pdu(BIND, bind_body(*MANY, max_recv=0)), bind_nak(1, 2), "too large"),
    ],
    "alter_context whose answer is larger than the client receives": [
        before(
            pdu(BIND, bind_body(context(0), max_recv=1432)) + pdu(ALTER_CONTEXT, bind_body(*MANY), call_id=2),
            bind_ack(ACCEPTED, max_xmit=1432) + fault(2, BAD_STUB), "too large",
        ),
    ],
    "context with another interface, or another version of ours": [
        before(pdu(BIND, bind_body(context(0, abstract))), bind_ack(NOT_OURS))
        for abstract in (FOREIGN, INTERFACE[:16] + b"\2\0\0\0", INTERFACE[:16] + b"\1\0\1\0", bytes(20))
    ],
    "context with none but other transfer syntaxes": [
        before(pdu(BIND, bind_body(context(0, INTERFACE, syntax("8a885d04-1ceb-11c9-9fe8-08002b104860", 1)))),
               bind_ack(NOT_NDR)),
        before(pdu(BIND, bind_body(context(0, INTERFACE, *[FOREIGN] * 255))), bind_ack(NOT_NDR)),
    ],
    "context beyond the eighth accepted one": [
        before(pdu(BIND, bind_body(*MANY)), bind_ack(*[ACCEPTED] * 8, *[NO_ROOM] * 92)),
        after(pdu(ALTER_CONTEXT, bind_body(*MANY[:9])), alter_context_resp(*[ACCEPTED] * 8, NO_ROOM)),
    ],
    "request for a context that was not accepted": [
        after(request(b"x", context_id=4), fault(2, UNKNOWN_INTERFACE, 4)),
        before(pdu(BIND, bind_body(context(0, FOREIGN))) + request(b"x"),
               bind_ack(NOT_OURS) + fault(2, UNKNOWN_INTERFACE)),
        after(fragment(STUB[:8], FIRST, context_id=4) + fragment(STUB[8:], LAST, context_id=4),
              fault(2, UNKNOWN_INTERFACE, 4)),
    ],
    "request for operation 1, or one above 2": [
        after(request(b"x", opnum=opnum), fault(2, OP_RANGE)) for opnum in (1, 3, 4, 63, 64, 65, 66, 65535)
    ],
    "request whose stub is too short, or whose lengths differ, exceed 4,096 or leave more than 7 octets": [
        after(request(stub=stub), fault(2, BAD_STUB))
        for stub in [
            b"", STUB[:4], STUB[:7], STUB[:-1], STUB + bytes(8),
            struct.pack("<II", 8, 7) + bytes(8), struct.pack("<II", 7, 8) + bytes(8),
            struct.pack("<II", 2**32 - 1, 2**32 - 1) + bytes(8), struct.pack("<II", 2**31, 2**31),
            argument_stub(bytes(4097)), argument_stub(bytes(5808)),
        ]
    ],
    "request that announces an object UUID and ends before it": [
        after(pdu(REQUEST, call_body(bytes(size)), flags=WHOLE | OBJECT_UUID), fault(1, PROTOCOL_ERROR), "malformed")
        for size in (0, 15)
    ],
    "fragment that does not begin a request when none is unfinished": [
        after(fragment(STUB, LAST), fault(2, PROTOCOL_ERROR), "fragment order"),
        after(fragment(STUB, 0), fault(2, PROTOCOL_ERROR), "fragment order"),
    ],
    "request that begins while another is unfinished": [
        after(fragment(STUB, FIRST) + fragment(STUB, FIRST), fault(2, PROTOCOL_ERROR), "fragment order"),
        after(fragment(STUB, FIRST) + request(b"x", call_id=3), fault(3, PROTOCOL_ERROR), "fragment order"),
    ],
    "fragment with another call, context or operation than the one before": [
        after(fragment(STUB, FIRST) + fragment(STUB, LAST, **other), fault(call_id, PROTOCOL_ERROR), "fragment order")
        for other, call_id in [({"call_id": 3}, 3), ({"context_id": 1}, 2), ({"opnum": 2}, 2)]
    ],
    "fragments with more than 4,111 octets of stub": [
        after(fragment(bytes(4112), FIRST), fault(2, BAD_STUB), "too large"),
        after(fragment(bytes(4104), FIRST) + fragment(bytes(8), LAST), fault(2, BAD_STUB), "too large"),
    ],
    "co_cancel or orphaned for no call we know": [after(pdu(CO_CANCEL), b""), after(pdu(ORPHANED), b"")],
}
# fmt: on


def documented_rows() -> set[str]:
    """First cells of the table under "Bad input" in docs/rpc.md."""
    text = (Path(__file__).parents[2] / "docs" / "rpc.md").read_text(encoding="utf-8")
    section = text.split("\n## Bad input\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \|", section, flags=re.M)
    return {row for row in rows if row != "what arrives" and not row.startswith("---")}


def test_documentation_has_the_same_rows() -> None:
    assert documented_rows() == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_its_answer(name: str) -> None:
    for case in CASES[name]:
        session = Session(RpcCounters())
        if case.bound:
            session.receive(BOUND)
            session.take_output()
        session.receive(case.sent)
        assert (session.take_output(), session.closing) == (case.answer, case.closing), case.sent[:64].hex()
        assert session.requests is None


@pytest.mark.parametrize("name", CASES)
def test_connection_goes_on_unless_closed(name: str) -> None:
    for case in CASES[name]:
        session = Session(RpcCounters())
        session.receive((BOUND if case.bound else b"") + case.sent)
        session.take_output()
        session.receive(GOOD + BOUND)
        if case.closing:
            assert (session.requests, session.take_output(), session.closing) == (None, b"", case.closing)
        elif session.requests is None:  # none of the offered contexts was accepted
            assert session.take_output() == fault(9, UNKNOWN_INTERFACE) + bind_nak(1, 0)
        else:
            assert session.requests == [(9, 0, 0, b"good")]
            assert session.take_output() == bind_nak(1, 0)


def test_bad_input_is_counted() -> None:
    counters = RpcCounters()
    closed: dict[str, int] = dict.fromkeys(counters.refusals, 0)
    for case in (case for cases in CASES.values() for case in cases):
        Session(counters).receive((BOUND if case.bound else b"") + case.sent)
        if case.closing:
            closed[case.closing] += 1
    answers = b"".join(case.answer for cases in CASES.values() for case in cases)
    assert counters.refusals == closed
    assert counters.faults_unknown_interface == answers.count(struct.pack("<I", UNKNOWN_INTERFACE))
    assert counters.faults_op_range == answers.count(struct.pack("<I", OP_RANGE))
    assert counters.faults_bad_stub == len(CASES[next(name for name in CASES if "leave more than 7" in name)])
    assert counters.naks == sum(case.answer[2:3] == b"\x0d" for cases in CASES.values() for case in cases)
    assert counters.foreign_binds == 3
