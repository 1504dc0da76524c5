"""A machine, a clock and hosts for the client's tests: hosts sign by the reference, and serve in memory or over TCP."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kms_fast._core import RpcCounters, Session
from kms_fast.client import Client, Status
from kms_fast.client.exchange import HostExchange
from kms_fast.client.machine import Machine
from kms_fast.client.round import Round
from kms_fast.discovery.address import HostAddress
from kms_fast.discovery.srv import Service
from kms_fast.errors import NoHost
from kms_fast.model.catalog import Sku
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.revocation import issue_revocation_list
from tests import hosts
from tests.hosts import PUBLISHER_ID, SKUS, Realm, make_key
from tests.reference.certificate import ISSUER_SIZE
from tests.reference.host import Host
from tests.reference.host import Sku as ReferenceSku
from tests.reference.request import SkuKeys, open_request

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
NOW_MS = 1_800_000_000_000
MACHINE = Machine("client-7", False, {"machine-id": b"0123456789abcdef"})
SETUP_KEYS = {name: sku.setup_key(PUBLISHER_ID).text for name, sku in SKUS.items()}


@dataclass
class FakeClock:
    """Both clocks of a machine; `sleep` moves both, users set `wall_ms` alone, and `boot` changes at a restart."""

    wall_ms: int = NOW_MS
    boot: str | None = "boot-1"
    boot_ms: int = 5 * MINUTE_MS

    def now_ms(self) -> int:
        return self.wall_ms

    def since_boot(self) -> tuple[str, int] | None:
        return None if self.boot is None else (self.boot, self.boot_ms)

    def sleep(self, span_ms: int) -> None:
        self.wall_ms += span_ms
        self.boot_ms += span_ms


@dataclass
class ScriptedHost:
    """A certified host that answers as the test says; it keeps the requests it got.

    `unsigned`: a code instead of an answer. `leaf` and `header` change fields before signing.
    """

    realm: Realm
    clock: FakeClock
    sku: str = "desktop"
    count: int = 1
    threshold: int = 1
    time_shift_ms: int = 0
    unsigned: int = 0
    leaf: Mapping[str, Any] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)
    revocations: bytes | None = None
    requests: list[bytes] = field(default_factory=list)
    queries: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        chain = (self.realm.home / "host" / "host.cert").read_bytes()
        self.signer = Host(make_key("host"), chain[:-ISSUER_SIZE], chain[-ISSUER_SIZE:])

    def answer(self, opnum: int, argument: bytes) -> tuple[bytes | None, int]:
        """The answer and RPC result of one call."""
        if opnum == 2:
            self.queries.append(argument)
            return self.revocations, 0
        self.requests.append(argument)
        if self.unsigned:
            return None, self.unsigned
        sku = reference_sku(SKUS[self.sku], self.threshold)
        time_ms = self.clock.now_ms() + self.time_shift_ms
        fields = open_request(sku.keys, argument)
        leaf = self.signer.decide(sku, argument, fields, self.count, time_ms)._replace(**self.leaf)
        batch = self.signer.sign_batch([leaf.to_bytes()], time_ms, **self.header)
        return batch.answer(0, sku.keys.answer_key(argument)), 0

    def serve(self, session: Session, data: bytes) -> bytes:
        """What the host sends for these bytes."""
        session.receive(data)
        while session.requests:
            call_id, context_id, opnum, argument = session.requests.pop(0)
            session.respond(call_id, context_id, *self.answer(opnum, argument))
        return session.take_output()


def reference_sku(sku: Sku, threshold: int) -> ReferenceSku:
    """A product as the reference's host has it."""
    keys = SkuKeys.derive(sku.secret, PUBLISHER_ID, sku.id.bytes)
    return ReferenceSku(
        keys,
        sku.family,
        sku.generation,
        threshold,
        sku.validity_min,
        sku.activation_interval_min,
        sku.renewal_interval_min,
    )


def make_realm(folder: Path, **options: Any) -> Realm:
    """A publisher and a certified host at the tests' time."""
    return hosts.make_realm(folder, now_ms=NOW_MS, **options)


def make_client(folder: Path, realm: Realm, clock: FakeClock, *, key: str | None = "desktop", **options: Any) -> Client:
    """A client of the realm's publisher with its state in `folder`, and a setup key unless None."""
    machine = options.pop("machine", MACHINE)
    client = Client(
        home=folder, publisher=realm.publisher_json.read_bytes(), clock=clock, read_machine=lambda: machine, **options
    )
    if key is not None:
        client.install_key(SETUP_KEYS[key])
    return client


def make_client_home(home: Path, realm: Realm, *products: str, host: str = "") -> Path:
    """The home of a real client with the keys of these products, of the desktop's alone unless any are named; with
    `host`, it asks only this one.
    """
    client = Client(home=home, publisher=realm.publisher_json.read_bytes())
    for product in products or ("desktop",):
        client.install_key(SETUP_KEYS[product])
        if host:
            client.set_host(host, SKUS[product].id)
    return home


def talk(exchange: HostExchange, host: ScriptedHost) -> None:
    """Carry out an exchange in memory, byte by byte towards the client."""
    session = Session(RpcCounters())
    sent = exchange.start()
    while sent and not exchange.done:
        received = host.serve(session, sent)
        sent = b"".join(exchange.receive(received[i : i + 1]) for i in range(len(received)))


def carry_out(round_: Round, at: Mapping[str, ScriptedHost | str], found: list[str] | None = None) -> list[str]:
    """Carry out a round in memory: hosts by address, or why one cannot be reached. Returns what was done, in order."""
    done = []
    while (task := round_.next_task()) is not None:
        if isinstance(task, Service):
            done.append(f"lookup {task.name}")
            if found is None:
                round_.not_found(NoHost("none", name="NO_SRV_RECORD", names={"a.": "the name does not exist"}))
            else:
                round_.found([HostAddress(name) for name in found])
        else:
            done.append(str(task.host))
            host = at[str(task.host)]
            task.lose(host) if isinstance(host, str) else talk(task, host)
    return done


def activate(client: Client, host: ScriptedHost) -> Any:
    """Activate in memory."""
    client.set_host("host")
    round_ = client.begin()
    carry_out(round_, {"host:1688": host})
    return client.finish(round_)


def make_revocations(realm: Realm, serials: list[int], number: int = 1) -> bytes:
    """A revocation list of the realm's issuer."""
    return issue_revocation_list(
        realm.issuer_key, realm.issuer, number=number, issued_ms=NOW_MS, serials=serials
    ).to_bytes()


def make_publisher(realm: Realm, **changes: Any) -> bytes:
    """The realm's publisher file with other fields, signed anew."""
    file = PublisherFile.parse(realm.publisher_json.read_bytes())
    return replace(file, **changes).to_signed_json(realm.root_key)


def give_up(realm: Realm, product: str) -> None:
    """Let the publisher export a file without this product."""
    left = tuple(sku for name, sku in SKUS.items() if name != product)
    realm.publisher_json.write_bytes(make_publisher(realm, number=2, skus=left))


def read_sent(host: ScriptedHost) -> Any:
    """The fields of the last request that a host of the desktop product got."""
    keys = SkuKeys.derive(SKUS["desktop"].secret, PUBLISHER_ID, SKUS["desktop"].id.bytes)
    return open_request(keys, host.requests[-1])


def reason(status: Status) -> str | None:
    """The name of what is wrong with a licence."""
    return None if status.licence.reason is None else status.licence.reason.result.name


@contextmanager
def listening(host: ScriptedHost | bytes | None, family: socket.AddressFamily = socket.AF_INET) -> Iterator[str]:
    """The address of a TCP server: a scripted host, one that sends these bytes, or (None) one that closes at once."""
    name = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((name, 0), family=family) as listener:
        thread = threading.Thread(target=_accept, args=(listener, host), daemon=True)
        thread.start()
        yield f"{name}:{listener.getsockname()[1]}" if ":" not in name else f"[{name}]:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _accept(listener: socket.socket, host: ScriptedHost | bytes | None) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            session = Session(RpcCounters())
            while host is not None and (data := connection.recv(65_536)):
                connection.sendall(host if isinstance(host, bytes) else host.serve(session, data))
