"""The servers that are measured: the echo limit, the uvloop limit and a real host, each on the servers' core."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from samples import Server, make_plan, settle

from kms_fast._core import RpcCounters, Session, build_bind
from kms_fast.cli.realm import make_realm
from kms_fast.load.plan import find_product
from kms_fast.load.processes import run_load
from kms_fast.load.server import ServerProcess

LIMITS = Path(__file__).parent / "limit"
SERVER_CORE = 0
BOTH_CORES = (0, 1)
ANSWER_SIZE = 932  # one family in the certificate, nine path nodes: a batch of 257 to 512
THRESHOLD = 25
KNOWN_MACHINES = 100_000  # as many as a load has unless it is told otherwise


@contextmanager
def on_cores(*cores: int) -> Iterator[None]:
    """Processes started in the block run on these cores, with all of their threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def make_ready_bytes() -> tuple[str, str]:
    """The bind_ack and the response that the limits answer with, in hexadecimal."""
    session = Session(RpcCounters())
    session.receive(build_bind())
    bind_ack = session.take_output()
    session.respond(1, 0, bytes(ANSWER_SIZE), 0)
    return bind_ack.hex(), session.take_output().hex()


@contextmanager
def run_limit(name: str, command: list[str]) -> Iterator[Server]:
    """A limit server until the block ends."""
    with on_cores(SERVER_CORE):
        process = subprocess.Popen([*command, *make_ready_bytes()], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Server(name, int(process.stdout.readline().rpartition(":")[2]), process.pid, None)
    finally:
        process.kill()
        process.wait()


@contextmanager
def run_host(
    folder: Path,
    *options: str,
    name: str = "host",
    cores: Sequence[int] = (SERVER_CORE,),
    machines: int = KNOWN_MACHINES,
) -> Iterator[Server]:
    """A real host with its count at the cap, which knows so many of the machines that ask it, until the block ends.
    ``options``: of kms-fast serve.
    """
    realm = make_realm(folder, threshold=THRESHOLD)
    with on_cores(*cores):
        process = ServerProcess(folder, folder / "serve.log", options=("--max-connections", "20000", *options))
    try:
        product = find_product(realm.publisher, realm.setup_key)
        server = Server(name, process.port, process.process.pid, product)
        run_load(make_plan(server, connections=8, activations=2 * THRESHOLD))
        if machines:
            run_load(make_plan(server, activations=machines))
        settle(server)
        yield server
        process.drain()
    finally:
        process.kill()


@contextmanager
def run_limits(folder: Path) -> Iterator[list[Server]]:
    """The echo limit and the uvloop limit, in this order, until the block ends."""
    echo, uvloop = [compile_echo(folder)], [sys.executable, str(LIMITS / "uvloop_limit.py")]
    with run_limit("echo", echo) as first, run_limit("uvloop", uvloop) as second:
        yield [first, second]


@contextmanager
def make_folder() -> Iterator[Path]:
    """A folder on a real disk, for a host's files; it goes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="kms-fast-bench-", dir="/var/tmp") as name:
        yield Path(name)


def compile_echo(folder: Path) -> str:
    """Path of the compiled echo limit."""
    program = folder / "echo"
    subprocess.run(["gcc", "-O2", "-o", program, LIMITS / "echo.c"], check=True)
    return str(program)
