"""One load process against a host that the test controls."""

import asyncio
import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kms_fast._core import Address, LoadConnection, RpcCounters, Session, build_bind, find_stride
from kms_fast.load.plan import LoadPlan, LoadResult
from kms_fast.load.run import LoadProcess
from kms_fast.model import signing
from tests.load.toy_host import PRODUCT, ToyConnection, ToyHost, leaf_with, run_toy_host
from tests.reference import rpc

CLOCKS_DIFFER = 0xC004F06C


def make_plan(port: int, **changes: Any) -> LoadPlan:
    plan = LoadPlan(
        address="127.0.0.1",
        port=port,
        product=PRODUCT,
        machine_seed=bytes(32),
        clients=(0, 1000),
        connections=3,
        activations=30,
    )
    return replace(plan, **changes)


async def load(host: ToyHost, **changes: Any) -> LoadResult:
    async with run_toy_host(host):
        return await LoadProcess(make_plan(host.port, **changes), lambda result: None).run()


async def test_every_answer_is_verified() -> None:
    host = ToyHost()
    result = await load(host)
    assert (result.requests, result.activations, result.verified, result.failed) == (30, 30, 30, 0)
    assert result.histogram().count == 30
    assert host.connections == 3
    assert result.failure is None


async def test_each_request_is_fresh_and_each_machine_asks_once_before_any_asks_twice() -> None:
    host = ToyHost()
    await load(host, clients=(0, 10))
    assert len(host.nonces) == 30
    assert len(set(host.cmids)) == 10
    assert len(set(host.cmids[:10])) == 10


async def test_machines_depend_on_seed_and_number_alone() -> None:
    whole, half = ToyHost(), ToyHost()
    await load(whole, clients=(0, 8), activations=8)
    await load(half, clients=(4, 8), activations=4)
    assert set(half.cmids) < set(whole.cmids)
    other = ToyHost()
    await load(other, clients=(0, 8), activations=8, machine_seed=b"s" * 32)
    assert not set(other.cmids) & set(whole.cmids)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97, 1000, 65_536])
def test_the_stride_meets_every_machine(count: int) -> None:
    stride = find_stride(count)
    assert len({i * stride % count for i in range(count)}) == count


def test_only_a_run_makes_connections() -> None:
    with pytest.raises(TypeError, match="LoadRun"):
        LoadConnection()


def test_an_address_is_a_literal_one() -> None:
    Address("fe80::1%lo", 1688)
    for text in ("localhost", "", "127.0.0.1:1688", "[::1]"):
        with pytest.raises(ValueError, match="is no IP address"):
            Address(text, 1688)
    with pytest.raises(OverflowError):
        Address("::1", 65_536)


@pytest.mark.parametrize("per_connection", [1, 4])
async def test_a_connection_ends_after_its_activations(per_connection: int) -> None:
    host = ToyHost()
    result = await load(host, per_connection=per_connection, activations=12)
    assert result.activations == 12
    assert 12 // per_connection <= host.connections <= 12 // per_connection + 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on loopback")
async def test_short_connections_come_from_many_addresses() -> None:
    host = ToyHost()
    await load(host, per_connection=1, activations=12)
    assert len(host.sources) == host.connections
    kept_open = ToyHost()
    await load(kept_open)
    assert kept_open.sources == {"127.0.0.1"}


async def test_ipv6() -> None:
    host = ToyHost()
    async with run_toy_host(host, "::1"):
        result = await LoadProcess(make_plan(host.port, address="::1"), lambda result: None).run()
    assert result.verified == 30
    assert host.sources == {"::1"}


async def test_none_or_a_share_is_verified() -> None:
    assert (await load(ToyHost(), verify_percent=0.0)).verified == 0
    result = await load(ToyHost(), verify_percent=50.0, activations=200)
    assert result.activations == 200
    assert 50 < result.verified < 150


async def test_the_record_has_a_line_for_each_activation(tmp_path: Path) -> None:
    path = tmp_path / "record"
    await load(ToyHost(), record=str(path), connections=1, activations=300)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["request_hash"] for line in lines}) == 300
    assert [line["batch"] for line in lines] == [f"1/{n}" for n in range(1, 301)]
    assert {line["index"] for line in lines} == {3}


async def test_an_unverified_activation_is_recorded_as_well(tmp_path: Path) -> None:
    path = tmp_path / "record"
    await load(ToyHost(), record=str(path), verify_percent=0.0)
    assert len(path.read_text().splitlines()) == 30


async def test_a_record_that_cannot_be_written_ends_the_load() -> None:
    with pytest.raises(OSError, match="No space left"):
        await load(ToyHost(), record="/dev/full")


async def test_batches_are_counted_by_their_tree_sizes() -> None:
    result = await load(ToyHost())
    assert result.batches == pytest.approx(30 / 5)
    assert result.batch_max == 5


async def test_a_signed_refusal_is_no_error_and_no_activation() -> None:
    result = await load(ToyHost(change=leaf_with(result=CLOCKS_DIFFER)))
    assert (result.activations, result.verified, result.refused, result.failed) == (0, 0, 30, 0)
    assert result.refusals == {CLOCKS_DIFFER: 30}


async def test_wrong_answers_are_counted_by_the_check_they_failed() -> None:
    good = iter([True, *[False] * 29])
    wrong = leaf_with(generation=9)
    result = await load(ToyHost(change=lambda leaf: leaf if next(good) else wrong(leaf)), connections=1)
    assert (result.activations, result.failed) == (1, 29)
    assert result.errors == {"GENERATION_NOT_CERTIFIED": (29, "check 16 of docs/protocol.md")}
    assert result.failure is None


async def test_a_first_answer_that_is_wrong_ends_the_load() -> None:
    result = await load(ToyHost(change=leaf_with(generation=9)), connections=1)
    assert result.failure == ("GENERATION_NOT_CERTIFIED", "check 16 of docs/protocol.md")
    assert result.requests == 1


async def test_a_first_unsigned_result_ends_the_load() -> None:
    result = await load(ToyHost(result=0xE04B0001))
    assert result.failure is not None
    assert result.failure[0] == "REQUEST_UNREADABLE"


async def test_a_dead_host_ends_the_load() -> None:
    host = ToyHost()
    async with run_toy_host(host):
        pass
    result = await LoadProcess(make_plan(host.port), lambda result: None).run()
    assert result.failure is not None
    assert result.failure[0] == "CONNECTION_FAILED"


async def test_a_host_that_accepts_and_says_nothing_ends_the_load() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # To its end: from Python 3.12 on, a server waits for its connections when it closes.
        with suppress(ConnectionResetError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        plan = make_plan(server.sockets[0].getsockname()[1], answer_limit_s=0.1)
        for per_connection in (0, 1):
            process = LoadProcess(replace(plan, per_connection=per_connection), lambda result: None)
            result = await process.run()
            assert result.failure == ("NO_ANSWER", "no answer within 0.1 s")


async def test_what_a_stalled_host_never_answered_is_an_error_of_every_start_that_was_due() -> None:
    host = ToyHost()
    async with run_toy_host(host):

        def fall_silent(leaf: Any) -> Any:
            if len(host.cmids) > 5:
                raise ConnectionResetError
            return leaf

        host.change = fall_silent
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        plan = make_plan(host.port, activations=0, seconds=0.5, rate=100, connections=1, answer_limit_s=0.2)
        result = await LoadProcess(plan, lambda result: None).run()
    assert result.activations == 5
    assert result.activations + result.failed == 50


async def test_what_is_under_way_when_a_load_is_given_up_is_an_error() -> None:
    host = ToyHost()
    async with run_toy_host(host):

        def answer_late(leaf: Any) -> Any:
            time.sleep(0.15)  # each within the limit, all of them far behind the rate
            return leaf

        host.change = answer_late
        plan = make_plan(host.port, activations=0, seconds=0.5, rate=100, connections=1, answer_limit_s=0.2)
        result = await LoadProcess(plan, lambda result: None).run()
    assert 0 < result.activations < 50
    assert result.activations + result.failed == 50


@contextmanager
def full_backlog() -> Iterator[socket.socket]:
    """A listening socket whose queue is full: who connects hears nothing until some are accepted."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as waiting:
        while True:
            client = waiting.enter_context(socket.socket())
            client.settimeout(0.1)
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener


async def test_a_connection_that_is_never_made_has_no_answer() -> None:
    with full_backlog() as listener:
        plan = make_plan(listener.getsockname()[1], answer_limit_s=0.1)
        result = await LoadProcess(plan, lambda result: None).run()
    assert result.failure == ("NO_ANSWER", "no answer within 0.1 s")


async def test_a_connection_that_takes_long_is_bound_when_it_is_made() -> None:
    host = ToyHost()
    loop = asyncio.get_running_loop()
    with full_backlog() as listener:
        listener.setblocking(False)
        running = asyncio.create_task(LoadProcess(make_plan(listener.getsockname()[1]), lambda result: None).run())
        await asyncio.sleep(0.2)
        assert not running.done()
        server = await loop.create_server(lambda: ToyConnection(host), sock=listener)
        result = await running
        server.close()
    assert (result.verified, result.failed, result.connections) == (30, 0, 3)


async def test_responses_that_nobody_asked_for_cost_one_connection() -> None:
    """Each slot comes back once: no more connections at a time than were wanted."""
    host = ToyHost()
    stray = Session(RpcCounters())
    stray.receive(build_bind())
    stray.take_output()
    for call_id in (77, 78):
        stray.respond(call_id, 0, b"", 0)
    strays = iter([stray.take_output()])
    open_now: set[ToyConnection] = set()
    most = 0

    class Straying(ToyConnection):
        def data_received(self, data: bytes) -> None:
            nonlocal most
            open_now.add(self)
            most = max(most, len(open_now))
            said = next(strays, b"") if len(host.cmids) == 10 else b""
            if said:
                self.transport.write(said)
            else:
                super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            open_now.discard(self)

    server = await asyncio.get_running_loop().create_server(lambda: Straying(host), "127.0.0.1", 0)
    async with server:
        plan = make_plan(server.sockets[0].getsockname()[1], activations=0, seconds=0.5)
        result = await LoadProcess(plan, lambda result: None).run()
    assert result.errors == {"RPC_REFUSED": (1, "a response to no call of ours")}
    assert (most, host.connections) == (3, 4)


async def test_a_bug_costs_a_connection_and_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(public_key: bytes, message: bytes, signature: bytes) -> bool:
        raise RuntimeError("planted")

    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(str(context["exception"])))
    monkeypatch.setattr(signing, "verify_message", fail)
    result = await load(ToyHost(), connections=1)
    assert told == ["planted"]
    assert result.failure == ("CONNECTION_LOST", "connection closed before the answer: planted")
    assert (result.requests, result.failed) == (1, 1)


async def test_a_bug_of_one_connection_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were ready in the same round are not told of again."""
    real, calls = signing.verify_message, 0

    def fail_once(public_key: bytes, message: bytes, signature: bytes) -> bool:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise RuntimeError("planted")
        return real(public_key, message, signature)

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    monkeypatch.setattr(signing, "verify_message", fail_once)
    result = await load(ToyHost(), connections=30, activations=120, answer_limit_s=2)
    assert {name: count for name, (count, _) in result.errors.items()} == {"CONNECTION_LOST": 1}
    assert result.activations == 119


def make_bind_ack() -> bytes:
    session = Session(RpcCounters())
    session.receive(build_bind())
    return session.take_output()


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"", "CONNECTION_LOST"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "RPC_REFUSED"),
        (rpc.build_fault(1, 0x1C010003) + make_bind_ack(), "RPC_REFUSED"),
    ],
)
async def test_what_is_no_host_ends_the_load(said: bytes, kind: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        plan = make_plan(server.sockets[0].getsockname()[1])
        result = await LoadProcess(plan, lambda result: None).run()
    assert result.failure is not None
    assert result.failure[0] == kind


async def test_a_connection_lost_in_between_is_an_error_and_is_opened_again() -> None:
    host = ToyHost()
    async with run_toy_host(host):
        process = LoadProcess(make_plan(host.port, connections=1, activations=40), lambda result: None)

        def lose_one(leaf: Any) -> Any:
            if len(host.cmids) == 10:
                raise ConnectionResetError
            return leaf

        host.change = lose_one
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        result = await process.run()
    assert (result.activations, result.failed) == (39, 1)
    assert list(result.errors) == ["CONNECTION_LOST"]
    assert host.connections == 2


async def test_an_end_that_comes_with_an_answer_is_seen_before_the_next_start() -> None:
    host = ToyHost()

    class Closing(ToyConnection):
        def data_received(self, data: bytes) -> None:
            answered = len(host.cmids)
            super().data_received(data)
            if len(host.cmids) > answered:
                self.transport.close()

    server = await asyncio.get_running_loop().create_server(lambda: Closing(host), "127.0.0.1", 0)
    async with server:
        plan = make_plan(server.sockets[0].getsockname()[1], connections=1, activations=0, seconds=0.8, rate=5)
        result = await LoadProcess(plan, lambda result: None).run()
    assert (result.activations, result.failed) == (4, 0)


async def test_open_loop_counts_latency_from_the_intended_start() -> None:
    open_loop = await load(ToyHost(stall_s=0.5), activations=0, seconds=0.5, rate=100, connections=1)
    assert open_loop.activations == 50
    # Some 40 starts were due in the first 0.4 s of the stall; each waited for at least 0.1 s, though it was sent at
    # once later.
    slow = sum(count for ns, count in open_loop.latencies if ns > 100_000_000)
    assert slow >= 38

    closed_loop = await load(ToyHost(stall_s=0.5), activations=50, connections=1)
    assert sum(count for ns, count in closed_loop.latencies if ns > 100_000_000) < 38


async def test_open_loop_offers_the_rate_and_no_more() -> None:
    result = await load(ToyHost(), activations=0, seconds=0.3, rate=100)
    assert result.requests == 30


async def test_closed_loop_ends_when_its_time_is_over() -> None:
    result = await load(ToyHost(), activations=0, seconds=0.2)
    assert result.activations == result.requests > 0
    assert result.seconds >= 0.15
