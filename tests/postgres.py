"""PostgreSQL servers of the tests' own: a folder, a Unix socket, a free port, and nothing of the machine's servers."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.ports import find_free_port

PASSWORD = "s3cret-of-the-tests"


def find_programs() -> Path | None:
    """The folder of initdb and pg_ctl; None when PostgreSQL is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if folders:
        return folders[-1]
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class PostgresServer:
    """A server that can be stopped, killed, frozen and started again; use it as a context.

    ``primary``: the running server that this one is to be a standby of.
    """

    def __init__(self, programs: Path, *, primary: "PostgresServer | None" = None, **settings: str) -> None:
        self._programs = programs
        self._primary = primary
        # PostgreSQL refuses to run as root.
        self._as_user = (
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
        )
        self.folder = Path(tempfile.mkdtemp(prefix="kms-fast-postgres-"))
        self.data = self.folder / "data"
        self.port = find_free_port()
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            "shared_buffers": "32MB",
            **settings,
        }

    def __enter__(self) -> "PostgresServer":
        password = self.folder / "password"
        password.write_text(PASSWORD)
        if self._as_user:
            for path in (self.folder, password):
                shutil.chown(path, "postgres", "postgres")
        if self._primary is not None:
            self._call("pg_basebackup", "-D", self.data, "-d", self._primary.url(), "-R", "-c", "fast", "--no-sync")
        else:
            login = ["-U", "kms", "-A", "scram-sha-256", "--pwfile", password]
            self._call("initdb", "-D", self.data, *login, "--no-sync", "--data-checksums", "-E", "UTF8")
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in self._settings.items())
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder)

    def url(self, database: str = "postgres", *, user: str = "kms", password: str = PASSWORD) -> str:
        """URL of a database, over TCP."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [*self._as_user, self._programs / "postgres", "-D", self.data]
        # As a child of ours, so that it can be waited for when it was killed: no server starts beside a zombie.
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen(list(map(str, command)), cwd=self.folder, stdout=log, stderr=log)
        deadline_s = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"PostgreSQL does not start: {(self.folder / 'log').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it in order; open connections are cut."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=60)

    def kill(self) -> None:
        """End every process of it at once (SIGKILL), as a crash does."""
        processes = self._signal_all(signal.SIGKILL)
        self._process.wait(timeout=60)
        while any(map(is_alive, processes)):
            time.sleep(0.01)

    def promote(self) -> None:
        """Make a standby the primary."""
        self.execute("SELECT pg_promote()")

    def freeze(self) -> None:
        """Let every process of it hang (SIGSTOP): connections open, nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal_all(signal.SIGCONT)

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Run SQL as the superuser; what psql prints."""
        command = [self._programs / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url(database)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()

    def _signal_all(self, number: signal.Signals) -> list[int]:
        """Send a signal to the postmaster, then to its children; which these were."""
        postmaster = self._process.pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        processes = [postmaster, *map(int, children)]
        for pid in processes:
            # A connection's process may end by itself meanwhile.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return processes

    def _answers(self) -> bool:
        command = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, timeout=60).returncode == 0

    def _call(self, program: str, *arguments: object) -> None:
        command = [*self._as_user, self._programs / program, *arguments]
        done = subprocess.run(list(map(str, command)), cwd=self.folder, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")


@contextlib.contextmanager
def own_database(server: PostgresServer) -> Iterator[str]:
    """A new, empty database, removed in the end; gives its URL."""
    name = f"kms_{time.time_ns()}"
    server.execute(f"CREATE DATABASE {name}")
    yield server.url(name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
