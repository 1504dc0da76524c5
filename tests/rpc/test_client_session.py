"""The client side: outcomes, and what it refuses of a server (docs/rpc.md)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms_fast._core import (
    Accepted,
    BindNak,
    ClientSession,
    Fault,
    ProtocolError,
    Rejected,
    Response,
    RpcCounters,
    Session,
    build_bind,
    build_request,
)
from tests.rpc.pdus import (
    ACCEPTED,
    FIRST,
    LAST,
    NDR64,
    NOT_OURS,
    PROTOCOL_ERROR,
    RESPONSE,
    alter_context_resp,
    answer_stub,
    bind_ack,
    bind_nak,
    call_body,
    fault,
    pdu,
    response,
)

STUB = answer_stub(b"12345678", 0)
NULL = answer_stub(None, 0)


def make_client() -> ClientSession:
    client = ClientSession()
    client.receive(bind_ack(ACCEPTED))
    client.take_outcomes()
    return client


def part(stub: bytes, flags: int, call_id: int = 2) -> bytes:
    return pdu(RESPONSE, call_body(stub), call_id=call_id, flags=flags)


@pytest.mark.parametrize(
    ("sent", "outcome"),
    [
        (bind_ack(ACCEPTED, call_id=4), Accepted(4, 5840)),
        (bind_ack(ACCEPTED, max_recv=1432, address=b""), Accepted(1, 1432)),
        (bind_ack(ACCEPTED, max_recv=65535, address=bytes(100)), Accepted(1, 5840)),
        (bind_ack(NOT_OURS), Rejected(1, 2, 1)),
        (bind_nak(3, 4), BindNak(3, 4)),
        (bind_nak(3, 2)[:8] + b"\x12\0" + bind_nak(3, 2)[10:18], BindNak(3, 2)),
        (fault(1, PROTOCOL_ERROR), Fault(1, PROTOCOL_ERROR)),
    ],
)
def test_answer_to_bind(sent: bytes, outcome: object) -> None:
    client = ClientSession()
    client.receive(sent)
    assert client.take_outcomes() == [outcome]
    assert client.take_outcomes() == []


@pytest.mark.parametrize("answer", [None, b"", b"a", b"abcd", bytes(4096)])
def test_response(answer: bytes | None) -> None:
    client = make_client()
    client.receive(response(answer, 7) + fault(3, 5))
    assert client.take_outcomes() == [Response(2, answer, 7), Fault(3, 5)]


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "does not speak DCE/RPC"),
        (pdu(RESPONSE, call_body(STUB), drep=b"\0\0\0\0"), "data representation"),
        (pdu(RESPONSE, call_body(STUB), auth=16), "authentication"),
        (pdu(RESPONSE, call_body(STUB), size=15), "length of 15"),
        (pdu(RESPONSE, call_body(STUB), size=5841), "length of 5841"),
        (pdu(RESPONSE, bytes(7)), "too short"),
        (bind_ack(ACCEPTED), "type 12 is not expected after"),
        (bind_nak(1, 0), "type 13 is not expected after"),
        (alter_context_resp(ACCEPTED), "type 15 is not expected after"),
        (pdu(17), "type 17 is not expected after"),
        (pdu(3, bytes(11)), "no status"),
        (part(STUB, 0), "out of order"),
        (part(STUB, LAST), "out of order"),
        (part(STUB, FIRST) + part(STUB, FIRST), "out of order"),
        (part(STUB, FIRST) + part(STUB, LAST, 3), "mixed"),
        (part(bytes(4120), FIRST), "too large"),
        *(
            (part(stub, FIRST | LAST), "malformed")
            for stub in [
                b"",
                NULL[:11],
                NULL + bytes(8),
                b"\1" + NULL[1:],
                STUB[:-1],
                STUB + bytes(8),
                STUB[:8] + b"\7" + STUB[9:],
                b"\x09" + STUB[1:],
                b"\xff" * 24,
                answer_stub(bytes(4097), 0),
            ]
        ),
    ],
)
def test_malformed_answer_is_refused(sent: bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        make_client().receive(sent)


@pytest.mark.parametrize(
    "sent",
    [
        response(b"a", 0),
        bind_ack(),
        bind_ack(ACCEPTED, ACCEPTED),
        bind_ack((0, 0, NDR64)),
        bind_ack(ACCEPTED, max_recv=1431),
        bind_ack(ACCEPTED)[:8] + b"\x3b\0" + bind_ack(ACCEPTED)[10:-1],
        bind_ack(ACCEPTED)[:24] + b"\xff\xff" + bind_ack(ACCEPTED)[26:],
        pdu(13, b"\0"),
    ],
)
def test_malformed_answer_to_bind_is_refused(sent: bytes) -> None:
    with pytest.raises(ProtocolError):
        ClientSession().receive(sent)


def test_fault_ends_a_response_in_fragments() -> None:
    client = make_client()
    client.receive(part(STUB[:8], FIRST) + fault(2, 5) + response(b"a", 0, call_id=3))
    assert client.take_outcomes() == [Fault(2, 5), Response(3, b"a", 0)]


@given(
    calls=st.lists(
        st.tuples(st.binary(max_size=4096), st.none() | st.binary(max_size=4096), st.integers(0, 2**32 - 1)), max_size=4
    ),
    max_fragment=st.integers(32, 5840),
)
def test_client_and_server_understand_each_other(
    calls: list[tuple[bytes, bytes | None, int]], max_fragment: int
) -> None:
    client, server = ClientSession(), Session(RpcCounters())
    server.receive(build_bind(1))
    client.receive(server.take_output())
    assert client.take_outcomes() == [Accepted(1, 5840)]
    for call_id, (argument, _, _) in enumerate(calls):
        server.receive(build_request(call_id, 0, 0, argument, max_fragment))
    assert [request[3] for request in server.requests or []] == [argument for argument, _, _ in calls]
    for call_id, (_, answer, result) in reversed(list(enumerate(calls))):
        server.respond(call_id, 0, answer, result)
    client.receive(server.take_output())
    answers = [Response(call_id, answer, result) for call_id, (_, answer, result) in enumerate(calls)]
    assert client.take_outcomes() == answers[::-1]
