"""``kms-fast store migrate | backup | restore | check``, in files and in PostgreSQL."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from kms_fast.cli.stores import open_counts, open_inventory
from kms_fast.host.enrolment import read_installation
from kms_fast.host.presence import HostProcess, Presence
from kms_fast.host.segment import read_records, read_start
from kms_fast.model.settings import HostSettings
from kms_fast.store import Total, Watermark
from kms_fast.store.postgres import close, connect, migrate
from tests.batches import BatchMaker
from tests.hosts import DESKTOP, Realm, make_realm
from tests.postgres import PASSWORD
from tests.store import contract
from tests.store.inventory_contract import SKU, granted
from tests.system.asker import Asker, now_ms

FILES = HostSettings()
PAGE_BYTES = 16 << 10  # of the inventory; those of counts are smaller


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return make_realm(tmp_path / "realm")


@pytest.fixture
def url(postgres_url: str) -> str:
    asyncio.run(migrate(postgres_url))
    return postgres_url


def run(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Exit code, and the object of --json."""
    command = [sys.executable, "-m", "kms_fast", "store", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert PASSWORD not in done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)


def fill(
    settings: HostSettings, realm: Realm, *marks: Watermark, machines: int = 2, host_id: bytes | None = None
) -> None:
    """Count machines, and record some, as this realm's host or another does."""
    host_id = host_id or read_installation(realm.home / "host").certificate.host_id

    async def write() -> None:
        counts, inventory = await open_counts(settings, realm.home), await open_inventory(settings, realm.home)
        await contract.record(counts, list(range(machines)), now_ms(), family=DESKTOP, cap=1000)
        assert await inventory.elect(host_id)
        await inventory.record(host_id, [granted(1, now_ms()), granted(2, now_ms())], [Total(SKU, 0, 1, 2)], marks)
        await inventory.close()
        await counts.close()

    asyncio.run(write())


def a_mark(**changes: Any) -> Watermark:
    return replace(Watermark(9, 4096, 1, b"x" * 32, now_ms()), **changes)


def write_ledger(realm: Realm) -> Watermark:
    """A segment with two batches; the watermark of the second."""
    maker, asker = BatchMaker(realm), Asker.of(realm, "desktop")
    ledger = maker.open_ledger()
    for _ in range(2):
        maker.write(ledger, maker.collect([asker.ask().request]), now_ms())
    ledger.close()
    with ledger.path.open("rb") as file:
        _, second = read_records(file, ledger.path, read_start(file, ledger.path))
    return Watermark(ledger.segment, second.offset, 2, second.header.hash, second.header.time_ms)


def test_migrate_makes_the_tables_and_does_so_once(postgres_url: str) -> None:
    code, result = run("migrate", "--store", postgres_url)
    assert (code, result["before"]) == (0, 0)
    code, again = run("migrate", "--store", postgres_url)
    assert (code, again["before"], again["version"]) == (0, result["version"], result["version"])


def test_migrate_tells_what_is_in_the_way(postgres_url: str) -> None:
    code, result = run("migrate", "--store", postgres_url.replace(PASSWORD, "wrong"))
    assert (code, result["name"]) == (1, "STORE_UNAVAILABLE")
    asyncio.run(migrate(postgres_url))
    asyncio.run(execute(postgres_url, "UPDATE kms_fast.schema_version SET version = 99"))
    code, result = run("migrate", "--store", postgres_url)
    assert (code, result["name"]) == (1, "STORE_VERSION")


def test_files_move_to_postgres_and_back(realm: Realm, url: str, tmp_path: Path) -> None:
    fill(FILES, realm)
    content = {"counts": 2, "clients": 2, "hosts": 1}
    code, result = run("backup", tmp_path / "1.db", "--home", realm.home)
    assert (code, {name: result[name] for name in content}) == (0, content)
    code, result = run("restore", tmp_path / "1.db", "--store", url)
    assert (code, {name: result[name] for name in content}) == (0, content)
    assert run("backup", tmp_path / "2.db", "--store", url)[0] == 0
    other = make_realm(tmp_path / "other")
    assert run("restore", tmp_path / "2.db", "--home", other.home)[0] == 0
    code, result = run("check", "--home", other.home)
    assert (code, {name: result[name] for name in content}) == (0, content)


def test_the_settings_name_the_store(realm: Realm, url: str, tmp_path: Path) -> None:
    config = tmp_path / "kms-fast.toml"
    config.write_text(f"store = '{url}'")
    fill(HostSettings(store=url), realm)
    code, result = run("check", "--config", config, "--home", realm.home)
    assert (code, result["clients"]) == (0, 2)


def test_a_store_that_is_filled_or_used_is_left_alone(realm: Realm, tmp_path: Path) -> None:
    fill(FILES, realm)
    assert run("backup", tmp_path / "backup.db", "--home", realm.home)[0] == 0
    code, result = run("restore", tmp_path / "backup.db", "--home", realm.home)
    assert (code, result["name"]) == (1, "STORE_IN_USE")
    other = make_realm(tmp_path / "other")
    host = Presence(other.home / "host", HostProcess(pid=1, version="1", started_ms=0, addresses=(), workers=1))
    code, result = run("restore", tmp_path / "backup.db", "--home", other.home)
    assert (code, result["name"], "process 1" in result["message"]) == (1, "STORE_IN_USE", True)
    assert not (other.home / "host" / "counts.db").exists()
    host.close()
    assert run("restore", tmp_path / "backup.db", "--home", other.home)[0] == 0


def test_a_restore_makes_the_home(realm: Realm, tmp_path: Path) -> None:
    fill(FILES, realm)
    assert run("backup", tmp_path / "backup.db", "--home", realm.home)[0] == 0
    home = tmp_path / "new" / "home"
    code, result = run("restore", tmp_path / "backup.db", "--home", home)
    assert (code, result["clients"]) == (0, 2)
    assert (home / "host").stat().st_mode & 0o777 == 0o700


def test_a_damaged_backup_touches_nothing(realm: Realm, url: str, tmp_path: Path) -> None:
    fill(FILES, realm)
    assert run("backup", tmp_path / "backup.db", "--home", realm.home)[0] == 0
    apsw.Connection(str(tmp_path / "backup.db")).execute("UPDATE inventory SET state = 'none'")
    for where in (["--home", tmp_path / "new"], ["--store", url]):
        code, result = run("restore", tmp_path / "backup.db", *where)
        assert (code, result["name"]) == (1, "STORE_DAMAGED")
    assert not (tmp_path / "new").exists()
    code, result = run("check", "--store", url)
    assert (code, result["counts"], result["clients"]) == (0, 0, 0)


def test_a_backup_is_a_new_file(realm: Realm, tmp_path: Path) -> None:
    fill(FILES, realm)
    (tmp_path / "backup.db").write_text("precious")
    code, result = run("backup", tmp_path / "backup.db", "--home", realm.home)
    assert (code, result["name"]) == (1, "STORAGE_FAILED")
    assert (tmp_path / "backup.db").read_text() == "precious"


@pytest.mark.parametrize("command", ["backup", "check"])
def test_where_there_is_no_store_none_is_made(tmp_path: Path, command: str) -> None:
    (tmp_path / "host").mkdir()
    arguments = [tmp_path / "backup.db"] if command == "backup" else []
    code, result = run(command, *arguments, "--home", tmp_path)
    assert (code, "no store" in result["message"]) == (1, True)
    assert list((tmp_path / "host").iterdir()) == []


def test_check_compares_watermarks_with_the_ledger(realm: Realm) -> None:
    fill(FILES, realm, write_ledger(realm))
    assert run("check", "--home", realm.home)[0] == 0


@pytest.mark.parametrize("change", [{"header_hash": b"y" * 32}, {"offset": 4096}, {"offset": 10**9}])
def test_check_finds_watermarks_that_are_not_in_the_ledger(realm: Realm, change: dict[str, Any]) -> None:
    fill(FILES, realm, replace(write_ledger(realm), **change))
    code, result = run("check", "--home", realm.home)
    assert (code, result["name"]) == (1, "STORE_DAMAGED")


@pytest.mark.parametrize("change", [{"number": 0}, {"header_hash": b"y"}, {"offset": -1}, {"time_ms": 1 << 50}])
def test_check_finds_watermarks_that_cannot_be(realm: Realm, url: str, change: dict[str, Any]) -> None:
    fill(HostSettings(store=url), realm, a_mark(**change))
    code, result = run("check", "--store", url)
    assert (code, len(result["details"]["problems"])) == (1, 1)
    assert "watermark" in result["message"]


def test_check_does_not_compare_other_hosts_ledgers(realm: Realm) -> None:
    fill(FILES, realm, a_mark(), host_id=b"another host's id")
    assert run("check", "--home", realm.home)[0] == 0


def test_check_knows_the_caps_of_the_home(realm: Realm) -> None:
    fill(FILES, realm, machines=3)
    code, result = run("check", "--home", realm.home)
    assert (code, "its cap is" in result["message"]) == (1, True)


def test_check_finds_times_in_the_future_and_clients_that_cannot_be(realm: Realm, url: str) -> None:
    settings = HostSettings(store=url)
    fill(settings, realm)
    ahead_ms = now_ms() + 10 * 86_400_000

    async def spoil() -> None:
        counts, inventory = await open_counts(settings, realm.home), await open_inventory(settings, realm.home)
        await contract.record(counts, [7], ahead_ms, family=DESKTOP)
        assert await inventory.elect(b"another host's id")
        rows = [granted(3, ahead_ms), granted(4, now_ms(), activations=-1)]
        await inventory.record(b"another host's id", rows, [], [])
        await inventory.close()
        await counts.close()

    asyncio.run(spoil())
    code, result = run("check", "--store", url)
    assert code == 1
    counted, ahead, negative = result["details"]["problems"]
    assert "1 machines that were seen in the future" in counted
    assert "times of client" in ahead
    assert "-1 activations" in negative


def test_a_host_that_has_recorded_nothing_yet_is_well(realm: Realm) -> None:
    fill(FILES, realm)
    for path in (realm.home / "host").glob("inventory.*"):
        path.unlink()
    code, result = run("check", "--home", realm.home)
    assert (code, result["counts"], result["clients"]) == (0, 2, 0)


@pytest.mark.parametrize("name", ["counts.db", "inventory.db"])
@pytest.mark.parametrize("damage", ["overwritten", "truncated", "no database"])
def test_check_finds_damaged_files(realm: Realm, name: str, damage: str) -> None:
    fill(FILES, realm, machines=900)
    path = realm.home / "host" / name
    apsw.Connection(str(path)).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    data = path.read_bytes()
    half = len(data) // 2 // PAGE_BYTES * PAGE_BYTES
    path.write_bytes(
        {
            "overwritten": data[:half] + b"\xff" * PAGE_BYTES + data[half + PAGE_BYTES :],
            "truncated": data[:half],
            "no database": b"x" * 4096,
        }[damage]
    )
    code, result = run("check", "--home", realm.home)
    assert (code, result["name"], name in result["message"]) == (1, "STORE_DAMAGED", True)


def test_check_finds_an_index_that_is_not_valid(url: str) -> None:
    asyncio.run(
        execute(url, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'kms_fast.counts_by_age'::regclass")
    )
    code, result = run("check", "--store", url)
    assert (code, "REINDEX INDEX kms_fast.counts_by_age" in result["message"]) == (1, True)


async def execute(url: str, statement: str) -> None:
    connection = await connect(url)
    await connection.execute(statement)
    await close(connection)
