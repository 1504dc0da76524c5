"""A host in the test's own event loop, as good or as bad as a test wants: the core's RPC session with answers of
tests/answers.py."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from kms_fast._core import RpcCounters, Session, SkuKeys
from kms_fast.load.plan import Product
from tests import answers

SECRET = b"a" * 32
REQUEST_KEY = bytes(range(32))
PRODUCT = Product(
    sku_id=answers.SKU_ID,
    request_key=REQUEST_KEY,
    answer_secret=SECRET,
    publisher_id=answers.PUBLISHER_ID,
    roots=(answers.public(answers.ROOT),),
    family=4,
    generation=3,
    revoked=(),
)
Change = Callable[[answers.Answer], answers.Answer]


@dataclass
class ToyHost:
    """``change`` alters an answer before it is signed; ``result`` instead of an answer is an unsigned result."""

    change: Change = lambda answer: answer
    result: int = 0
    stall_s: float = 0.0
    port: int = 0
    cmids: list[bytes] = field(default_factory=list)
    nonces: set[bytes] = field(default_factory=set)
    hashes: list[bytes] = field(default_factory=list)
    connections: int = 0

    def make_answer(self, request: bytes) -> bytes:
        """The signed answer to a request, in a batch of five of the present time."""
        fields = SkuKeys(answers.SKU_ID, REQUEST_KEY, SECRET).open_request(request)
        assert fields is not None
        now_ms = time.time_ns() // 1_000_000
        day = answers.DAY_MS
        self.cmids.append(fields[:16])
        self.nonces.add(request[20:36])
        answer = answers.Answer(
            SECRET,
            leaf=answers.Leaf(
                cmid=fields[:16], hardware=fields[120:136], client_time=int.from_bytes(fields[96:104], "little")
            ),
            header=answers.Header(time=now_ms, number=len(self.cmids)),
            certificate=answers.Certificate(not_before=now_ms - day, not_after=now_ms + day),
            issuer=answers.Issuer(not_before=now_ms - day, not_after=now_ms + day),
        )
        return self.change(answer).to_bytes(request)


class ToyConnection(asyncio.Protocol):
    def __init__(self, host: ToyHost) -> None:
        self.host = host
        self.session = Session(RpcCounters())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.host.connections += 1

    def data_received(self, data: bytes) -> None:
        self.session.receive(data)
        requests = self.session.requests or []
        for call_id, context_id, _, request in requests:
            if self.host.stall_s:
                time.sleep(self.host.stall_s)  # the whole host stands still, with the loop it shares
                self.host.stall_s = 0
            answer = None if self.host.result else self.host.make_answer(request)
            self.session.respond(call_id, context_id, answer, self.host.result)
        requests.clear()
        self.transport.write(self.session.take_output())


@asynccontextmanager
async def run_toy_host(host: ToyHost) -> AsyncIterator[ToyHost]:
    """Listens on a free port of loopback."""
    server = await asyncio.get_running_loop().create_server(lambda: ToyConnection(host), "127.0.0.1", 0)
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()


def leaf_with(**values: int) -> Change:
    """A change of the leaf's fields."""
    return lambda answer: replace(answer, leaf=replace(answer.leaf, **values))
