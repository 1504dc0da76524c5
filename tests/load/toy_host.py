"""A host in the test's own event loop, as good or as bad as a test wants; answers by the reference."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from kms_fast._core import RpcCounters, Session
from kms_fast.load.plan import Product
from tests.reference.answer import Leaf
from tests.reference.certificate import DAY_MS, Family
from tests.reference.host import Host, Publisher, Sku, make_key
from tests.reference.request import SkuKeys, open_request

BATCH_SIZE = 5
INDEX = 3
KEYS = SkuKeys(b"sku-id-16-bytes.", bytes(range(32)), b"a" * 32)
SKU = Sku(KEYS, family=4, generation=3)
PUBLISHER = Publisher.from_seed("toy")
PRODUCT = Product(
    sku_id=KEYS.sku_id,
    request_key=KEYS.request_key,
    answer_secret=KEYS.answer_secret,
    publisher_id=PUBLISHER.publisher_id,
    roots=(PUBLISHER.root,),
    family=SKU.family,
    generation=SKU.generation,
    revoked=(),
)


def make_host() -> Host:
    """A host certified since yesterday."""
    yesterday = time.time_ns() // 1_000_000 - DAY_MS
    key = make_key("toy host")
    certificate = PUBLISHER.issue_host(key, [Family(SKU.family, SKU.generation, 25, SKU.validity)], yesterday)
    return Host(key, certificate, PUBLISHER.issue_issuer(yesterday))


@dataclass
class ToyHost:
    """``change`` alters a leaf before it is signed; ``result`` instead of an answer is an unsigned result."""

    change: Callable[[Leaf], Leaf] = lambda leaf: leaf
    result: int = 0
    stall_s: float = 0.0
    port: int = 0
    cmids: list[bytes] = field(default_factory=list)
    nonces: set[bytes] = field(default_factory=set)
    connections: int = 0
    sources: set[str] = field(default_factory=set)
    signer: Host = field(default_factory=make_host)

    def make_answer(self, request: bytes) -> bytes:
        """The signed answer to a request, in a batch of five of the present time."""
        now_ms = time.time_ns() // 1_000_000
        fields = open_request(KEYS, request)
        self.cmids.append(fields.cmid)
        self.nonces.add(request[20:36])
        leaves = [bytes([number]) * 118 for number in range(BATCH_SIZE)]
        leaves[INDEX] = self.change(self.signer.decide(SKU, request, fields, 25, now_ms)).to_bytes()
        return self.signer.sign_batch(leaves, now_ms).answer(INDEX, KEYS.answer_key(request))


class ToyConnection(asyncio.Protocol):
    def __init__(self, host: ToyHost) -> None:
        self.host = host
        self.session = Session(RpcCounters())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.host.connections += 1
        self.host.sources.add(transport.get_extra_info("peername")[0])

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
async def run_toy_host(host: ToyHost, address: str = "127.0.0.1") -> AsyncIterator[ToyHost]:
    """Listens on a free port of loopback."""
    server = await asyncio.get_running_loop().create_server(lambda: ToyConnection(host), address, 0)
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()


def leaf_with(**values: int) -> Callable[[Leaf], Leaf]:
    """A change of the leaf's fields."""
    return lambda leaf: leaf._replace(**values)
