"""One service a home: a locked file says that one runs, and which process it is (``kms-fast client run``).

``client/service.lock`` is locked (flock) as long as the service runs; what is written in it counts only while it is.
"""

import os
import sys
import time
from pathlib import Path
from typing import Final

from kms_fast.errors import KmsFastError
from kms_fast.files import SECRET, SECRET_FOLDER

FILE_NAME: Final = "service.lock"
TRIES: Final = 10
BETWEEN_TRIES_S: Final = 0.05

if sys.platform == "win32":

    class Presence:
        """A claim that fails: the service needs signals and file locks that this system has not."""

        def __init__(self, folder: Path) -> None:
            raise KmsFastError("The client's service does not run on this system.", folder=str(folder))

        def close(self) -> None:
            """Nothing was claimed."""

    def find_service(folder: Path) -> int | None:
        """None: no service runs on this system."""
        return None

else:
    import fcntl

    class Presence:
        """This process's claim to be the service of a home, from its making to `close`.

        Raises `KmsFastError` (CLIENT_RUNNING) when another process is, OSError as the system does.
        """

        def __init__(self, folder: Path) -> None:
            folder.mkdir(mode=SECRET_FOLDER, parents=True, exist_ok=True)
            path = folder / FILE_NAME
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET)
            try:
                self._claim(path)
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, str(os.getpid()).encode(), 0)
            except BaseException as error:
                os.close(self._fd)
                if isinstance(error, OSError):
                    error.filename = str(path)  # what is done through a descriptor names none
                raise

        def close(self) -> None:
            """The service ends."""
            os.close(self._fd)

        def _claim(self, path: Path) -> None:
            # More than once: whoever looks whether a service runs holds the lock for that moment.
            for _ in range(TRIES):
                try:
                    fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    time.sleep(BETWEEN_TRIES_S)
            pid = _read_pid(self._fd)
            raise KmsFastError(
                f"The client's service of this home runs already, as process {pid}.",
                name="CLIENT_RUNNING",
                process=pid,
                file=str(path),
            )

    def find_service(folder: Path) -> int | None:
        """The process ID of the service of a home, None when none runs. Raises OSError."""
        try:
            fd = os.open(folder / FILE_NAME, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_pid(fd)
        finally:
            os.close(fd)
        return None

    def _read_pid(fd: int) -> int:
        return int(os.pread(fd, 20, 0) or 0)
