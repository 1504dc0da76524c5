"""The server side: binds, contexts, requests, fragments, answers (docs/rpc.md)."""

import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms_fast._core import RpcCounters, Session, build_bind, build_request
from tests.rpc.pdus import (
    ACCEPTED,
    ALTER_CONTEXT,
    BIND,
    BOUND,
    CO_CANCEL,
    CONC_MPX,
    FIRST,
    FOREIGN,
    INTERFACE,
    LAST,
    NDR,
    NDR64,
    NO_SYNTAX,
    NOT_NDR,
    NOT_OURS,
    OBJECT_UUID,
    ORPHANED,
    REQUEST,
    WHOLE,
    alter_context_resp,
    answer_stub,
    argument_stub,
    bind_ack,
    bind_body,
    call_body,
    context,
    features,
    fragment,
    pdu,
    request,
    response,
)


def make_session(*, bound: bool = True) -> Session:
    session = Session(RpcCounters())
    if bound:
        session.receive(BOUND)
        session.take_output()
    return session


def exchange(session: Session, data: bytes) -> bytes:
    session.receive(data)
    return session.take_output()


def test_bind_is_acknowledged_with_port_and_group() -> None:
    session = Session(RpcCounters(), "49152", 0x01020304)
    assert exchange(session, BOUND) == bind_ack(ACCEPTED, address=b"49152\0", group=0x01020304)
    assert session.closing is None


def test_port_and_group_are_checked() -> None:
    with pytest.raises(ValueError, match="5 digits"):
        Session(RpcCounters(), "165536")
    with pytest.raises(ValueError, match="nonzero"):
        Session(RpcCounters(), "1688", 0)


def test_group_that_the_client_names_is_kept() -> None:
    assert exchange(make_session(bound=False), pdu(BIND, bind_body(context(0), group=77))) == bind_ack(
        ACCEPTED, group=77
    )


def test_each_context_is_answered_on_its_own() -> None:
    contexts = [
        context(0, FOREIGN),
        context(1, INTERFACE, NDR64),
        context(2, INTERFACE, NDR64, NDR),
        context(3, INTERFACE, features(3)),
        context(2),
    ]
    answer = bind_ack(NOT_OURS, NOT_NDR, ACCEPTED, (3, 2, NO_SYNTAX), ACCEPTED, call_id=6)
    session = make_session(bound=False)
    assert exchange(session, pdu(BIND, bind_body(*contexts), call_id=6)) == answer
    assert session.foreign_interface is not None
    assert UUID(bytes_le=session.foreign_interface) == UUID(bytes_le=FOREIGN[:16])
    exchange(session, request(b"a", context_id=2))
    assert session.requests == [(2, 2, 0, b"a")]


@pytest.mark.parametrize(("asked", "granted"), [(0, 0), (1, 0), (2, 2), (3, 2), (0xFF, 2)])
def test_feature_negotiation_grants_what_we_support(asked: int, granted: int) -> None:
    answer = bind_ack((3, granted, NO_SYNTAX), ACCEPTED)
    session = make_session(bound=False)
    assert exchange(session, pdu(BIND, bind_body(context(0, FOREIGN, features(asked)), context(1)))) == answer
    assert session.foreign_interface is None


def test_foreign_binds_are_counted_once_each() -> None:
    counters = RpcCounters()
    for _ in range(3):
        Session(counters).receive(pdu(BIND, bind_body(context(0, FOREIGN), context(1, FOREIGN), context(2))))
    assert counters.foreign_binds == 3
    assert counters.binds == 3


def test_multiplexing_is_granted_when_asked_for() -> None:
    session = make_session(bound=False)
    assert exchange(session, pdu(BIND, bind_body(context(0)), flags=WHOLE | CONC_MPX))[3] == WHOLE | CONC_MPX


@pytest.mark.parametrize(("offered", "agreed"), [(0, 1432), (1431, 1432), (1432, 1432), (4280, 4280), (65535, 5840)])
def test_fragment_sizes_are_agreed(offered: int, agreed: int) -> None:
    session = make_session(bound=False)
    body = bind_body(context(0), max_xmit=offered, max_recv=offered)
    assert exchange(session, pdu(BIND, body)) == bind_ack(ACCEPTED, max_xmit=agreed, max_recv=agreed)
    assert session.max_xmit_frag == agreed


def test_largest_bind_is_answered() -> None:
    contexts = [context(number, FOREIGN) for number in range(132)]
    bind = pdu(BIND, bind_body(*contexts))
    assert len(bind) == 5836
    assert exchange(make_session(bound=False), bind) == bind_ack(*[NOT_OURS] * 132)


def test_alter_context_adds_contexts() -> None:
    session = make_session()
    altered = pdu(ALTER_CONTEXT, bind_body(context(5), context(6, FOREIGN)), call_id=3)
    assert exchange(session, altered) == alter_context_resp(ACCEPTED, NOT_OURS, call_id=3)
    session.receive(request(b"a", context_id=5) + request(b"b", call_id=4))
    assert session.requests == [(2, 5, 0, b"a"), (4, 0, 0, b"b")]


def test_pipelined_requests_are_handed_on_in_order() -> None:
    session = make_session()
    session.receive(b"".join(request(bytes([n]), call_id=n, opnum=n % 2 * 2) for n in range(50)))
    assert session.requests == [(n, 0, n % 2 * 2, bytes([n])) for n in range(50)]
    assert session.take_output() == b""


def test_call_id_may_be_used_again() -> None:
    session = make_session()
    session.receive(request(b"a") + request(b"b"))
    assert session.requests == [(2, 0, 0, b"a"), (2, 0, 0, b"b")]


@pytest.mark.parametrize("size", [0, 1, 220, 4095, 4096])
@pytest.mark.parametrize("padding", [0, 7])
def test_argument_is_unwrapped(size: int, padding: int) -> None:
    session = make_session()
    argument = bytes(range(256)) * 16
    session.receive(request(stub=argument_stub(argument[:size]) + bytes(padding)))
    assert session.requests == [(2, 0, 0, argument[:size])]


def test_object_uuid_is_skipped() -> None:
    session = make_session()
    session.receive(pdu(REQUEST, call_body(bytes(16) + argument_stub(b"abc")), flags=WHOLE | OBJECT_UUID))
    assert session.requests == [(1, 0, 0, b"abc")]


@given(argument=st.binary(max_size=4096), max_fragment=st.integers(32, 5840))
def test_fragments_are_put_together(argument: bytes, max_fragment: int) -> None:
    session = make_session()
    pdus = build_request(7, 0, 2, argument, max_fragment)
    session.receive(pdus + request(b"next"))
    assert session.requests == [(7, 0, 2, argument), (2, 0, 0, b"next")]


def test_other_pdus_may_come_between_fragments() -> None:
    session = make_session()
    stub = argument_stub(b"12345678")
    between = pdu(ALTER_CONTEXT, bind_body(context(3))) + pdu(CO_CANCEL, call_id=2) + pdu(ORPHANED, call_id=8)
    session.receive(fragment(stub[:8], FIRST) + between + fragment(stub[8:], LAST))
    assert session.requests == [(2, 0, 0, b"12345678")]


def test_orphaned_forgets_fragments() -> None:
    session = make_session()
    session.receive(fragment(bytes(8), FIRST) + pdu(ORPHANED, call_id=2) + request(b"a"))
    assert session.requests == [(2, 0, 0, b"a")]
    assert session.closing is None


@pytest.mark.parametrize("answer", [None, b"", b"a", b"ab", b"abc", b"abcd", bytes(1048)])
def test_response_in_one_fragment(answer: bytes | None) -> None:
    session = make_session()
    session.respond(2, 0, answer, 0xC004F041)
    assert session.take_output() == response(answer, 0xC004F041)
    assert session.take_output() == b""


def test_answer_is_bounded() -> None:
    with pytest.raises(ValueError, match="at most 4096"):
        make_session().respond(2, 0, bytes(4097), 0)


def test_response_is_cut_to_what_the_client_receives() -> None:
    session = make_session(bound=False)
    exchange(session, pdu(BIND, bind_body(context(0), max_recv=1437)))
    session.respond(9, 0, bytes(range(256)) * 16, 5)
    output = session.take_output()
    parts, flags, hints = [], [], []
    while output:
        size, auth, call_id, hint = struct.unpack_from("<HHII", output, 8)
        assert (size <= 1437, auth, call_id) == (True, 0, 9)
        parts.append(output[24:size])
        flags.append(output[3])
        hints.append(hint)
        output = output[size:]
    assert b"".join(parts) == answer_stub(bytes(range(256)) * 16, 5)
    assert flags == [FIRST, 0, LAST]
    assert all(len(part) % 8 == 0 for part in parts[:-1])
    assert hints == [sum(map(len, parts[n:])) for n in range(3)]


def test_request_and_bind_are_the_documented_octets() -> None:
    assert build_bind(1) == pdu(BIND, bind_body(context(0)), flags=WHOLE | CONC_MPX)
    assert build_request(2, 0, 0, b"abcde") == request(b"abcde")
    assert len(build_request(2, 0, 0, bytes(220))) == 252


def test_arguments_of_build_request_are_checked() -> None:
    with pytest.raises(ValueError, match="at most 4096"):
        build_request(1, 0, 0, bytes(4097))
    with pytest.raises(ValueError, match="32 to 5840"):
        build_request(1, 0, 0, b"", 31)


def test_idle_session_is_small() -> None:
    assert Session.__basicsize__ <= 256
