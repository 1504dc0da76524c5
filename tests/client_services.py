"""A real ``kms-fast client run`` process, and the moments at which its looks end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass
class RunningService:
    """A service. ``notices``: the socket on which it tells what a service manager hears."""

    home: Path
    process: subprocess.Popen[str]
    notices: socket.socket

    @property
    def log(self) -> str:
        return (self.home / "run.log").read_text()

    def look(self) -> None:
        """Let the service look, and wait until a look that began after this call has ended."""
        look_all([self])

    def begin_look(self) -> None:
        """Let the service look."""
        self.process.send_signal(signal.SIGHUP)

    def forget_notices(self) -> None:
        """Read what was told so far."""
        self.notices.settimeout(0)
        with suppress(BlockingIOError):
            while self.notices.recv(4096):
                pass
        self.notices.settimeout(30)

    def await_notice(self, start: str) -> str:
        """Wait for the next notice that starts so."""
        while not (notice := self.notices.recv(4096).decode()).startswith(start):
            pass
        return notice

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and gives the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)


def look_all(services: Sequence[RunningService]) -> None:
    """Let services look at the same time, and wait until looks that began after this call have ended."""
    for service in services:
        service.forget_notices()
    for _ in range(2):  # what ends first may have begun before
        for service in services:
            service.begin_look()
        for service in services:
            service.await_notice("STATUS=")


@contextmanager
def run_service(home: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[RunningService]:
    """Runs ``kms-fast client run`` until the block ends, after its first look; its log is ``run.log``."""
    home.mkdir(exist_ok=True)
    address = home / "notices"
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices, (home / "run.log").open("w") as log:
        notices.bind(str(address))
        notices.settimeout(30)
        process = subprocess.Popen(
            [sys.executable, "-m", "kms_fast", "client", "run", "--home", home, *options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"NOTIFY_SOCKET": str(address)} | (environment or {}),
        )
        service = RunningService(home, process, notices)
        try:
            service.await_notice("READY=1")
            service.await_notice("STATUS=")
            yield service
        finally:
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=30)
