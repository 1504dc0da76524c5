"""PostgreSQL killed, frozen, stopped and started again under a loaded host: nothing is lost and nobody waits for it."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kms_fast.load.proof import prove_ledger
from kms_fast.store.postgres import migrate
from tests.host.running import fetch_health, find_web, wait_for
from tests.hosts import DESKTOP, PUBLISHER_ID, SERVER, Realm, RunningHost, make_realm, run_cli, serve
from tests.postgres import PostgresServer, own_database
from tests.reference.rpc import Connection
from tests.system.asker import Asker

SERVER_BUSY, COUNT_TOO_LOW = 0xE04B0003, 0xC004F038
# So high that the machines of the family below it do not reach it, also those that were counted and told "busy".
THRESHOLD = 20


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    """A host that is certified for two families, each with threshold 20 and cap 40."""
    return make_realm(tmp_path, threshold=THRESHOLD, certified=(DESKTOP, SERVER))


@pytest.fixture
def server(start_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    """A PostgreSQL server that a test may break."""
    return start_postgres()


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    """URL of a database with the store's tables."""
    with own_database(server) as url:
        asyncio.run(migrate(url))
        yield url


def ask(host: RunningHost, product: str) -> int:
    """The result that a new machine gets; a signed one is verified."""
    asker = Asker.of(host.realm, product)
    asked = asker.ask()
    with Connection(host.address) as connection:
        connection.bind()
        answer, result = connection.call(asked.request)
    return result or asker.check(asked, answer).leaf.result


def ask_until_counted(host: RunningHost, product: str) -> None:
    """New machines ask until the store counts again; until then they are told that the host is busy."""
    end_s = time.monotonic() + 60
    while (result := ask(host, product)) == SERVER_BUSY:
        assert time.monotonic() < end_s
        time.sleep(0.05)
    assert result == COUNT_TOO_LOW


def start_load(host: RunningHost, record: Path, seconds: int) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-m", "kms_fast", "load", f"127.0.0.1:{host.address[1]}", "--json"),
        *("--publisher", str(host.realm.publisher_json), "--record", str(record), "--seconds", str(seconds)),
        *("--key", host.realm.skus["desktop"].setup_key(PUBLISHER_ID).text, "--connections", "16"),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_outages_in_the_middle_of_a_load(realm: Realm, server: PostgresServer, url: str, tmp_path: Path) -> None:
    record = tmp_path / "record"
    outages = [
        (server.kill, server.start),
        (server.freeze, server.thaw),
        (server.stop, server.start),
    ]
    with serve(realm, "--workers", "2", environment={"KMS_FAST_STORE": url}) as host:
        # To the cap: past it a family does not need the store. The other one stays below.
        told = [ask(host, "desktop") for _ in range(3 * THRESHOLD)]
        assert told == [COUNT_TOO_LOW] * (THRESHOLD - 1) + [0] * (2 * THRESHOLD + 1)
        load = start_load(host, record, 20)
        for begin, end in outages:
            begin()
            # The first call that hangs is given up after a second; from then on the answer comes at once.
            assert ask(host, "server") == SERVER_BUSY
            for _ in range(5):
                assert (ask(host, "desktop"), ask(host, "server")) == (0, SERVER_BUSY)
            end()
            ask_until_counted(host, "server")
        figures = json.loads(load.communicate(timeout=60)[0])
        assert (load.returncode, figures["errors"], figures["refused"]) == (0, 0, 0)
        assert host.stop() == 0
    proof = prove_ledger(realm.home, record)
    assert proof.ok
    assert proof.acknowledged == figures["activations"]


def test_a_worker_that_starts_during_an_outage(realm: Realm, server: PostgresServer, url: str) -> None:
    """It cannot know counts, so it tells every machine that it is busy, until the store is back."""
    with serve(realm, "--web", "127.0.0.1:0", environment={"KMS_FAST_STORE": url}) as host:
        (worker,) = host.worker_pids()
        wait_for(lambda: bool(fetch_health(find_web(host), "readyz")[1]["recorder_ready"]))
        assert fetch_health(find_web(host), "readyz")[1]["store_ready"]
        server.kill()
        subprocess.run(["kill", "-9", str(worker)], check=True)
        assert ask(host, "desktop") == SERVER_BUSY
        wait_for(lambda: not fetch_health(find_web(host), "readyz")[1]["store_ready"])
        status, told = fetch_health(find_web(host), "readyz")
        assert (status, told["ready"], told["busy"]) == (200, True, None), "families at their cap would be served"
        server.start()
        ask_until_counted(host, "desktop")
        wait_for(lambda: bool(fetch_health(find_web(host), "readyz")[1]["store_ready"]))
        assert host.stop() == 0


def test_a_host_that_starts_during_an_outage_says_so(realm: Realm, server: PostgresServer, url: str) -> None:
    server.kill()
    code, told, _ = run_cli("serve", "--listen", "127.0.0.1:0", "--store", url, home=realm.home)
    assert (code, told["name"]) == (1, "STORE_UNAVAILABLE")
    assert "s3cret" not in json.dumps(told)
    server.start()


def test_a_database_that_refuses_records_stops_no_answer(
    realm: Realm, server: PostgresServer, url: str, tmp_path: Path
) -> None:
    """The log tells it again and again; once the cause is gone, everything is recorded."""
    database = urlsplit(url).path[1:]
    server.execute("ALTER TABLE kms_fast.clients ADD CONSTRAINT no_more CHECK (state < 0)", database)
    log = tmp_path / "serve.log"
    with serve(realm, environment={"KMS_FAST_STORE": url}) as host:
        assert ask(host, "desktop") == COUNT_TOO_LOW
        end_s = time.monotonic() + 60
        while log.read_text().count("the recorder ends: ") < 3:
            assert time.monotonic() < end_s
            time.sleep(0.1)
        assert ask(host, "desktop") == COUNT_TOO_LOW
        assert '"no_more" (SQLSTATE 23514)' in log.read_text()
        server.execute("ALTER TABLE kms_fast.clients DROP CONSTRAINT no_more", database)
        while server.execute("SELECT sum(refusals) FROM kms_fast.inventory", database) != "2":
            assert time.monotonic() < end_s
            time.sleep(0.1)
        assert host.stop() == 0
