"""``kms-fast host backup | restore`` on a host that runs, and on one that is restored."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kms_fast.cli import backup
from kms_fast.cli.main import run
from kms_fast.errors import KmsFastError
from kms_fast.model.settings import HostSettings
from kms_fast.store import Watermark
from tests.hosts import make_realm, run_cli, serve
from tests.reference.rpc import Connection
from tests.system.asker import Asker


def test_a_host_that_runs_is_backed_up_and_restored(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    with serve(realm, "--workers", "2") as host:
        with Connection(host.address) as connection:
            connection.bind()
            connection.call_many([asker.ask().request for _ in range(20)])
        code, said, _ = run_cli("host", "backup", tmp_path / "kms.tar", home=realm.home)
        assert (code, said["ok"], said["file"]) == (0, True, str(tmp_path / "kms.tar"))
        assert said["bytes"] < (tmp_path / "kms.tar").stat().st_size
    code, said, _ = run_cli("host", "restore", tmp_path / "kms.tar", home=tmp_path / "new")
    assert (code, said["folder"]) == (0, str(tmp_path / "new" / "host"))
    code, verdict, _ = run_cli("ledger", "verify", home=tmp_path / "new")
    assert (code, verdict["records"]) == (0, 20)
    code, said, _ = run_cli("serve", "--listen", "127.0.0.1:0", home=tmp_path / "new")
    assert (code, said["name"]) == (1, "LEDGER_WENT_BACK")
    assert "restored from a backup" in said["message"]
    restored = replace(realm, home=tmp_path / "new")
    for options in (("--accept-rollback",), ()):
        with serve(restored, *options) as host, Connection(host.address) as connection:
            connection.bind()
            asked = asker.ask()
            header = asker.check(asked, connection.call(asked.request)[0]).header
            assert header.segment > 1_000_000
    code, verdict, _ = run_cli("ledger", "verify", home=tmp_path / "new")
    assert (code, verdict["records"], verdict["lost_heads"]) == (0, 22, 1)


def test_of_a_host_whose_store_is_elsewhere(tmp_path: Path) -> None:
    """SQLite files in its home are of an earlier life, and a database that is down holds no backup up."""
    realm = make_realm(tmp_path)
    (realm.home / "host" / "counts.db").write_bytes(b"of an earlier life")
    store = ("--store", "postgresql://kms@127.0.0.1:1/kms")
    code, said, warned = run_cli("host", "backup", tmp_path / "kms.tar", *store, home=realm.home)
    assert (code, said["ok"]) == (0, True)
    assert "not compared with the inventory" in warned
    assert run_cli("host", "restore", tmp_path / "kms.tar", home=tmp_path / "new")[0] == 0
    assert not list((tmp_path / "new" / "host").glob("*.db"))


@pytest.mark.parametrize("name", ["STORE_EMPTY", "STORE_VERSION", "STORE_REFUSED"])
def test_of_a_host_whose_store_is_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    async def refuse(settings: HostSettings, home: Path, **_: bool) -> list[Watermark]:
        raise KmsFastError("It is not fit.", name=name)

    monkeypatch.setattr(backup, "read_watermarks", refuse)
    command = ["host", "backup", str(tmp_path / "kms.tar"), "--home", str(make_realm(tmp_path).home)]
    assert run(command) == 1
    assert not (tmp_path / "kms.tar").exists()
    assert run([*command, "--store", "postgresql://kms@db.example.org/kms"]) == 0
    assert "It is not fit. So the ledger is not compared" in capsys.readouterr().err


def test_of_a_ledger_that_lacks_what_the_inventory_has(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    with serve(realm) as host:
        with Connection(host.address) as connection:
            connection.bind()
            connection.call(asker.ask().request)
        assert host.stop() == 0
    segment = realm.home / "host" / "ledger" / "segment-00000001.kfl"
    segment.write_bytes(segment.read_bytes()[:-1] + b"\1")
    assert run_cli("host", "backup", tmp_path / "kms.tar", home=realm.home)[0] == 0
    data = bytearray(segment.read_bytes())
    data[-264] ^= 1
    segment.write_bytes(data)
    code, said, _ = run_cli("host", "backup", tmp_path / "new.tar", home=realm.home)
    assert (code, said["name"], said["details"]["file"]) == (1, "LEDGER_DAMAGED", str(segment))
    assert not list(tmp_path.glob("*new.tar*"))
    assert "--damaged" in said["cure"]
    code, said, warned = run_cli("host", "backup", tmp_path / "new.tar", "--damaged", home=realm.home)
    assert [f"{segment} is whole up to byte" in told for told in said["damage"]] == [True]
    assert (code, f"{segment} is whole up to byte" in warned, "copied as it lies" in warned) == (0, True, True)


def test_a_home_without_a_host(tmp_path: Path) -> None:
    code, said, _ = run_cli("host", "backup", tmp_path / "kms.tar", home=tmp_path)
    assert (code, said["name"]) == (1, "CONFIGURATION_INVALID")
    assert "--home" in said["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_backup(tmp_path: Path) -> None:
    (tmp_path / "kms.tar").write_bytes(b"something else")
    code, said, _ = run_cli("host", "restore", tmp_path / "kms.tar", home=tmp_path / "new")
    assert (code, said["name"], said["details"]["file"]) == (1, "BACKUP_DAMAGED", str(tmp_path / "kms.tar"))


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_a_file_that_cannot_be_used(tmp_path: Path, command: str) -> None:
    realm = make_realm(tmp_path)
    home = realm.home if command == "backup" else tmp_path / "new"
    code, said, _ = run_cli("host", command, tmp_path / "none" / "kms.tar", home=home)
    assert (code, said["name"]) == (1, "STORAGE_FAILED")
    assert str(tmp_path / "none") in said["message"]


def test_into_a_home_in_use(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    assert run_cli("host", "backup", tmp_path / "kms.tar", home=realm.home)[0] == 0
    code, said, _ = run_cli("host", "restore", tmp_path / "kms.tar", home=realm.home)
    assert (code, "is not empty" in said["message"]) == (1, True)
    shutil.rmtree(realm.home)
    assert run_cli("host", "restore", tmp_path / "kms.tar", home=realm.home)[0] == 0
