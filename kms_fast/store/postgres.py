"""The connection to a PostgreSQL store: opened, checked, kept, and found again after an outage.

`connect` opens one that is fit for a host. `PostgresSession` keeps one for a process:

    up      calls take turns on the connection, each for at most `limit_s`
    down    calls fail at once; a task waits for the call that hangs, then connects anew with growing pauses

A call that hangs is never cancelled: the request would need a connection to the same server, which hangs as well, and
what had become of the call would still not be known. It goes on in a task of its own, and until that has ended or its
connection is cut, nothing else uses the connection.
"""

import asyncio
import random
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar
from urllib.parse import urlsplit

import asyncpg

from kms_fast.errors import KmsFastError
from kms_fast.messages import log
from kms_fast.model.settings import mask_password
from kms_fast.store.postgres_schema import check_version, explain_rights, migrate_tables

OLDEST_VERSION: Final = 15
CONNECT_LIMIT_S: Final = 5.0
# How long a call that hangs keeps its connection. Short, as another server may have taken over meanwhile.
ABANDON_S: Final = 10.0
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0

_SETTINGS: Final = {
    # Statements of one transaction must see what others committed while it waited for its lock.
    "default_transaction_isolation": "read committed",
    "jit": "off",
    # A host that vanished must not hold its locks for hours.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

_CHECK = """
SELECT current_setting('fsync', true) AS fsync, current_setting('synchronous_commit', true) AS synchronous_commit,
    current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS in_recovery,
    current_setting('transaction_read_only') AS read_only
"""

# A row lock is written ahead and synced as any change is. So this returns only while commits do.
_TRY_COMMIT = "SELECT family FROM kms_fast.families WHERE family = -1 FOR UPDATE"

_END_ABANDONED = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = current_setting('application_name') AND pid <> pg_backend_pid() AND usename = current_user
"""

# Classes of SQLSTATE that come again however often a call is tried: of values, constraints, statements and tables.
_LASTING: Final = frozenset({"0A", "21", "22", "23", "42", "44", "P0"})

POSTGRES_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What asyncpg raises when the server refuses, is not there, or answers nonsense."""

# What PostgreSQL says names a table, not the right to it; to lock a row, as a look at commits does, is an UPDATE.
_NEEDED_RIGHTS: Final = (
    "Commands that read need USAGE on the schema kms_fast, SELECT on all its tables and UPDATE on kms_fast.families; "
    "hosts need the rights that docs/store.md grants."
)

_Result = TypeVar("_Result")


class PostgresSession:
    """One connection for this process on the running event loop; made by `open`.

    ``limit_s``: how long a call may take that says nothing else. ``shown`` is the store's URL without its password.
    """

    def __init__(self, url: str, *, limit_s: float) -> None:
        self.shown = mask_password(url)
        self._url = url
        self._limit_s = limit_s
        # Tells our abandoned connections from those of other processes of the same role.
        self._application_name = f"kms-fast {socket.gethostname()[:40]} {secrets.token_hex(4)}"
        self._connection: asyncpg.Connection | None = None
        self._down: KmsFastError | None = None
        self._turn = asyncio.Lock()
        self._working: asyncio.Task[object] | None = None
        self._work_ends_s = 0.0
        self._recovery: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str, *, limit_s: float) -> "PostgresSession":
        """Connect.

        Raises `KmsFastError` when that is not possible now: STORE_UNAVAILABLE, STORE_EMPTY, STORE_VERSION, or what
        `explain` makes of an error.
        """
        session = cls(url, limit_s=limit_s)
        session._use(await session._connect())
        return session

    @classmethod
    async def start(cls, url: str, *, limit_s: float) -> "PostgresSession":
        """Connect, or if that is not possible now, be down until it is: for a process that must start all the same."""
        session = cls(url, limit_s=limit_s)
        try:
            session._use(await session._connect())
        except KmsFastError as error:
            session._down = error
            log("STORE_LOST", error=error)
            session._recovery = asyncio.create_task(session._recover(None))
        return session

    async def run(
        self, work: Callable[[asyncpg.Connection], Awaitable[_Result]], *, limit_s: float | None = None
    ) -> _Result:
        """Await ``work(connection)``, alone on the connection, for at most ``limit_s`` if given.

        Raises `KmsFastError` (STORE_UNAVAILABLE; STORE_VERSION after an outage): nothing came of it, or after the
        limit it is not known whether something will. At once while the store is down. STORE_REFUSED: the same call
        would fail again, for what it holds or what was done to the tables; NOT_ALLOWED: for a right that is missing.
        """
        limit_s = limit_s or self._limit_s
        working: asyncio.Task[_Result] | None = None
        try:
            async with asyncio.timeout(limit_s):
                working = await self._begin(work, limit_s)
                return await asyncio.shield(working)
        except TimeoutError as error:
            unavailable = self._unavailable(f"it did not answer within {limit_s:g} s")
            # A call that only waited for its turn says nothing of one that may take longer.
            if working is not None or asyncio.get_running_loop().time() >= self._work_ends_s:
                self._go_down(unavailable)
            raise unavailable from error
        except POSTGRES_ERRORS as error:
            raise explain(error, self.shown) from error

    async def close(self) -> None:
        """Close the connection; a call that still hangs ends with an error."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.wait({self._recovery})
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.remove_termination_listener(self._lost)
        if self._working is not None:
            connection.terminate()
            await asyncio.wait({self._working})
        else:
            await close(connection)

    async def _begin(
        self, work: Callable[[asyncpg.Connection], Awaitable[_Result]], limit_s: float
    ) -> "asyncio.Task[_Result]":
        """Start the work in a task of its own when it is its turn."""
        self._check_up()
        await self._turn.acquire()
        try:
            working = asyncio.ensure_future(self._work(work, self._check_up()))
        except BaseException:
            self._turn.release()
            raise
        self._working, self._work_ends_s = working, asyncio.get_running_loop().time() + limit_s
        working.add_done_callback(self._end)
        return working

    async def _work(
        self, work: Callable[[asyncpg.Connection], Awaitable[_Result]], connection: asyncpg.Connection
    ) -> _Result:
        try:
            return await work(connection)
        except asyncpg.ReadOnlySQLTransactionError:
            # The server became a standby; another one has taken over.
            connection.terminate()
            raise
        finally:
            if connection.is_closed():
                self._lost(connection)

    def _end(self, working: "asyncio.Task[object]") -> None:
        self._working = None
        self._turn.release()
        if not working.cancelled():
            # Whoever waited for it may have given up; an error that nobody fetches would be logged as a defect.
            working.exception()

    def _check_up(self) -> asyncpg.Connection:
        if self._connection is None or self._down is not None:
            down = self._down or self._unavailable("it is closed")
            raise KmsFastError(down.message, name=down.result.name, **down.details)
        return self._connection

    def _unavailable(self, reason: str) -> KmsFastError:
        return _unavailable(reason, self.shown)

    def _use(self, connection: asyncpg.Connection) -> None:
        self._connection, self._down = connection, None
        connection.add_termination_listener(self._lost)

    def _lost(self, connection: object) -> None:
        if connection is self._connection:
            self._go_down(self._unavailable("the connection was lost"))

    def _go_down(self, error: KmsFastError) -> None:
        if self._down is None and self._connection is not None:
            self._down = error
            log("STORE_LOST", error=error)
            self._recovery = asyncio.create_task(self._recover(self._connection))

    async def _recover(self, connection: asyncpg.Connection | None) -> None:
        """Wait for the call that hangs; if that does not end well, connect anew."""
        if self._working is not None and connection is not None:
            await asyncio.wait({self._working}, timeout=ABANDON_S)
            if self._working is not None:
                connection.terminate()
        if connection is None or connection.is_closed():
            if connection is not None:
                connection.remove_termination_listener(self._lost)
            self._use(await self._reconnect())
        self._down = None
        log("STORE_BACK", store=self.shown)

    async def _reconnect(self) -> asyncpg.Connection:
        pause_s = FIRST_PAUSE_S
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause_s)
            try:
                return await self._connect()
            except KmsFastError as error:
                self._down = error
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _connect(self) -> asyncpg.Connection:
        connection = await connect(self._url, application_name=self._application_name)
        try:
            async with asyncio.timeout(ABANDON_S):
                await connection.execute(_END_ABANDONED)
                await check_version(connection)
                await connection.execute(_TRY_COMMIT)
        except POSTGRES_ERRORS as error:
            connection.terminate()
            raise explain(error, self.shown) from error
        except BaseException:
            connection.terminate()
            raise
        return connection


async def connect(url: str, *, application_name: str = "kms-fast") -> asyncpg.Connection:
    """A connection to the first of the URL's servers that takes writes and keeps what it has committed.

    Raises `KmsFastError` (STORE_UNAVAILABLE) that says of each server why not.
    """
    reasons = []
    for one in _split_hosts(url):
        try:
            connection = await asyncpg.connect(
                one,
                timeout=CONNECT_LIMIT_S,
                server_settings={**_SETTINGS, "application_name": application_name},
            )
        except (*POSTGRES_ERRORS, OverflowError) as error:
            # The latter is of a port that the environment (PGPORT) or a service file names.
            reasons.append(f"{mask_password(one)}: {describe(error)}")
            continue
        except ValueError:
            # Its text may hold a part of the password, where an unescaped character of it ends the host.
            reasons.append(f"{mask_password(one)}: this URL is not understood")
            continue
        reason = await _find_fault(connection)
        if reason is None:
            return connection
        await close(connection)
        reasons.append(f"{mask_password(one)}: {reason}")
    shown = mask_password(url)
    raise KmsFastError(f"The store cannot be used. {'; '.join(reasons)}.", name="STORE_UNAVAILABLE", store=shown)


async def migrate(url: str) -> int:
    """Bring the tables of a database up to date; the version they had before, 0 for none.

    Raises `KmsFastError`: STORE_UNAVAILABLE, NOT_ALLOWED for a role that lacks the right, STORE_REFUSED, STORE_VERSION
    for tables of a newer program.
    """
    connection, shown = await connect(url), mask_password(url)
    try:
        try:
            return await migrate_tables(connection)
        except asyncpg.InsufficientPrivilegeError as error:
            raise KmsFastError(
                f"The store {shown} cannot be migrated: {await explain_rights(connection)} ({describe(error)}).",
                name="NOT_ALLOWED",
                store=shown,
            ) from error
    except POSTGRES_ERRORS as error:
        raise explain(error, shown) from error
    finally:
        await close(connection)


async def close(connection: asyncpg.Connection) -> None:
    """Say good-bye to the server and close, whether it hears that or not."""
    try:
        await connection.close(timeout=1)
    except POSTGRES_ERRORS as error:
        log("STORE_NOT_CLOSED", reason=describe(error))


def describe(error: Exception) -> str:
    """An error of asyncpg or the network in one line, without a full stop."""
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def explain(error: Exception, shown: str) -> KmsFastError:
    """The user's error behind one of `POSTGRES_ERRORS` of a call: NOT_ALLOWED for a role that lacks a right,
    STORE_REFUSED where else trying again cannot help, else STORE_UNAVAILABLE. ``shown`` is the store's URL without its
    password.
    """
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return KmsFastError(
            f"The store {shown} does not let this role do that: {describe(error)}. {_NEEDED_RIGHTS}",
            name="NOT_ALLOWED",
            store=shown,
            sqlstate=error.sqlstate,
        )
    # What asyncpg itself cannot send has a SQLSTATE too. A statement that tables have changed under is prepared anew.
    if (
        isinstance(error, asyncpg.PostgresError)
        and not isinstance(error, asyncpg.InvalidCachedStatementError)
        and (error.sqlstate or "")[:2] in _LASTING
    ):
        return KmsFastError(
            f"The store {shown} refused a call: {describe(error)} (SQLSTATE {error.sqlstate}).",
            name="STORE_REFUSED",
            store=shown,
            sqlstate=error.sqlstate,
        )
    return _unavailable(describe(error), shown)


def _unavailable(reason: str, shown: str) -> KmsFastError:
    return KmsFastError(f"The store {shown} cannot be used: {reason}.", name="STORE_UNAVAILABLE", store=shown)


async def _find_fault(connection: asyncpg.Connection) -> str | None:
    """Why a server is unfit for a host; None when it is fit."""
    try:
        async with asyncio.timeout(CONNECT_LIMIT_S):
            row = await connection.fetchrow(_CHECK)
    except POSTGRES_ERRORS as error:
        return describe(error)
    assert row is not None
    version = connection.get_server_version()
    if version.major < OLDEST_VERSION:
        return f"it is PostgreSQL {version.major}; at least {OLDEST_VERSION} is needed"
    if row["encoding"] != "UTF8":
        return f"its encoding is {row['encoding']}, and names of machines are UTF-8; make it with ENCODING 'UTF8'"
    if row["fsync"] == "off":
        return "fsync is off, so a power cut loses what was stored; set fsync = on in postgresql.conf"
    if row["synchronous_commit"] == "off":
        return (
            "synchronous_commit is off for this session, so a crash loses what was stored; set it to on for the "
            "server, and reset it where ALTER ROLE or ALTER DATABASE has set it"
        )
    if row["in_recovery"] or row["read_only"] == "on":
        return "it is a standby or read-only; name the primary, or all servers: HOST1:5432,HOST2:5432"
    return None


def _split_hosts(url: str) -> list[str]:
    """One URL for each of its servers, so that one that hangs leaves time for the others."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    return [parts._replace(netloc=login + at + host).geturl() for host in hosts.split(",")]
