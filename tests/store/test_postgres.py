"""Connections to PostgreSQL: which servers and roles are refused, and what is told of it."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from kms_fast.errors import KmsFastError
from kms_fast.store import Total, Watermark, postgres
from kms_fast.store.backup import write_backup
from kms_fast.store.check import check_postgres
from kms_fast.store.postgres import close, connect, explain, migrate
from kms_fast.store.postgres_counts import PostgresCounts
from kms_fast.store.postgres_inventory import PostgresInventory
from kms_fast.store.postgres_schema import VERSION
from tests.conftest import ROOT
from tests.postgres import PASSWORD, PostgresServer
from tests.store.contract import NOW_MS, cmid, load, record
from tests.store.inventory_contract import HOST, SKU, granted

pytestmark = pytest.mark.usefixtures("no_password_is_told")

DATABASE = "postgres"


async def refusal(url: str) -> KmsFastError:
    with pytest.raises(KmsFastError) as caught:
        await PostgresCounts.open(url)
    assert PASSWORD not in f"{caught.value!r} {caught.value.to_json()}"
    return caught.value


async def test_a_server_that_does_not_sync_is_refused(start_postgres: Callable[..., PostgresServer]) -> None:
    unsafe = start_postgres(fsync="off")
    error = await refusal(unsafe.url())
    assert (error.result.name, "fsync is off" in error.message) == ("STORE_UNAVAILABLE", True)


async def test_a_database_that_cannot_hold_every_name_is_refused(server: PostgresServer) -> None:
    server.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    error = await refusal(server.url("latin"))
    assert (error.result.name, "its encoding is LATIN1" in error.message) == ("STORE_UNAVAILABLE", True)
    server.execute("DROP DATABASE latin")


@pytest.mark.parametrize("level", ["server", "database", "role", "session"])
async def test_asynchronous_commit_is_refused_at_every_level(server: PostgresServer, url: str, level: str) -> None:
    set_and_reset = {
        "server": ("ALTER SYSTEM SET synchronous_commit = off", "ALTER SYSTEM RESET synchronous_commit"),
        "database": (f"ALTER DATABASE {DATABASE} SET synchronous_commit = off", f"ALTER DATABASE {DATABASE} RESET ALL"),
        "role": ("ALTER ROLE kms SET synchronous_commit = off", "ALTER ROLE kms RESET ALL"),
    }
    if level == "session":
        error = await refusal(f"{url}?synchronous_commit=off")
    else:
        change, reset = set_and_reset[level]
        server.execute(change)
        server.execute("SELECT pg_reload_conf()")
        try:
            error = await refusal(url)
        finally:
            server.execute(reset)
            server.execute("SELECT pg_reload_conf()")
    assert (error.result.name, "synchronous_commit is off" in error.message) == ("STORE_UNAVAILABLE", True)


@pytest.mark.parametrize("level", ["local", "remote_write", "on", "remote_apply"])
async def test_every_other_level_of_commit_is_fine(url: str, level: str) -> None:
    counts = await PostgresCounts.open(f"{url}?synchronous_commit={level}")
    assert await record(counts, [1]) == []
    await counts.close()


async def test_an_old_server_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "OLDEST_VERSION", 99)
    assert "at least 99 is needed" in (await refusal(url)).message


async def test_a_read_only_server_is_refused(url: str) -> None:
    assert "standby or read-only" in (await refusal(f"{url}?default_transaction_read_only=on")).message


async def test_tables_of_another_version_are_refused(server: PostgresServer, url: str) -> None:
    server.execute("UPDATE kms_fast.schema_version SET version = version + 1")
    error = await refusal(url)
    assert (error.result.name, error.details) == ("STORE_VERSION", {"version": VERSION + 1, "needed": VERSION})
    with pytest.raises(KmsFastError, match="this program needs version"):
        await migrate(url)
    server.execute("DROP SCHEMA kms_fast CASCADE")
    error = await refusal(url)
    assert (error.result.name, "kms-fast store migrate" in error.result.cure) == ("STORE_EMPTY", True)


async def test_who_is_not_let_in_is_told_why(server: PostgresServer) -> None:
    for url, reason in [
        (server.url(password="wrong"), "password authentication failed"),
        (server.url("no_such_database"), "does not exist"),
        (f"postgresql://kms:{PASSWORD}@127.0.0.1:1/kms", "Connect call failed"),
        (f"postgresql://kms:{PASSWORD}@no-such-host.invalid/kms", "no-such-host.invalid"),
        (f"postgresql://kms:{PASSWORD}/x@127.0.0.1/kms", "not understood"),
        (f"{server.url()}?sslmode=maybe", "sslmode"),
    ]:
        error = await refusal(url)
        assert (error.result.name, reason in error.message) == ("STORE_UNAVAILABLE", True), error.message


async def test_a_role_without_rights_is_told_which(server: PostgresServer, url: str) -> None:
    server.execute("DROP ROLE IF EXISTS stranger")
    server.execute(f"CREATE ROLE stranger LOGIN PASSWORD '{PASSWORD}'")
    error = await refusal(server.url(user="stranger"))
    assert (error.result.name, "permission denied for schema kms_fast" in error.message) == ("NOT_ALLOWED", True)
    assert "UPDATE on kms_fast.families" in error.message


async def test_the_documented_rights_of_readers(server: PostgresServer, url: str, tmp_path: Path) -> None:
    """Each right is needed, and with all of them commands read; reports in SQL need less."""
    text = (ROOT / "docs" / "store.md").read_text(encoding="utf-8").split("<!-- reader -->")[1]
    (grants,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    server.execute(f"CREATE ROLE kms_fast_reader LOGIN PASSWORD '{PASSWORD}'")
    reader = server.url(user="kms_fast_reader")
    with pytest.raises(KmsFastError) as caught:
        assert [problem async for problem in check_postgres(reader)]
    assert caught.value.result.name == "NOT_ALLOWED"
    for statement in filter(str.strip, grants.split(";")):
        assert (await refusal(reader)).result.name == "NOT_ALLOWED"
        server.execute(statement)
        if "USAGE" in statement:
            server.execute("GRANT SELECT ON kms_fast.inventory TO kms_fast_reader")
            connection = await connect(reader)
            assert await connection.fetch("SELECT * FROM kms_fast.inventory") == []
            await close(connection)
    counts, inventory = await PostgresCounts.open(reader), await PostgresInventory.open(reader)
    assert await inventory.find() == []
    await inventory.summarize(NOW_MS)
    await write_backup(tmp_path / "backup.db", counts, inventory, lambda content: None)
    assert [problem async for problem in check_postgres(reader)] == []
    await counts.close()
    await inventory.close()


async def test_a_unix_socket(server: PostgresServer, url: str) -> None:
    counts = await PostgresCounts.open(
        f"postgresql://kms:{PASSWORD}@/{DATABASE}?host={server.folder}&port={server.port}"
    )
    assert await record(counts, [1]) == []
    await counts.close()


async def test_a_server_that_hangs_leaves_time_for_the_next(
    server: PostgresServer, url: str, quick: None, start_postgres: Callable[..., PostgresServer]
) -> None:
    other = start_postgres()
    await migrate(other.url())
    server.freeze()
    both = url.replace(str(server.port), f"{server.port},127.0.0.1:{other.port}")
    counts = await PostgresCounts.open(both)
    assert await record(counts, [1]) == []
    await counts.close()
    server.thaw()


async def test_the_next_server_of_a_url_is_tried(server: PostgresServer, url: str) -> None:
    both = url.replace("127.0.0.1", "127.0.0.1:1,127.0.0.1", 1)
    counts = await PostgresCounts.open(both)
    assert await record(counts, [1]) == []
    await counts.close()


async def test_the_documented_rights_are_enough_and_no_more(server: PostgresServer) -> None:
    """What docs/store.md tells to run: the owner migrates, the host counts and records, and cannot change tables."""
    text = (ROOT / "docs" / "store.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```sql\n(.*?)```", text.split("roles -->")[1], re.DOTALL)
    for statement in filter(str.strip, first.split(";")):
        server.execute(statement)
    server.execute(second, "kms_fast")
    passwords = dict(re.findall(r"CREATE ROLE (\w+) LOGIN PASSWORD '(.+)'", first))
    owner, url = (
        server.url("kms_fast", user=role, password=passwords[role]) for role in ("kms_fast_owner", "kms_fast_host")
    )
    with pytest.raises(
        KmsFastError, match=r"needs the right CREATE on .* kms_fast, as the role kms_fast_owner"
    ) as caught:
        await migrate(url)
    assert caught.value.result.name == "NOT_ALLOWED"
    assert await migrate(owner) == 0
    counts, inventory = await PostgresCounts.open(url), await PostgresInventory.open(url)
    await record(counts, [1])
    assert len(await load(counts)) == 1
    assert await inventory.elect(HOST)
    await inventory.record(HOST, [granted(1)], [Total(SKU, 0, 1, 1)], [Watermark(1, 4096, 1, b"x" * 32, NOW_MS)])
    await inventory.keep_summary(await inventory.summarize(NOW_MS))
    assert [len(await inventory.find()), await inventory.forget(cmid(1))] == [1, 1]
    assert [problem async for problem in check_postgres(url)] == []
    await counts.close()
    await inventory.close()
    connection = await connect(url)
    for statement in ("DROP TABLE kms_fast.counts", "CREATE TABLE kms_fast.x ()", "TRUNCATE kms_fast.clients"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await close(connection)
    server.execute("UPDATE kms_fast.schema_version SET version = 1", "kms_fast")
    with pytest.raises(KmsFastError, match="own the schema kms_fast, as the role kms_fast_owner") as caught:
        await migrate(url)
    assert caught.value.result.name == "NOT_ALLOWED"


async def test_migrations_at_once_are_one(server: PostgresServer) -> None:
    server.execute("DROP SCHEMA IF EXISTS kms_fast CASCADE")
    await asyncio.gather(*(migrate(server.url()) for _ in range(8)))
    assert server.execute("SELECT version FROM kms_fast.schema_version") == str(VERSION)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("ALTER TABLE kms_fast.clients ADD CONSTRAINT no_more CHECK (name IS NULL) NOT VALID", "23514"),
        ("ALTER TABLE kms_fast.totals ALTER COLUMN requests TYPE smallint", "22000"),
        ("ALTER TABLE kms_fast.watermarks DROP COLUMN number", "42703"),
    ],
)
async def test_what_would_fail_again_is_no_outage(server: PostgresServer, url: str, change: str, state: str) -> None:
    server.execute(change)
    inventory = await PostgresInventory.open(url)
    assert await inventory.elect(HOST)
    mark = Watermark(1, 4096, 1, b"x" * 32, NOW_MS)
    with pytest.raises(KmsFastError, match=f"SQLSTATE {state}") as caught:
        await inventory.record(HOST, [granted(1)], [Total(SKU, 0, 1, 1 << 20)], [mark])
    assert (caught.value.result.name, caught.value.details["sqlstate"]) == ("STORE_REFUSED", state)
    assert await inventory.find() == []
    await inventory.close()


def test_a_statement_whose_tables_changed_can_be_tried_again() -> None:
    error = asyncpg.InvalidCachedStatementError("cached plan must not change result type")
    assert error.sqlstate == "0A000"
    assert explain(error, "postgresql://db/kms").result.name == "STORE_UNAVAILABLE"


async def test_counts_that_are_refused_are_no_outage(server: PostgresServer, url: str) -> None:
    counts = await PostgresCounts.open(url)
    server.execute("ALTER TABLE kms_fast.counts ADD CONSTRAINT no_more CHECK (seen_ms < 0)")
    with pytest.raises(KmsFastError, match="no_more") as caught:
        await record(counts, [1])
    assert caught.value.result.name == "STORE_REFUSED"
    server.execute("ALTER TABLE kms_fast.counts DROP CONSTRAINT no_more")
    assert await record(counts, [1]) == []
    await counts.close()
