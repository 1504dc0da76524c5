"""The service in this process: when it looks by itself, and what it warns of."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from kms_fast.client import AsyncClient, Client, LicenceState
from kms_fast.client import service as module
from kms_fast.client.service import Service
from tests.client.world import (
    DAY_MS,
    MACHINE,
    FakeClock,
    ScriptedHost,
    activate,
    give_up,
    listening,
    make_client,
)
from tests.hosts import SKUS, Realm

WAIT_S = 30


def make_service(folder: Path, clock: FakeClock, notices: list[str]) -> Service:
    return Service(AsyncClient(home=folder, clock=clock, read_machine=lambda: MACHINE), notices.append)


async def run_until(service: Service, condition: Callable[[], bool]) -> None:
    """Runs the service until something that is bound to happen has."""
    task = asyncio.create_task(service.run())
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_it_looks_by_itself(
    tmp_path: Path, realm: Realm, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHORTEST_WAIT_S", 0.01)
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    notices: list[str] = []
    service = make_service(tmp_path, clock, notices)
    await run_until(service, lambda: notices.count("STATUS=no state: see the log") == 3)
    client = make_client(tmp_path, realm, clock)
    with listening(ScriptedHost(realm, clock)) as address:
        client.set_host(address)
        await run_until(service, lambda: client.status().state is LicenceState.LICENSED)
    assert notices[0] == "READY=1"


async def look(service: Service) -> float:
    """One look, after which its connections are closed; the seconds until the next."""
    wait_s = await service._look()
    await asyncio.sleep(0)
    return wait_s


async def test_an_attempt_that_is_due_sooner_is_awaited(
    client: Client, realm: Realm, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.time, "time", lambda: clock.now_ms() / 1000)
    service = make_service(tmp_path, clock, [])
    with listening(ScriptedHost(realm, clock, leaf={"validity": 1})) as address:
        client.set_host(address)
        assert 30 <= await look(service) <= 33
        clock.sleep(20_000)
        assert 10 <= await look(service) <= 13


async def test_what_the_publisher_gave_up_keeps_nothing_else_from_being_renewed(
    client: Client, realm: Realm, tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    server = SKUS["server"]
    make_client(tmp_path, realm, clock, key="server")
    give_up(realm, "server")
    newest = make_client(tmp_path, realm, clock)
    service = make_service(tmp_path, clock, notices := [])
    with listening(ScriptedHost(realm, clock)) as address:
        newest.set_host(address, SKUS["desktop"].id)
        for _ in range(2):
            await look(service)
    assert newest.status(SKUS["desktop"].id).state is LicenceState.LICENSED
    assert notices[-1] == f"STATUS=Desktop 3: licensed, 180 d left; {server.id}: see the log"
    [told] = [message for message in caplog.messages if str(server.id) in message]
    assert told.startswith(f"The product {server.id} cannot be looked after: The publisher has given the product")


@pytest.mark.parametrize(("days", "warnings"), [(140, []), (150, ["30 days"]), (173, ["7 days"]), (179, ["1 day"])])
async def test_expiry_is_warned_of_once(
    client: Client,
    realm: Realm,
    tmp_path: Path,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
    days: int,
    warnings: list[str],
) -> None:
    activate(client, ScriptedHost(realm, clock))
    client.set_host("127.0.0.1:1")
    clock.sleep(days * DAY_MS)
    await look(make_service(tmp_path, clock, []))
    state_file = tmp_path / "client" / "state.json"
    written = state_file.stat().st_ino
    for _ in range(2):  # a service that is started again does not tell it again
        service = make_service(tmp_path, clock, [])
        for _ in range(2):
            await look(service)
    told = [message for message in caplog.messages if "expires within" in message]
    assert told == [f"Desktop 3 expires within {warning} and has not been renewed" for warning in warnings]
    assert state_file.stat().st_ino == written, "what was told already is not noted again"


async def test_a_new_lease_is_warned_of_anew(
    client: Client, realm: Realm, tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        activate(client, ScriptedHost(realm, clock))
        client.set_host("127.0.0.1:1")
        clock.sleep(155 * DAY_MS)
        await look(make_service(tmp_path, clock, []))
    assert len([message for message in caplog.messages if "within 30 days" in message]) == 2


async def test_a_change_of_state_is_told_once(
    client: Client, realm: Realm, tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    activate(client, ScriptedHost(realm, clock))
    client.set_host("127.0.0.1:1")
    service = make_service(tmp_path, clock, [])
    with caplog.at_level(logging.INFO, logger="kms_fast"):
        for days in (1, 180, 1, 30, 1):
            clock.sleep(days * DAY_MS)
            await look(service)
    states = [
        (record.levelname, record.getMessage()) for record in caplog.records if "Desktop 3: " in record.getMessage()
    ]
    assert states == [
        ("INFO", "Desktop 3: licensed, 179 d left"),
        ("WARNING", "Desktop 3: out of tolerance grace, 29 d left"),
        ("WARNING", "Desktop 3: notification: The grace period has ended."),
    ]


async def test_what_the_state_cannot_note_is_tried_again_after_a_while(
    client: Client,
    realm: Realm,
    tmp_path: Path,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A lease that cannot be stored is not asked for every 30 seconds."""
    host = ScriptedHost(realm, clock)
    service = make_service(tmp_path, clock, [])
    failing = service._client._file
    write, writes = failing.write, []

    def fail_at_the_second(state: object) -> None:
        writes.append(state)
        if len(writes) in (2, 4):
            raise OSError(28, "No space left on device")
        write(state)  # type: ignore[arg-type]

    with listening(host) as address:
        client.set_host(address)
        monkeypatch.setattr(failing, "write", fail_at_the_second)
        for _ in range(3):
            await look(service)
        assert len(host.requests) == 1
        assert len([message for message in caplog.messages if "No space left" in message]) == 1
        for requests in (2, 3):
            service.wake()
            await look(service)
            await look(service)
            assert len(host.requests) == requests
    # The same trouble was told once, and the same request sent each time.
    assert len([message for message in caplog.messages if "No space left" in message]) == 1
    assert len(set(host.requests)) == 1
    assert client.status().state is LicenceState.LICENSED
