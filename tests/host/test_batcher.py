"""What the batcher keeps in memory, what it stores, and what it does with many batches at once."""

import asyncio
from pathlib import Path
from typing import NamedTuple

from kms_fast import _core
from kms_fast.host.batcher import Batcher
from kms_fast.model.certificate import DAY_MS
from kms_fast.model.settings import HostSettings
from kms_fast.store.sqlite_counts import SqliteCounts
from tests.batches import BatchMaker
from tests.host.local_server import LocalServer
from tests.hosts import DESKTOP, make_realm
from tests.reference import rpc
from tests.reference.rpc import Connection
from tests.reference.verify import Clock, verify
from tests.system.asker import Asker, now_ms


class Told(NamedTuple):
    """What a leaf says about a machine's activation."""

    result: int
    current_count: int


def ask_new_machines(server: LocalServer, connection: Connection, number: int) -> list[Told]:
    """Activates machines that nobody has seen, one after the other, at the time of the server's clock."""
    asker, told = Asker.of(server.realm, "desktop"), []
    for _ in range(number):
        time_ms = server.clock()
        asked = asker.ask(client_time=time_ms)
        answer, _ = connection.call(asked.request)
        assert answer is not None
        leaf = verify(asker.product, asked, answer, Clock(time_ms, 0)).leaf
        told.append(Told(leaf.result, leaf.current_count))
    return told


def test_a_family_that_leaves_its_cap_forgets_no_machine(tmp_path: Path) -> None:
    """At the cap machines are noted in memory first; the store must hear of them before it is asked again."""
    server = LocalServer(make_realm(tmp_path, threshold=2))
    cap = 4

    def talk(address: tuple[str, int]) -> list[Told]:
        with Connection(address) as connection:
            connection.bind()
            assert ask_new_machines(server, connection, cap)[-1] == Told(0, cap)
            server.clock.offset_ms = 29 * DAY_MS
            assert ask_new_machines(server, connection, cap - 1) == [Told(0, cap)] * (cap - 1)
            # The last of the first machines is forgotten, and the family is one below its cap.
            server.clock.offset_ms = 31 * DAY_MS
            return ask_new_machines(server, connection, 1)

    assert server.run(talk) == [Told(0, cap)]
    assert asyncio.run(count_stored(server, cap)) == cap


async def count_stored(server: LocalServer, cap: int) -> int:
    counts = SqliteCounts(server.realm.home / "host" / "counts.db")
    stored = await counts.load(DESKTOP, server.clock(), cap=cap, retention_ms=30 * DAY_MS)
    await counts.close()
    return len(stored)


async def test_any_number_of_batches_is_refused(tmp_path: Path) -> None:
    """As when the clock was set back while as many wait as a host may let wait."""
    realm = make_realm(tmp_path)
    maker = BatchMaker(realm, HostSettings(max_waiting=1 << 20))
    counts, ledger = SqliteCounts(tmp_path / "counts.db"), maker.open_ledger()
    ledger.last_time_ms = now_ms() + 3_600_000
    failures: list[Exception] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context["exception"]))
    batcher = Batcher(
        ledger=ledger,
        counts=counts,
        sign=maker.installation.private_key.sign,
        clock_ms=now_ms,
        family_numbers=maker.family_numbers,
        spacing_s=0.002,
        on_failure=failures.append,
    )
    host = _core.Host(1 << 20, 10, True, batcher.wake, lambda interface, peer: None)
    host.use_table(maker.table)
    maker.host = host
    connection, transport = maker.connect()
    batcher.start(host)
    burst = rpc.build_request(Asker.of(realm, "desktop").ask().request, 1) * 1024
    for _ in range(400):
        connection.data_received(burst)
    assert host.waiting == 400 * 1024
    await asyncio.wait_for(batcher.drain(), 20)
    batcher.close()
    ledger.close()
    await counts.close()
    assert failures == []
    assert len(transport.written) == 400 * 1024
