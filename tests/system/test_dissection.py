"""tshark dissects what a real host and the reference's client say to each other, without a complaint."""

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hosts import RunningHost
from tests.reference import rpc
from tests.reference.certificate import build_query
from tests.reference.rpc import Context, Pdu
from tests.rpc.capture import Connection, write_capture
from tests.system.asker import Asker

FOREIGN = rpc.syntax("6a2f3c1e-0000-4000-8000-0123456789ab", 1, 0)
# What tshark remarks on answers that refuse, and on fragments put together; each of them is meant to be there.
MEANT = ("Last fragment, reassembled", "Fault: ", "Bind not acknowledged", "No bind info for interface Context ID 9")
Tshark = Callable[..., list[str]]


def talk(host: RunningHost, number: int, *rounds: tuple[bytes, int]) -> Connection:
    """One connection: sends the bytes of each round, and waits for that many PDUs before the next."""
    recorded = Connection(41_000 + number)
    with socket.create_connection(host.address, timeout=30) as connection:
        for sent, expected in rounds:
            connection.sendall(sent)
            recorded.send(0, sent)
            for _ in range(expected):
                pdu = rpc.read_pdu(connection)
                assert pdu is not None
                recorded.send(1, pdu.to_bytes())
    recorded.close()
    return recorded


@pytest.fixture(scope="module")
def tshark(
    require_tool: Callable[[str], str], real_host: RunningHost, tmp_path_factory: pytest.TempPathFactory
) -> Tshark:
    """Call it with a display filter and a field; gives the field of each packet that passes."""
    program = require_tool("tshark")
    asker = Asker.of(real_host.realm, "desktop")
    requests = [asker.ask().request for _ in range(40)]
    pipelined = b"".join(rpc.build_request(request, number + 3) for number, request in enumerate(requests[:24]))
    several = [
        Context(0),
        Context(1, rpc.INTERFACE, (rpc.NDR64,)),
        Context(2, FOREIGN),
        Context(3, transfers=(rpc.FEATURES,)),
    ]
    bind = (rpc.build_bind(), 1)
    wrong_version = bytearray(rpc.build_bind())
    wrong_version[1] = 1
    connections = [
        talk(real_host, 0, bind, (rpc.build_request(requests[30], 2), 1),
             (rpc.build_request(build_query(0), 3, rpc.GET_REVOCATIONS), 1)),
        talk(real_host, 1, bind, (pipelined, 24)),
        talk(real_host, 2, (rpc.build_bind(several), 1), (rpc.build_bind([Context(7)], 2, rpc.ALTER_CONTEXT), 1),
             (rpc.build_request(requests[31], 3, context_id=7), 1)),
        talk(real_host, 3, bind, (rpc.build_request(requests[32], 2, fragment=64), 1)),
        talk(real_host, 4, bind, (rpc.build_request(requests[33], 2, operation=1), 1),
             (rpc.build_request(requests[34], 3, context_id=9), 1), (Pdu(rpc.REQUEST, 4, bytes(8)).to_bytes(), 1)),
        talk(real_host, 5, (bytes(wrong_version), 1)),
        talk(real_host, 6, bind, (rpc.build_bind(call_id=2), 1)),
    ]  # fmt: skip
    capture: Path = tmp_path_factory.mktemp("dissection") / "talk.pcap"
    write_capture(capture, connections)

    def run(where: str, field: str = "frame.number") -> list[str]:
        command = [program, "-r", str(capture), "-d", "tcp.port==1688,dcerpc", "-Y", where, "-T", "fields", "-e", field]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()

    return run


def test_every_kind_of_pdu_is_there(tshark: Tshark) -> None:
    kinds = {int(kind) for line in tshark("dcerpc", "dcerpc.pkt_type") for kind in line.split(",")}
    assert kinds == {
        rpc.REQUEST, rpc.RESPONSE, rpc.FAULT, rpc.BIND, rpc.BIND_ACK, rpc.BIND_NAK, rpc.ALTER_CONTEXT,
        rpc.ALTER_CONTEXT_RESP,
    }  # fmt: skip


def test_everything_is_dissected(tshark: Tshark) -> None:
    assert len(tshark("tcp.len > 0")) > 40
    assert tshark("tcp.len > 0 && !dcerpc && !tcp.segment_data && !tcp.reassembled_in") == []


def test_nothing_is_malformed(tshark: Tshark) -> None:
    assert tshark("_ws.malformed || _ws.short || _ws.unreassembled") == []
    remarks = tshark("dcerpc && _ws.expert.group", "_ws.expert.message")
    assert [remark for remark in remarks if not remark.startswith(MEANT)] == []
    assert sum(remark.startswith("Fault: ") for remark in remarks) == 3


def test_every_answer_is_matched_to_its_request(tshark: Tshark) -> None:
    answers = [request for line in tshark("dcerpc.pkt_type == 2", "dcerpc.request_in") for request in line.split(",")]
    assert len(answers) == 28
    assert all(answers)


def test_a_fragmented_request_is_put_together(tshark: Tshark) -> None:
    assert tshark("dcerpc.reassembled.length", "dcerpc.reassembled.length") == ["228"]
