"""What the stores in SQLite files share: opening and migrating a file, transactions, a thread of its own, errors."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import apsw

from kms_fast.errors import KmsFastError
from kms_fast.files import SECRET
from kms_fast.sqlite import WAIT_S, describe_error, open_to_read, transaction

_LONGEST_PAUSE_S: Final = 0.05

_Returned = TypeVar("_Returned")


class SqliteFile:
    """A connection to one SQLite file (WAL, synchronous=FULL), used from a thread of its own. Only its owner may read a
    new one, nor the files that SQLite makes beside it.

    ``migrations``: the scripts that make the tables, each from the version before it; the file knows how many it has
    had. Raises `KmsFastError`: STORAGE_FAILED when the file cannot be opened, STORE_DAMAGED when it is no whole
    database, STORE_VERSION when a newer program made its tables. ``what`` names the content in messages, ``without_it``
    says there what happens when a damaged file is taken away; a new file gets pages of ``page_bytes``. ``reading``:
    nothing will be written, so it need not be allowed.
    """

    def __init__(
        self,
        path: Path,
        what: str,
        migrations: Sequence[str],
        *,
        without_it: str,
        page_bytes: int = 4096,
        reading: bool = False,
    ) -> None:
        self._path = path
        self._what = what
        self._without_it = without_it
        self._wait_s = WAIT_S
        self._waits_since_s = 0.0
        self._closing = False
        with self.storage_errors():
            try:
                self._open(page_bytes)
            except (apsw.CantOpenError, apsw.ReadOnlyError):
                if not reading:
                    raise
                self.db = open_to_read(path)
        self._migrate(migrations)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=what)

    def _open(self, page_bytes: int) -> None:
        _create(self._path)
        self.db = apsw.Connection(str(self._path))
        self.db.set_busy_handler(self._wait_for_lock)
        self.db.pragma("page_size", page_bytes)
        self.db.pragma("journal_mode", "wal")
        self.db.pragma("synchronous", "full")

    async def in_thread(self, function: Callable[[], _Returned]) -> _Returned:
        """Call a function that uses `db` in the connection's thread. Raises what `storage_errors` does."""

        def call() -> _Returned:
            with self.storage_errors():
                return function()

        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One durable transaction: all of it or, when anything is raised, nothing."""
        with transaction(self.db):
            yield

    @contextmanager
    def waiting(self, wait_s: float) -> Iterator[None]:
        """Wait so long for another process that writes."""
        self._wait_s = wait_s
        try:
            yield
        finally:
            self._wait_s = WAIT_S

    async def close(self) -> None:
        """Close the file and end its thread; a call that waits for another process gives up."""
        self._closing = True
        await self.in_thread(self.db.close)
        self._thread.shutdown()

    @contextmanager
    def storage_errors(self) -> Iterator[None]:
        """Turns SQLite's errors into `KmsFastError` that names the file: STORE_IN_USE when another process wrote for
        too long, STORE_DAMAGED, else STORAGE_FAILED.
        """
        try:
            yield
        except apsw.BusyError as error:
            raise KmsFastError(
                f"Another process writes to the {self._what} in {self._path}, and did not end in time.",
                name="STORE_IN_USE",
                file=str(self._path),
            ) from error
        except (apsw.CorruptError, apsw.NotADBError) as error:
            raise KmsFastError(
                f"The {self._what} in {self._path} cannot be used: {error}. Without a backup, stop the host and move "
                f"the file away, and those beside it that end in -wal and -shm: {self._without_it}.",
                name="STORE_DAMAGED",
                file=str(self._path),
            ) from error
        except (apsw.Error, OSError) as error:
            raise KmsFastError(
                f"The {self._what} in {self._path} cannot be used: {describe_error(error)}.",
                name="STORAGE_FAILED",
                file=str(self._path),
            ) from error

    def _wait_for_lock(self, tries: int) -> bool:
        """Whether SQLite, which has tried so often, is to try again."""
        now_s = time.monotonic()
        if tries == 0:
            self._waits_since_s = now_s
        if self._closing or now_s - self._waits_since_s >= self._wait_s:
            return False
        time.sleep(min(0.001 * (1 << min(tries, 6)), _LONGEST_PAUSE_S))
        return True

    def _version(self) -> int:
        return int(self.db.pragma("user_version"))

    def _migrate(self, migrations: Sequence[str]) -> None:
        newest = len(migrations)
        with self.storage_errors():
            # Another process may be opening the same new file.
            if self._version() < newest:
                with self.transaction():
                    for number in range(self._version(), newest):
                        self.db.execute(migrations[number])
                    self.db.pragma("user_version", newest)
            version = self._version()
        if version > newest:
            raise KmsFastError(
                f"The {self._what} in {self._path} have tables of version {version}; this program knows {newest}.",
                name="STORE_VERSION",
                file=str(self._path),
                version=version,
                known=newest,
            )


def _create(path: Path) -> None:
    """Make the file, unless it is there. Raises OSError."""
    if not path.exists():
        # Another process may be opening the same new file.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, SECRET))
