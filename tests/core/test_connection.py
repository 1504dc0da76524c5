"""A host's side of a connection, what it reads and sends."""

import struct
from pathlib import Path

from tests.batches import BatchMaker
from tests.hosts import make_realm
from tests.reference import rpc

SERVER_BUSY = 0xE04B0003
GET_REVOCATIONS = 2


def test_a_burst_of_queries_does_not_fill_the_memory(tmp_path: Path) -> None:
    """One read holds thousands of queries of 40 bytes, and a list may have 3,440."""
    maker = BatchMaker(make_realm(tmp_path, revoked=range(2, 402)))
    query = rpc.build_request(struct.pack("<BBHI", 1, 3, 0, 0), 1, GET_REVOCATIONS)
    maker.peer.send(query * 6_000)
    sent = maker.peer.receive()
    assert 64 << 10 < len(sent) < 512 << 10
    assert rpc.parse_response(rpc.Pdu.parse(sent[-36:])) == (None, SERVER_BUSY)
    # Once that is out, the next query is answered.
    maker.peer.send(query)
    assert len(maker.peer.receive()) > 3_440
