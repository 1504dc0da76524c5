"""What a running host says of itself in its home, so that commands find it: one locked file for each process.

``host/serve-PID.json`` is locked (flock) as long as the host runs; a file that nobody locks is left over and removed.
"""

import fcntl
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from kms_fast.errors import KmsFastError
from kms_fast.model.names import parse_listen_address

FILE_SIZE: Final = 4096
LONGEST_MESSAGE: Final = 1000
POLL_S: Final = 0.05


class HostProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A running host. ``reloads`` counts attempts; ``reload_error`` is `KmsFastError.to_json` of one that failed.

    ``renewal_failed``: the same of the last attempt to renew, and its ``time_ms``, if it failed.
    """

    pid: int
    version: str
    started_ms: int
    addresses: tuple[str, ...]
    workers: int
    reloads: int = 0
    reload_error: dict[str, Any] | None = None
    renewal_failed: dict[str, Any] | None = None


class Presence:
    """The file of this process, from its making to `close`. Raises OSError that names it."""

    def __init__(self, folder: Path, process: HostProcess) -> None:
        self.process = process
        self._path = folder / f"serve-{process.pid}.json"
        unfinished = self._path.with_suffix(".new")
        self._fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Locked and whole before it has its name: under that one nobody takes it for left over.
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self._write()
            unfinished.replace(self._path)
        except OSError as error:
            os.close(self._fd)
            unfinished.unlink(missing_ok=True)
            error.filename, error.filename2 = str(self._path), None  # what is done through a descriptor names none
            raise

    def update(self, **changes: Any) -> None:
        """Change what is said."""
        self.process = msgspec.structs.replace(self.process, **changes)
        self._write()

    def close(self) -> None:
        """The host ends: remove the file."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)

    def _write(self) -> None:
        # One page in one write, so that no reader sees half of it.
        data = msgspec.json.encode(self.process, enc_hook=str)
        longest = LONGEST_MESSAGE
        while len(data) > FILE_SIZE and longest:
            short = {
                name: _shorten(getattr(self.process, name), longest) for name in ("reload_error", "renewal_failed")
            }
            data = msgspec.json.encode(msgspec.structs.replace(self.process, **short))
            longest //= 2
        data = data.ljust(FILE_SIZE)
        os.pwrite(self._fd, data, 0)
        # Very many addresses take more than a page, and less again later.
        if os.fstat(self._fd).st_size > len(data):
            os.ftruncate(self._fd, len(data))


def _shorten(error: dict[str, Any] | None, longest: int) -> dict[str, Any] | None:
    return error and error | {"message": error["message"][:longest], "details": {}}


def list_running(folder: Path) -> list[HostProcess]:
    """The hosts that run in this home now. Raises OSError."""
    running = []
    for path in sorted(folder.glob("serve-*.json")):
        # It may be gone by now.
        with suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                running.append(msgspec.json.decode(file.read(), type=HostProcess))
            else:
                # Whoever may only look leaves it.
                if os.access(folder, os.W_OK):
                    path.unlink(missing_ok=True)
    return running


def find_home(port: int) -> Path | None:
    """The home of a running host that listens on this port, as far as this user may see it; None without ``/proc``.

    Its supervisor has its file open, and a descriptor's link leads there.
    """
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        # Processes end while we look, and those of others are not shown.
        with suppress(OSError, msgspec.DecodeError):
            path = link.readlink()
            if path.match(f"host/serve-{link.parts[2]}.json"):
                process = msgspec.json.decode(link.read_bytes(), type=HostProcess)
                if any(parse_listen_address(other)[1] == port for other in process.addresses):
                    return path.parents[1]
    return None


def reload_running(folder: Path, *, limit_s: float) -> list[HostProcess]:
    """Let every host of this home reload, and wait until each has; those hosts.

    Raises `KmsFastError`: HOST_NOT_RUNNING, or why one of them could not; OSError when it may not be told.
    """
    asked = {process.pid: process.reloads for process in list_running(folder)}
    if not asked:
        raise KmsFastError(f"No host runs in this home: {folder.parent}.", name="HOST_NOT_RUNNING", folder=str(folder))
    for pid in asked:
        os.kill(pid, signal.SIGHUP)
    end_s = time.monotonic() + limit_s
    while True:
        running = [process for process in list_running(folder) if process.pid in asked]
        if ended := asked.keys() - {process.pid for process in running}:
            raise KmsFastError(f"The host (process {min(ended)}) ended before it reloaded.", name="PROCESS_FAILED")
        if all(process.reloads > asked[process.pid] for process in running):
            break
        if time.monotonic() > end_s:
            raise KmsFastError(f"The host did not say within {limit_s:.0f} s that it reloaded.", name="PROCESS_FAILED")
        time.sleep(POLL_S)
    for process in running:
        if process.reload_error is not None:
            raise KmsFastError.from_json(process.reload_error)
    return running
