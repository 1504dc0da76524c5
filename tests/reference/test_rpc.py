"""The reference's PDUs and the core's sessions understand each other, in both directions."""

import pytest

from kms_fast import _core
from tests.reference import rpc
from tests.reference.rpc import Context, Pdu

REQUEST, ANSWER = bytes(range(220)), bytes(1047)


def split(stream: bytes) -> list[Pdu]:
    pdus = []
    while stream:
        size = int.from_bytes(stream[8:10], "little")
        pdus.append(Pdu.parse(stream[:size]))
        stream = stream[size:]
    return pdus


def serve(*sent: bytes) -> tuple[_core.Session, list[Pdu]]:
    """A host's session that received these bytes, and what it answered."""
    session = _core.Session(_core.RpcCounters())
    session.receive(b"".join(sent))
    return session, split(session.take_output())


def test_core_accepts_the_bind() -> None:
    _, [ack] = serve(rpc.build_bind())
    assert ack.kind == rpc.BIND_ACK
    assert rpc.parse_bind_ack(ack) == [(0, 0)]


def test_core_answers_each_context_on_its_own() -> None:
    foreign = rpc.syntax("12345678-1234-1234-1234-123456789abc", 1, 0)
    contexts = [
        Context(0, foreign),
        Context(1, rpc.INTERFACE, (rpc.NDR64,)),
        Context(2, rpc.INTERFACE, (rpc.FEATURES,)),
        Context(3, rpc.INTERFACE, (rpc.NDR64, rpc.NDR)),
        Context(4, rpc.syntax("f96e4d9c-c270-4994-be5f-bbef9f3235ea", 1, 1)),
    ]
    _, [ack] = serve(rpc.build_bind(contexts))
    assert rpc.parse_bind_ack(ack) == [(2, 1), (2, 2), (3, 2), (0, 0), (2, 1)]
    _, [_, response] = serve(rpc.build_bind(contexts), rpc.build_bind([Context(7)], kind=rpc.ALTER_CONTEXT))
    assert (response.kind, rpc.parse_bind_ack(response)) == (rpc.ALTER_CONTEXT_RESP, [(0, 0)])


@pytest.mark.parametrize("fragment", [32, 64, 128, rpc.FRAGMENT])
@pytest.mark.parametrize("answer", [None, b"", ANSWER, ANSWER[:644]])
def test_core_serves_a_call(fragment: int, answer: bytes | None) -> None:
    session, _ = serve(rpc.build_bind(), rpc.build_request(REQUEST, 9, fragment=fragment))
    assert session.requests is not None
    [(call_id, context_id, operation, argument)] = session.requests
    assert (call_id, context_id, operation, argument) == (9, 0, rpc.ACTIVATE, REQUEST)
    session.respond(call_id, context_id, answer, 0xE04B0001)
    [response] = split(session.take_output())
    assert rpc.parse_response(response) == (answer, 0xE04B0001)


def test_core_answers_with_faults() -> None:
    _, pdus = serve(rpc.build_bind(), rpc.build_request(REQUEST, 1, operation=1), rpc.build_request(REQUEST, 2, 0, 5))
    for pdu, status in zip(pdus[1:], (0x1C010002, 0x1C010003), strict=True):
        with pytest.raises(rpc.Refused) as refused:
            rpc.parse_response(pdu)
        assert (refused.value.kind, refused.value.status) == (rpc.FAULT, status)


def test_the_request_has_the_core_client_s_bytes() -> None:
    assert rpc.build_request(REQUEST, 7) == _core.build_request(7, 0, 0, REQUEST)
    assert len(rpc.build_request(REQUEST, 7)) == 252
    # The core's bind differs in one flag, concurrent multiplexing.
    assert Pdu.parse(_core.build_bind(1))._replace(flags=3).to_bytes() == rpc.build_bind()


def test_core_client_understands_every_answer() -> None:
    bind, request = Pdu.parse(rpc.build_bind()), rpc.build_request(REQUEST, 2)
    assert rpc.parse_request(Pdu.parse(request)) == (rpc.ACTIVATE, REQUEST)
    before = [
        (rpc.build_bind_ack(bind), _core.Accepted(1, rpc.FRAGMENT)),
        (rpc.build_bind_ack(bind, [(2, 1, bytes(20))]), _core.Rejected(1, 2, 1)),
        (rpc.build_bind_nak(bind, 4), _core.BindNak(1, 4)),
    ]
    after = [
        (rpc.build_fault(2, 0x1C010002), _core.Fault(2, 0x1C010002)),
        (rpc.build_response(2, ANSWER, 0), _core.Response(2, ANSWER, 0)),
        (rpc.build_response(2, None, 0xE04B0003), _core.Response(2, None, 0xE04B0003)),
    ]
    for sent, accepted in before:
        session = _core.ClientSession()
        session.receive(sent)
        assert session.take_outcomes() == [accepted]
    for sent, outcome in after:
        session = _core.ClientSession()
        session.receive(before[0][0] + sent)
        assert session.take_outcomes() == [before[0][1], outcome]
