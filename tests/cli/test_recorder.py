"""The recorder's process: killed at any moment it counts every record once, and a store that splits its transaction is
caught at that.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import apsw
import msgspec
import pytest

from kms_fast.host.child import ChildPlan
from kms_fast.host.enrolment import read_certificate
from kms_fast.model.settings import HostSettings
from kms_fast.store.postgres import migrate
from tests.hosts import make_realm
from tests.postgres import PostgresServer
from tests.segments import SegmentWriter, make_entry

ROOT = Path(__file__).parents[2]
NOW_MS = 1_800_000_000_000
RECORDER = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from kms_fast.cli import recorder
import kms_fast.host.recorder

# A transaction every few milliseconds, so that a kill may hit any part of one.
kms_fast.host.recorder.LOOK_S = 0.01
kms_fast.host.recorder.GATHER_S = 0.02
"""
# Rows and watermarks in two transactions, with time to be killed between them.
SPLIT = """
import time
from kms_fast.store.sqlite_inventory import SqliteInventory

record = SqliteInventory.record

async def record_in_two(self, host_id, rows, totals, watermarks):
    await record(self, host_id, rows, totals, [])
    time.sleep(0.2)
    await record(self, host_id, [], [], watermarks)

SqliteInventory.record = record_in_two
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_realm(tmp_path).home


@pytest.fixture
def segment(home: Path) -> Iterator[SegmentWriter]:
    with SegmentWriter(home / "host" / "ledger", 1, host_id=read_certificate(home / "host").host_id) as segment:
        yield segment


@contextmanager
def start(home: Path, change: str = "", store: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A recorder's process that has its plan; killed at the end if it still runs."""
    plan = msgspec.json.encode(ChildPlan(name="recorder", home=str(home), settings=HostSettings(store=store))) + b"\n"
    command = [sys.executable, "-c", f"{RECORDER}{change}\nrecorder.main()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        tell(process, plan)
        try:
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin
    process.stdin.write(line)
    process.stdin.flush()


def read_event(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout
    return str(json.loads(process.stdout.readline() or b'{"event": "nothing"}')["event"])


def drain(home: Path, change: str = "") -> None:
    """Let a new recorder record all there is."""
    with start(home, change) as process:
        tell(process, b'{"command": "drain"}\n')
        assert process.wait(60) == 0


def count_recorded(home: Path) -> tuple[int, int, int]:
    """Activations by clients, requests by totals, and the number of the last recorded batch."""
    path = home / "host" / "inventory.db"
    if not path.exists():
        return 0, 0, 0
    db = apsw.Connection(str(path))
    db.set_busy_timeout(5000)
    query = (
        "SELECT (SELECT sum(activations) FROM activity), (SELECT sum(requests) FROM totals), "
        "(SELECT max(number) FROM watermarks)"
    )
    [row] = db.execute(query).fetchall() if db.pragma("user_version") else [(0, 0, 0)]
    db.close()
    return tuple(value or 0 for value in row)  # type: ignore[return-value]


def kill_again_and_again(home: Path, segment: SegmentWriter, rounds: int, change: str = "") -> int:
    """Records while batches are written, and kills each recorder at some moment; how many records were written."""
    chance = random.Random(rounds)
    written = 0
    for _ in range(rounds):
        with start(home, change) as process:
            assert read_event(process) == "ready"
            end_s = time.monotonic() + chance.uniform(0.0, 0.5)
            while time.monotonic() < end_s:
                machines = [chance.randrange(50).to_bytes(16, "big") for _ in range(chance.randrange(1, 40))]
                segment.append([make_entry(cmid) for cmid in machines], NOW_MS + written)
                written += len(machines)
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait(30)
    drain(home, change)
    return written


def test_killed_at_any_moment_it_counts_every_record_once(home: Path, segment: SegmentWriter) -> None:
    written = kill_again_and_again(home, segment, 12)
    assert count_recorded(home) == (written, written, segment.number)


def test_watermarks_in_another_transaction_are_caught(home: Path, segment: SegmentWriter) -> None:
    """The negative control: the same proof must fail for a store that is wrong."""
    written = kill_again_and_again(home, segment, 6, SPLIT)
    activations, requests, number = count_recorded(home)
    assert number == segment.number
    assert activations > written
    assert requests > written


def test_it_ends_at_once_with_its_supervisor(home: Path, segment: SegmentWriter) -> None:
    with start(home) as process:
        assert read_event(process) == "ready"
        assert process.stdin
        process.stdin.close()
        assert process.wait(30) == 0


def test_term_drains(home: Path, segment: SegmentWriter) -> None:
    segment.append([make_entry(b"a" * 16)], NOW_MS)
    with start(home) as process:
        assert read_event(process) == "ready"
        process.terminate()
        assert process.wait(60) == 0
    assert count_recorded(home) == (1, 1, 1)


def test_it_gives_way_to_workers(home: Path, segment: SegmentWriter) -> None:
    with start(home) as process:
        assert read_event(process) == "ready"
        assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE


def test_a_reload_is_taken(home: Path, segment: SegmentWriter) -> None:
    with start(home) as process:
        assert read_event(process) == "ready"
        reload = {"command": "reload", "settings": HostSettings(log_level="debug")}
        tell(process, msgspec.json.encode(reload) + b"\n")
        assert read_event(process) == "reloaded"


def test_a_second_one_takes_over_from_one_that_was_killed(home: Path, segment: SegmentWriter) -> None:
    with start(home) as first:
        assert read_event(first) == "ready"
        segment.append([make_entry(b"a" * 16)], NOW_MS)
        with start(home) as second:
            assert read_event(second) == "ready"
            first.kill()
            first.wait(30)
            segment.append([make_entry(b"a" * 16)], NOW_MS)
            second.terminate()
            # It may be waiting to be elected still; then the next one records.
            assert second.wait(60) == 0
    drain(home)
    assert count_recorded(home) == (2, 2, 2)


def test_tables_of_a_newer_program_are_told(home: Path, segment: SegmentWriter) -> None:
    db = apsw.Connection(str(home / "host" / "inventory.db"))
    db.pragma("user_version", 99)
    db.close()
    with start(home) as process:
        assert process.stdout
        told = json.loads(process.stdout.readline())
        assert (told["event"], told["error"]["name"]) == ("failed", "STORE_VERSION")
        assert process.wait(30) == 1


def test_what_the_database_refuses_ends_it_and_is_recorded_later(
    home: Path, segment: SegmentWriter, postgres_server: PostgresServer, postgres_url: str
) -> None:
    asyncio.run(migrate(postgres_url))
    database = urlsplit(postgres_url).path[1:]
    segment.append([make_entry(b"a" * 16)], NOW_MS)
    postgres_server.execute("ALTER TABLE kms_fast.clients ADD CONSTRAINT no_more CHECK (state < 0)", database)
    for _ in range(2):
        with start(home, store=postgres_url) as process:
            assert read_event(process) == "ready"
            assert process.stdout
            error = json.loads(process.stdout.readline())["error"]
            assert (error["name"], error["details"]["sqlstate"]) == ("STORE_REFUSED", "23514")
            assert process.wait(30) == 1
    postgres_server.execute("ALTER TABLE kms_fast.clients DROP CONSTRAINT no_more", database)
    with start(home, store=postgres_url) as process:
        tell(process, b'{"command": "drain"}\n')
        assert process.wait(60) == 0
    assert postgres_server.execute("SELECT activations FROM kms_fast.inventory", database) == "1"


def test_a_host_without_a_certificate(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        assert process.stdout
        told = json.loads(process.stdout.readline())
        assert (told["event"], told["error"]["name"]) == ("failed", "HOST_NOT_ACTIVATED")
        assert process.wait(30) == 1
