"""tshark dissects what we say without a complaint, and sees in it what docs/rpc.md says."""

import subprocess
from collections.abc import Callable, Sequence

import pytest

from kms_fast._core import RpcCounters, Session, build_bind, build_request
from tests.rpc.capture import Connection, write_capture
from tests.rpc.pdus import (
    ACCEPTED,
    ALTER_CONTEXT,
    BIND,
    CO_CANCEL,
    FOREIGN,
    INTERFACE,
    NDR,
    NDR64,
    ORPHANED,
    bind_ack,
    bind_body,
    context,
    features,
    pdu,
    request,
)

Dissect = Callable[..., list[list[str]]]


def talk(number: int, *reads: bytes, segment: int = 60000) -> Connection:
    """A connection on which the client sends these reads; calls are answered last first, as a host may."""
    connection, session = Connection(40000 + number), Session(RpcCounters())
    for data in reads:
        session.receive(data)
        for call_id, context_id, _, argument in reversed(session.requests or []):
            session.respond(call_id, context_id, argument or None, 0)
        if session.requests:
            session.requests.clear()
        connection.send(0, data, segment)
        connection.send(1, session.take_output(), segment)
    connection.close()
    return connection


def contexts() -> bytes:
    offered = [context(0), context(1, INTERFACE, NDR64), context(2, INTERFACE, features(3)), context(3, FOREIGN)]
    return pdu(BIND, bind_body(*offered))


CONNECTIONS = [
    talk(0, build_bind(1), build_request(2, 0, 0, bytes(220)), build_request(3, 0, 2, bytes(8)), request(call_id=4)),
    talk(1, build_bind(1), b"".join(build_request(n, 0, 0, bytes(200 + n)) for n in range(2, 30))),
    talk(2, build_bind(1), build_request(2, 0, 0, bytes(4096), 1432), build_request(3, 0, 0, bytes(512), 64)),
    talk(3, pdu(BIND, bind_body(context(0), max_recv=1432)), build_request(2, 0, 0, bytes(4096))),
    talk(4, contexts(), pdu(ALTER_CONTEXT, bind_body(context(7, INTERFACE, NDR64, NDR)), call_id=2)),
    talk(
        5, build_bind(1), request(b"x", opnum=1), request(b"x", context_id=9, call_id=3), request(stub=b"", call_id=4)
    ),
    talk(6, pdu(BIND, bind_body(context(0)), version=(5, 1))),
    talk(7, build_bind(1), build_bind(2)),
    talk(8, build_bind(1), pdu(CO_CANCEL, call_id=2) + pdu(ORPHANED, call_id=2) + request(b"x", call_id=3)),
    talk(9, build_bind(1), build_request(2, 0, 0, bytes(220)), segment=7),
]
# What tshark remarks on answers that refuse and on a request for a context that nobody accepted: meant to be there.
REMARKS = (
    "Last fragment, reassembled",
    "Fault: ",
    "Bind not acknowledged",
    "No bind info for interface Context ID 9",
)


@pytest.fixture(scope="module")
def dissect(require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Dissect:
    """Call it with field names; gives their values for each packet that holds PDUs, a filter narrows them."""
    tshark = require_tool("tshark")
    capture = tmp_path_factory.mktemp("tshark") / "talk.pcap"

    def run(*fields: str, where: str, connections: Sequence[Connection] = CONNECTIONS) -> list[list[str]]:
        write_capture(capture, connections)
        options = [option for field in fields for option in ("-e", field)]
        command = [tshark, "-r", str(capture), "-d", "tcp.port==1688,dcerpc", "-Y", where, "-T", "fields", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return [line.split("\t") for line in done.stdout.splitlines()]

    return run


def test_everything_is_dissected(dissect: Dissect) -> None:
    segments = dissect("frame.number", where="tcp.len > 0")
    assert len(segments) > len(CONNECTIONS)
    assert dissect("frame.number", where="tcp.len > 0 && !dcerpc && !tcp.segment_data && !tcp.reassembled_in") == []


def test_nothing_is_malformed(dissect: Dissect) -> None:
    assert dissect("frame.number", where="_ws.malformed || _ws.short || _ws.unreassembled") == []
    remarks = [message for (message,) in dissect("_ws.expert.message", where="dcerpc && _ws.expert.group")]
    assert [remark for remark in remarks if not remark.startswith(REMARKS)] == []
    assert sum(remark.startswith("Fault: ") for remark in remarks) == 3
    assert sum(remark.startswith("Bind not acknowledged") for remark in remarks) == 2


def test_malformed_answer_would_be_seen(dissect: Dissect) -> None:
    connection = Connection(50000)
    connection.send(0, build_bind(1))
    answer = bind_ack(ACCEPTED)
    connection.send(1, answer[:32] + b"\2" + answer[33:])  # announces two results, holds one
    assert dissect("frame.number", where="_ws.malformed", connections=[connection]) != []


def test_results_of_contexts_are_seen(dissect: Dissect) -> None:
    results = dissect("dcerpc.cn_num_results", "dcerpc.cn_ack_result", where="dcerpc.pkt_type in {12, 15}")
    assert ["4", "0,2,3,2"] in results
    assert all(set(result.split(",")) == {"0"} for number, result in results if number != "4")


def test_answers_are_matched_to_requests(dissect: Dissect) -> None:
    answers = dissect("dcerpc.cn_call_id", "dcerpc.request_in", where="dcerpc.pkt_type in {2, 3}")
    assert all(len(call_ids.split(",")) == len(requests.split(",")) for call_ids, requests in answers)
    assert ",".join(str(n) for n in range(29, 1, -1)) in [call_ids for call_ids, _ in answers]


def test_fragments_are_put_together(dissect: Dissect) -> None:
    lengths = [length for (length,) in dissect("dcerpc.reassembled.length", where="dcerpc.reassembled.length")]
    assert lengths == [str(8 + 4096), str(8 + 512), str(16 + 4096)]
