"""What tests need from outside: a missing tool skips the test, or fails it under KMS_FAST_REQUIRE_SERVICES=1."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NoReturn

import pytest

from kms_fast import _core
from kms_fast.discovery.address import HostAddress
from kms_fast.publisher.publisher import Publisher
from tests.hosts import real_host as real_host
from tests.name_servers import NameServer, find_missing, run_server
from tests.postgres import PostgresServer, find_programs, own_database
from tests.publishing import make_publisher

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test begins first, lest it is the last one that a process waits for."""
    items.sort(key=lambda item: item.path.name != "test_rolling_restarts.py")


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    """A publisher with a desktop and a server product, exported."""
    with closing(make_publisher(tmp_path / "publisher")) as made:
        yield made


@pytest.fixture(scope="session")
def unavailable() -> Callable[[str], NoReturn]:
    """Call it with what is missing and how to get it."""

    def give_up(reason: str) -> NoReturn:
        if os.environ.get("KMS_FAST_REQUIRE_SERVICES") == "1":
            pytest.fail(f"{reason} (KMS_FAST_REQUIRE_SERVICES=1)")
        pytest.skip(reason)

    return give_up


@pytest.fixture(scope="session")
def require_tool(unavailable: Callable[[str], NoReturn]) -> Callable[[str], str]:
    """Call it with a program's name; gives the program's path."""

    def find(name: str) -> str:
        return shutil.which(name) or unavailable(f"{name} is not installed")

    return find


@pytest.fixture(scope="session")
def strace(require_tool: Callable[[str], str], unavailable: Callable[[str], NoReturn]) -> str:
    """The program, where it may be used."""
    program = require_tool("strace")
    if subprocess.run([program, "-qq", "-e", "trace=none", "true"], capture_output=True, timeout=30).returncode:
        unavailable("this system does not let strace trace")
    return program


@pytest.fixture
def untraced() -> None:
    """A build with line tracing (KMS_FAST_DEBUG=1) shows the interpreter each function of its own."""
    files = set()
    sys.setprofile(lambda frame, event, argument: files.add(frame.f_code.co_filename))
    _core.sha256(b"")
    sys.setprofile(None)
    if any(name.endswith((".pxi", ".pyx")) for name in files):
        pytest.skip("the core was built with line tracing")


@pytest.fixture(scope="session")
def impacket_python(unavailable: Callable[[str], NoReturn]) -> str:
    """An interpreter that can import impacket: in an environment of its own, for its dependencies are many."""
    python = Path(os.environ.get("KMS_FAST_IMPACKET_PYTHON", ROOT / ".venv-impacket" / "bin" / "python"))
    if not python.exists():
        unavailable("impacket is not installed: python3 -m venv .venv-impacket, then pip install impacket there")
    return str(python)


@pytest.fixture
def stock_server(impacket_python: str) -> Iterator[HostAddress]:
    """A stock DCE/RPC server, with other interfaces than ours."""
    command = [impacket_python, ROOT / "tests" / "system" / "impacket_server.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield HostAddress("127.0.0.1", int(server.stdout.readline()))
        server.kill()


@pytest.fixture(scope="session")
def start_postgres(unavailable: Callable[[str], NoReturn]) -> Iterator[Callable[..., PostgresServer]]:
    """Call it with settings (or ``primary=``) for a PostgreSQL server of your own; it ends with the tests."""
    with ExitStack() as servers:
        yield lambda **settings: servers.enter_context(
            PostgresServer(find_programs() or unavailable("PostgreSQL is not installed"), **settings)
        )


@pytest.fixture(scope="session")
def postgres_server(start_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    """A PostgreSQL server that all tests share: let it run, and leave its settings alone."""
    return start_postgres()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of an empty database."""
    with own_database(postgres_server) as url:
        yield url


@pytest.fixture
def start_name_server(unavailable: Callable[[str], NoReturn], tmp_path: Path) -> Iterator[Callable[..., NameServer]]:
    """Call it with ``bind9`` or ``knot``, and zones (texts by name) unless it is to have ``example.com`` alone."""
    with ExitStack() as servers:

        def start(kind: str, zones: Mapping[str, str] | None = None, **options: Any) -> NameServer:
            if missing := find_missing(kind):
                unavailable(f"{missing} is not installed")
            return servers.enter_context(run_server(kind, tmp_path / kind, zones, **options))

        yield start


@pytest.fixture(params=["bind9", "knot"])
def name_server(request: pytest.FixtureRequest, start_name_server: Callable[..., NameServer]) -> NameServer:
    """Each kind of name server, with the zone ``example.com``."""
    return start_name_server(request.param)


@pytest.fixture
def mount(unavailable: Callable[[str], NoReturn], tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Call it with mount's options for a file system in memory; gives its folder."""
    mounted: list[Path] = []

    def mount_tmpfs(options: str) -> Path:
        folder = tmp_path / f"mounted{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, timeout=30).returncode:
            unavailable("mounting a file system needs root and the right to mount")
        mounted.append(folder)
        return folder

    yield mount_tmpfs
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True, timeout=30)
