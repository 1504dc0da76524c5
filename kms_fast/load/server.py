"""A ``kms-fast serve`` process of the lab's own: started, measured, drained."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from kms_fast.errors import KmsFastError
from kms_fast.load.processes import hold_interrupts, own_environment
from kms_fast.programs import program_command

DRAIN_LIMIT_S = 600
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ServerProcess:
    """The process, its address and port. Its log goes to ``log``.

    It runs in a process group of its own: Ctrl-C on the terminal is for the lab, which then ends the server.
    """

    def __init__(
        self, home: Path, log: Path, *, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the server and wait until it listens on a free port of loopback.

        ``environment``: variables beside those of `own_environment`, as for a store's URL with its password.

        Raises `KmsFastError` with what the server said when it does not get there.
        """
        self._log = log
        arguments = ["serve", "--home", str(home), "--listen", "127.0.0.1:0", "--json", *options]
        try:
            with hold_interrupts(), log.open("ab") as errors:
                self.process = subprocess.Popen(
                    [*program_command("kms_fast.cli.main"), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    process_group=0,
                    env=own_environment() | dict(environment or {}),
                )
            self.address, self.port = self._read_address()
        except BaseException:
            if hasattr(self, "process"):
                self.kill()
            raise

    def _read_address(self) -> tuple[str, int]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            said = self._log.read_text(errors="replace").strip().splitlines()
            raise KmsFastError(
                f"The server did not start: {said[-1] if said else 'it said nothing'}",
                exit_code=self.process.returncode,
            )
        listening = json.loads(line)
        if listening.get("event") != "listening":
            self.process.wait()
            raise KmsFastError(
                f"The server did not start: {listening.get('message', line)}", name=listening.get("name")
            )
        return listening["address"], listening["port"]

    def cpu_s(self) -> float | None:
        """User and system time of all server processes so far; None where the system does not tell."""
        try:
            return sum(_read_cpu_ticks(pid) for pid in list_processes(self.process.pid)) / _TICKS_PER_S
        except OSError:
            return None

    def drain(self) -> int:
        """TERM: the server answers what waits, records it and ends; its exit code. Killed when it takes ten minutes."""
        self.process.terminate()
        try:
            return self.process.wait(DRAIN_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode

    def kill(self) -> None:
        """End the server at once, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def list_processes(pid: int) -> list[int]:
    """A process and all that descend from it. Raises OSError where the system does not tell."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(descendant for child in children for descendant in list_processes(int(child)))]


def _read_cpu_ticks(pid: int) -> int:
    # proc(5): utime and stime are fields 14 and 15; the name in parentheses may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
