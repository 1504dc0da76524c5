"""How a stream is cut into reads never changes what comes of it, on either side and whatever the stream holds."""

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kms_fast._core import ClientSession, ProtocolError, RpcCounters, Session
from tests.rpc.pdus import ACCEPTED, BOUND, FIRST, LAST, argument_stub, bind_ack, bind_nak, fault, fragment, response
from tests.rpc.test_hostile import CASES, GOOD

STUB = argument_stub(bytes(range(200)))
FRAGMENTED = fragment(STUB[:16], FIRST) + fragment(STUB[16:96], 0) + fragment(STUB[96:], LAST)
SENT = [BOUND, GOOD, FRAGMENTED, *(case.sent for cases in CASES.values() for case in cases)]
STREAM_OF_CLIENT = [BOUND, BOUND + GOOD + FRAGMENTED]
ANSWERS = [bind_ack(ACCEPTED), response(b"abc", 0), response(None, 5), fault(2, 5), bind_nak(1, 4)]
FRAGMENTED_ANSWER = [
    response(b"a" * 20, 0)[:3] + flags + response(b"a" * 20, 0)[4:] for flags in (b"\x01", b"\x00", b"\x02", b"\x03")
]


@st.composite
def mutated(draw: st.DrawFn, pdus: list[bytes]) -> bytes:
    """One of these PDUs, mostly with some octets changed or cut off."""
    data = bytearray(draw(st.sampled_from(pdus)))
    for _ in range(draw(st.integers(0, 2))):
        data[draw(st.integers(0, min(len(data) - 1, 80)))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data)


def streams(first: list[bytes], pdus: list[bytes]) -> st.SearchStrategy[bytes]:
    parts = st.lists(st.sampled_from(pdus) | mutated(pdus) | st.binary(max_size=40), max_size=6)
    return st.tuples(st.sampled_from([b"", *first]), parts).map(lambda stream: stream[0] + b"".join(stream[1]))


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def serve(reads: list[bytes]) -> tuple[Any, ...]:
    counters = RpcCounters()
    session = Session(counters)
    output = b""
    for data in reads:
        session.receive(data)
        output += session.take_output()
    counted = (counters.pdus, counters.binds, counters.requests, counters.naks, counters.refusals)
    return session.requests, output, session.closing, session.foreign_interface, counted


def read(reads: list[bytes]) -> tuple[Any, ...]:
    client = ClientSession()
    outcomes: list[Any] = []
    try:
        for data in reads:
            client.receive(data)
    except ProtocolError as error:
        outcomes.append(str(error))
    return client.take_outcomes(), outcomes


@given(data=streams(STREAM_OF_CLIENT, SENT), cuts=st.lists(st.integers(0, 2**16), max_size=8))
def test_server_answers_any_split_alike(data: bytes, cuts: list[int]) -> None:
    assert serve(cut(data, cuts)) == serve([data])


@given(data=streams(STREAM_OF_CLIENT, SENT))
def test_server_answers_octet_by_octet_alike(data: bytes) -> None:
    assert serve([data[n : n + 1] for n in range(len(data))]) == serve([data])


@given(data=streams(ANSWERS[:1], ANSWERS + FRAGMENTED_ANSWER), cuts=st.lists(st.integers(0, 2**16), max_size=8))
def test_client_reads_any_split_alike(data: bytes, cuts: list[int]) -> None:
    assert read(cut(data, cuts)) == read([data])


@given(data=streams(ANSWERS[:1], ANSWERS + FRAGMENTED_ANSWER))
def test_client_reads_octet_by_octet_alike(data: bytes) -> None:
    assert read([data[n : n + 1] for n in range(len(data))]) == read([data])


def test_every_case_split_at_every_octet() -> None:
    for cases in CASES.values():
        for case in cases[:12]:
            data = (BOUND if case.bound else b"") + case.sent
            whole = serve([data])
            for place in range(min(len(data), 200)):
                assert serve([data[:place], data[place:]]) == whole
