"""``kms-fast client run`` as a real process: what it takes up, what it survives, and how it ends."""

import json
import re
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from kms_fast.client import Client, LicenceState
from kms_fast.client.state import StateFile
from tests.client.world import make_client_home
from tests.client_services import run_service
from tests.faked import DAY_S, require_clock
from tests.hosts import SKUS, RunningHost, make_realm, run_cli, serve


def install(home: Path, host: RunningHost, *products: str) -> Client:
    """A client's home with the keys of these products, that asks this host."""
    return Client(home=make_client_home(home, host.realm, *products, host="{}:{}".format(*host.address)))


def test_a_key_of_another_command_is_taken_up(tmp_path: Path, real_host: RunningHost) -> None:
    with run_service(tmp_path) as service:
        assert "waiting for a key" in service.log
        client = install(tmp_path, real_host, "desktop")
        service.look()
        assert client.status().state is LicenceState.LICENSED
        assert client.machine().service == service.process.pid
        assert service.stop() == 0
        assert service.await_notice("STOPPING=1")
        assert service.log.count(f"looks after the products of {tmp_path}") == 2
        assert "no longer looks after" in service.log
    assert client.machine().service is None


def test_several_products(tmp_path: Path) -> None:
    with serve(make_realm(tmp_path, certified=(1, 2))) as host, run_service(tmp_path / "client-home") as service:
        client = install(tmp_path / "client-home", host, "desktop", "server")
        service.look()
        assert {client.status(sku.id).state for sku in client.skus()} == {LicenceState.LICENSED}


def test_one_product_in_trouble_does_not_keep_the_other_from_its_lease(tmp_path: Path, real_host: RunningHost) -> None:
    client = install(tmp_path, real_host, "server", "desktop")
    with run_service(tmp_path) as service:
        assert [client.status(sku.id).state for sku in client.skus()] == [2, 1]
        assert re.search(r"WARNING Server 1 was not activated: .* \(0xC004F042\)", service.log)
        service.look()
        assert service.log.count("was not activated") == 1


def test_a_second_service_is_refused(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        code, told, _ = run_cli("client", "run", home=tmp_path)
        assert (code, told["name"], told["details"]["process"]) == (1, "CLIENT_RUNNING", service.process.pid)
        assert service.process.poll() is None


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    with run_service(tmp_path) as service:
        assert service.stop(signal.SIGINT) == 130
        assert "INTERRUPTED" in service.log
        assert "Traceback" not in service.log


def test_term_during_an_attempt_ends_it(tmp_path: Path, real_host: RunningHost) -> None:
    """The host accepts and never answers; the request is kept and sent again later."""
    client = install(tmp_path, real_host, "desktop")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client.set_host("127.0.0.1:1")
        with run_service(tmp_path) as service:
            client.set_host("{}:{}".format(*silent.getsockname()))
            service.begin_look()
            silent.accept()[0].recv(1)
            assert service.stop() == 0
            assert "Traceback" not in service.log
    state = StateFile(tmp_path / "client").read()
    assert state is not None
    assert state.products[SKUS["desktop"].id].pending is not None


def test_events_in_json(tmp_path: Path, real_host: RunningHost) -> None:
    client = install(tmp_path, real_host, "desktop")
    with run_service(tmp_path, "--log-format", "json") as service:
        lines = [json.loads(line) for line in service.log.splitlines()]
    events = [line["fields"]["event"] for line in lines if line["event"] in ("HOST_ASKED", "HOST_ANSWERED")]
    assert [event["id"] for event in events] == [12288, 12289]
    assert events[0]["cmid"] == str(client.status().cmid)
    assert (events[1]["result"], events[1]["activated"]) == ("0x00000000", True)


def test_a_log_level(tmp_path: Path, real_host: RunningHost) -> None:
    install(tmp_path, real_host, "desktop")
    with run_service(tmp_path, "--log-level", "warning") as service:
        assert service.log == ""


def test_a_damaged_state_file_is_kept_and_the_service_goes_on(tmp_path: Path, real_host: RunningHost) -> None:
    client = install(tmp_path, real_host, "desktop")
    with run_service(tmp_path) as service:
        (tmp_path / "client" / "state.json").write_bytes(b"{")
        service.begin_look()
        service.await_notice("STATUS=no state")
        assert len(list((tmp_path / "client").glob("state.json.damaged-*"))) == 1
        assert "is damaged" in service.log
        install(tmp_path, real_host, "desktop")
        service.look()
        assert client.status().state is LicenceState.LICENSED


def test_a_state_file_that_may_not_be_read(tmp_path: Path, real_host: RunningHost) -> None:
    """A folder in its place: root may read every file."""
    client = install(tmp_path, real_host, "desktop")
    state = tmp_path / "client" / "state.json"
    with run_service(tmp_path) as service:
        state.rename(state.with_suffix(".away"))
        state.mkdir()
        service.begin_look()
        service.await_notice("STATUS=no state")
        assert "Is a directory" in service.log
        assert "Free space or correct rights" in service.log
        state.rmdir()
        state.with_suffix(".away").rename(state)
        service.look()
        assert service.process.poll() is None
        assert client.status().state is LicenceState.LICENSED


def test_a_full_disk(mount: Callable[[str], Path], real_host: RunningHost) -> None:
    home = mount("size=256k")
    with run_service(home) as service:
        client = install(home, real_host, "desktop")
        filler = home / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        service.begin_look()
        service.await_notice("STATUS=Desktop 3: see the log")
        for _ in range(3):
            service.look()
        assert client.status().state is LicenceState.INITIAL_GRACE
        assert service.log.count("No space left on device") == 1
        filler.unlink()
        service.look()
        assert client.status().state is LicenceState.LICENSED
        assert "Traceback" not in service.log


def test_a_clock_that_is_set_back_is_told(
    tmp_path: Path, real_host: RunningHost, unavailable: Callable[[str], NoReturn]
) -> None:
    client = install(tmp_path, real_host, "desktop")
    clock = require_clock(tmp_path, unavailable)("service")
    with run_service(tmp_path, environment=clock.environment) as service:
        for ahead_s in (-20 * DAY_S, 0):
            clock.set(ahead_s)
            service.look()
        told = [line.partition("Desktop 3: ")[2] for line in service.log.splitlines() if "Desktop 3: " in line]
    assert client.status().state is LicenceState.LICENSED
    assert [line.partition(",")[0].partition(":")[0] for line in told] == ["licensed", "notification", "licensed"]
    assert "but an activation was signed at" in told[1]
