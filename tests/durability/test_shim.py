"""The shim sees what a process asks of disk and network, in the order in which it asks."""

import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.durability.disk import Content, Disk, PowerCuts
from tests.durability.trace import BrokenTrace, Event, Kind, make_trace, read_trace, shim_environment
from tests.hosts import make_realm, serve
from tests.reference.rpc import Connection
from tests.system.asker import Asker

ROOT = Path(__file__).parents[2]
EVERY_CALL = """
import os
os.mkdir("sub")
fd = os.open("sub/a", os.O_RDWR | os.O_CREAT)
os.write(fd, b"0123456789")
os.writev(fd, [b"ab", b"cd"])
os.pwrite(fd, b"XY", 1)
os.pwritev(fd, [b"Z", b"Z"], 4)
os.posix_fallocate(fd, 0, 5000)
os.ftruncate(fd, 4000)
os.fdatasync(fd)
os.rename("sub/a", "sub/b")
end = os.open("sub/b", os.O_WRONLY | os.O_APPEND)
os.write(end, b"end")
os.fsync(end)
open("c", "w").close()
with open("d", "wb", buffering=0) as d:
    d.write(b"old")
with open("d", "wb", buffering=0) as d:
    d.write(b"n")
os.unlink("c")
os.mkdir("gone")
os.rmdir("gone")
os.sync()
folder = os.open(".", os.O_RDONLY)
os.fsync(folder)
"""


def run_traced(
    shim: Path, folder: Path, program: str, *, pretend: str | None = None, site: bool = False
) -> list[Event]:
    """What a program of Python does in ``folder``; ``site``: whether it finds this project."""
    trace = folder.parent / "trace"
    make_trace(trace)
    environment = shim_environment(shim, trace, folder, pretend=pretend) | {"PYTHONPATH": str(ROOT) if site else ""}
    options = [] if site else ["-S"]
    subprocess.run([sys.executable, *options, "-c", program], cwd=folder, env=environment, check=True, timeout=60)
    return read_trace(trace)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    return made


def cut_at_end(folder: Path, events: list[Event], fate: str) -> dict[str, Content | None]:
    start = folder.parent / "start"
    start.mkdir()
    disk = Disk(start, {folder.stat().st_ino: ""}, events, str(folder))
    return PowerCuts(disk).cut(1 << 62, fate, random.Random(0))


def test_every_call_is_seen_and_leads_to_the_same_folder(shim: Path, folder: Path) -> None:
    contents = cut_at_end(folder, run_traced(shim, folder, EVERY_CALL), "kept")
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert set(contents) - {""} == found == {"sub", "sub/b", "d"}
    for path in ("sub/b", "d"):
        content = contents[path]
        assert content is not None
        assert content.to_bytes() == (folder / path).read_bytes()


def test_calls_come_in_the_order_in_which_they_were_made(shim: Path, folder: Path) -> None:
    kinds = [event.kind for event in run_traced(shim, folder, EVERY_CALL)]
    assert kinds[:8] == [
        Kind.MKDIR, Kind.CREATE, Kind.WRITE, Kind.WRITE, Kind.WRITE, Kind.WRITE, Kind.ALLOCATE, Kind.TRUNCATE,
    ]  # fmt: skip
    assert kinds.count(Kind.SYNC) == 3


def test_a_call_that_fails_is_no_event(shim: Path, folder: Path) -> None:
    program = """
import os
for call in (lambda: os.rename("none", "other"), lambda: os.unlink("none"), lambda: os.mkdir(".")):
    try:
        call()
    except OSError:
        pass
"""
    assert run_traced(shim, folder, program) == []


def test_files_elsewhere_and_pipes_are_no_event(shim: Path, folder: Path) -> None:
    program = """
import os
open(os.path.dirname(os.getcwd()) + "/elsewhere", "w").write("x")
read, write = os.pipe()
os.write(write, b"x")
"""
    assert run_traced(shim, folder, program) == []


def test_a_pretended_sync_is_neither_made_nor_seen(shim: Path, folder: Path) -> None:
    events = run_traced(shim, folder, EVERY_CALL, pretend="/sub/a")
    assert [event.kind for event in events].count(Kind.SYNC) == 2


def test_what_a_child_process_does_is_in_the_same_order(shim: Path, folder: Path) -> None:
    program = """
import os, subprocess, sys
open("a", "w").close()
subprocess.run([sys.executable, "-S", "-c", "open('b', 'w').close()"], check=True)
open("c", "w").close()
"""
    paths = [Path(event.paths[0]).name for event in run_traced(shim, folder, program)]
    assert paths == ["a", "b", "c"]


def test_a_killed_process_leaves_what_it_began(shim: Path, folder: Path) -> None:
    """A receive that never returned is nothing; what came before is there."""
    trace = folder.parent / "trace"
    make_trace(trace)
    program = "import os, signal; open('a', 'w').close(); os.kill(os.getpid(), signal.SIGKILL)"
    environment = shim_environment(shim, trace, folder)
    subprocess.run([sys.executable, "-S", "-c", program], cwd=folder, env=environment, timeout=60)
    assert [event.kind for event in read_trace(trace)] == [Kind.CREATE]


def test_a_trace_that_cannot_be_read_is_no_trace(tmp_path: Path) -> None:
    make_trace(tmp_path / "trace")
    with (tmp_path / "trace").open("r+b") as file:
        file.seek(8)
        file.write((128).to_bytes(8, "little"))
    with pytest.raises(BrokenTrace, match="no event at 64"):
        read_trace(tmp_path / "trace")


def test_every_name_of_a_new_ledger_is_certain(shim: Path, folder: Path) -> None:
    """By the ledger's own syncs: those of a database in the same folder are not its to count on."""
    program = """
from pathlib import Path
from kms_fast.host.ledger import open_ledger
open_ledger(Path.cwd() / "ledger", host_id=bytes(16), certificates=bytes(100))
"""
    contents = cut_at_end(folder, run_traced(shim, folder, program, site=True), "dropped")
    assert set(contents) == {"", "ledger", "ledger/segment-00000001.kfl"}


def test_a_hosts_syncs_and_answers_are_seen(shim: Path, tmp_path: Path) -> None:
    """uvloop's answers, the commit thread's records and SQLite's transactions, on a real host."""
    realm = make_realm(tmp_path)
    make_trace(tmp_path / "trace")
    asker = Asker.of(realm, "desktop")
    environment = shim_environment(shim, tmp_path / "trace", realm.home)
    with serve(realm, environment=environment) as host, Connection(host.address) as connection:
        connection.bind()
        for one in (asker.ask(), asker.ask(), asker.ask()):
            asker.check(one, connection.call(one.request)[0])
    events = read_trace(tmp_path / "trace")
    paths = {event.file: event.paths[-1] for event in events if event.kind == Kind.CREATE}
    kinds = [
        event.kind
        for event in events
        if event.kind in (Kind.SEND, Kind.RECEIVE) or Path(paths.get(event.file, "")).name.startswith("segment-")
    ]
    # The recorder may sync the segment as well, before it reads what was written: that follows no write of its own.
    kinds = [kind for before, kind in pairwise([None, *kinds]) if kind != Kind.SYNC or before == Kind.WRITE]
    bound = kinds.index(Kind.SEND) + 1
    # The first commit brings zeros for those after it.
    first = [Kind.RECEIVE, Kind.WRITE, Kind.WRITE, Kind.SYNC, Kind.SEND]
    assert kinds[bound : bound + 13] == first + [Kind.RECEIVE, Kind.WRITE, Kind.SYNC, Kind.SEND] * 2
    databases = [event for event in events if paths.get(event.file, "").endswith("-wal")]
    assert {Kind.WRITE, Kind.SYNC} <= {event.kind for event in databases}
