"""A host's side of a connection, on a transport that only notes what it is told."""

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
    maker.connection.data_received(query * 6_000)
    assert sum(map(len, maker.transport.written)) < 512 << 10
    sent, refused = b"".join(maker.transport.written), rpc.Pdu.parse(maker.transport.written[-1][-36:])
    assert rpc.parse_response(refused) == (None, SERVER_BUSY)
    # Once that is out, the next query is answered.
    assert len(sent) > 64 << 10
    maker.transport.written.clear()
    maker.connection.data_received(query)
    assert len(maker.transport.written[0]) > 3_440
