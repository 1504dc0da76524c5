"""``kms-fast doctor`` on a host: each check against the real thing, whole and broken."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kms_fast.cli.doctor.host import HostContext, check_files, check_firewall, check_ledger
from kms_fast.cli.doctor.ladder import Verdict
from kms_fast.host.presence import HostProcess
from kms_fast.results import BY_NAME
from tests.batches import BatchMaker
from tests.client.world import make_client_home
from tests.examinations import DAY_MS, HOUR_MS, examine, verdicts
from tests.hosts import Realm, make_realm, run_cli, serve
from tests.ledgers import change, offsets, write_segment
from tests.system.asker import Asker, now_ms

pytestmark = pytest.mark.usefixtures("free_port")


def test_a_host_that_runs(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMS_FAST_DNS_TARGET", "kms.example.test")
    monkeypatch.setenv("KMS_FAST_DNS_DOMAIN", "domain.invalid")
    with serve(realm) as host:
        checks = examine(realm.home)
        assert f"process {host.process.pid}" in checks["port"]["what"]
    # No other machine reaches this one, and no record is in DNS.
    expected = dict.fromkeys(checks, "ok") | {"firewall": "warning", "lookup": "warning"}
    assert verdicts(checks) == expected
    first = "configuration files certificate intervals clock port firewall store ledger disk"
    assert list(checks)[:10] == first.split()
    assert list(checks)[11:] == ["name", "reach", "interface", "host certificate", "host clock"]
    assert "Certificate 1 of Testing Ltd" in checks["host certificate"]["what"]
    assert f"SRV 0 0 {host.address[1]} kms.example.test." in checks["lookup"]["cure"]


def test_what_it_looks_at_is_left_alone(realm: Realm) -> None:
    before = {path: path.stat() for path in realm.home.rglob("*")}
    examine(realm.home)
    after = {path: path.stat() for path in realm.home.rglob("*")}
    assert {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in after.items() if path.is_file()} == {
        path: (stat.st_ino, stat.st_mtime_ns) for path, stat in before.items() if path.is_file()
    }


def test_a_wrong_configuration(realm: Realm, tmp_path: Path) -> None:
    config = tmp_path / "host.toml"
    config.write_text("lissten = 3\n")
    checks = examine(realm.home, "--config", str(config))
    assert checks["configuration"]["code"] == "0xE04B0006"
    assert "the nearest is listen" in checks["configuration"]["what"]
    skipped = [name for name, finding in checks.items() if finding["what"] == "because configuration failed"]
    assert skipped == ["intervals", "port", "firewall", "store", "ledger", "disk"]
    assert checks["certificate"]["verdict"] == "ok"


@pytest.mark.parametrize("name", ["host.key", "catalog.json"])
def test_secrets_that_others_may_read_and_the_cure(realm: Realm, name: str) -> None:
    path = realm.home / "host" / name
    path.chmod(0o640)
    finding = examine(realm.home)["files"]
    assert (finding["verdict"], finding["details"]["files"]) == ("failed", [str(path)])
    subprocess.run(finding["cure"], shell=True, check=True, timeout=30)
    assert examine(realm.home)["files"]["verdict"] == "ok"


def test_files_of_another_user(realm: Realm, unavailable: Callable[[str], None]) -> None:
    if os.geteuid() != 0:
        unavailable("files that belong to other users are for root to make")
    path = realm.home / "host" / "publisher.json"
    os.chown(path, 65_534, -1)
    finding = examine(realm.home)["files"]
    assert (finding["verdict"], finding["details"]["files"]) == ("failed", [str(path)])
    assert finding["cure"].startswith("chown -R root ")


def remove_certificate(realm: Realm) -> None:
    (realm.home / "host" / "host.cert").unlink()


def damage_catalog(realm: Realm) -> None:
    path = realm.home / "host" / "catalog.json"
    path.write_bytes(path.read_bytes().replace(b"Desktop", b"Dexktop"))


@pytest.mark.parametrize(("break_it", "code"), [(remove_certificate, "0xC004F041"), (damage_catalog, "0xC004F02C")])
def test_a_certificate_that_is_missing_or_wrong(realm: Realm, break_it: Callable[[Realm], None], code: str) -> None:
    break_it(realm)
    finding = examine(realm.home)["certificate"]
    assert (finding["verdict"], finding["code"]) == ("failed", code)


@pytest.mark.parametrize(
    ("options", "verdict", "code"),
    [
        ({"days": 0}, "failed", "0xE04B0005"),
        ({"days": 30}, "warning", None),
        ({"revoked": [1]}, "failed", "0xE04B0029"),
        ({"now_ms": now_ms() + 400 * DAY_MS}, "failed", "0xE04B0005"),
    ],
    ids=["ended", "ends soon", "revoked", "not yet"],
)
def test_dates_and_revocation(tmp_path: Path, options: dict[str, Any], verdict: str, code: str | None) -> None:
    finding = examine(make_realm(tmp_path, **options).home)["certificate"]
    assert (finding["verdict"], finding["code"]) == (verdict, code)


def test_settings_that_fight_the_catalog(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog's machines renew every 7 days."""
    monkeypatch.setenv("KMS_FAST_RETENTION", "15d")
    finding = examine(realm.home)["intervals"]
    assert finding["verdict"] == "warning"
    assert "every 7d and misses one renewal is forgotten" in finding["what"]
    monkeypatch.setenv("KMS_FAST_RETENTION", "16d")
    assert examine(realm.home)["intervals"]["verdict"] == "ok"
    monkeypatch.setenv("KMS_FAST_ACTIVATION_INTERVAL", "8d")
    assert "must not be longer than the renewal interval" in examine(realm.home)["intervals"]["what"]


def test_a_clock_behind_what_was_signed(realm: Realm) -> None:
    maker = BatchMaker(realm)
    ledger = maker.open_ledger()
    signed_ms = now_ms() + HOUR_MS
    maker.write(ledger, maker.collect([Asker.of(realm, "desktop").ask().request]), signed_ms)
    ledger.close()
    finding = examine(realm.home)["clock"]
    assert (finding["verdict"], finding["details"]["newest_ms"]) == ("failed", signed_ms)


def test_a_port_that_is_free_and_one_that_is_taken(realm: Realm, free_port: int) -> None:
    assert examine(realm.home)["port"]["verdict"] == "warning"
    with socket.create_server(("127.0.0.1", free_port)):
        checks = examine(realm.home)
    assert (checks["port"]["verdict"], checks["port"]["code"]) == ("failed", "0xE04B0009")
    assert checks["firewall"]["what"] == "because port failed"


def test_an_address_that_others_use(realm: Realm) -> None:
    with serve(realm, listen="0.0.0.0:0") as host:
        finding = examine(realm.home)["firewall"]
    if finding["verdict"] != "skipped":  # a machine without a network
        assert finding["verdict"] == "ok"
        assert f":{host.address[1]}" in finding["details"]["address"]
        assert "can only be seen from one of them" in finding["what"]


def test_an_address_that_cannot_be_reached(realm: Realm, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens stands for what a firewall rejects."""
    process = HostProcess(pid=1, version="", started_ms=0, addresses=(f"0.0.0.0:{free_port}",), workers=1)
    monkeypatch.setattr("kms_fast.cli.doctor.host._find_own_address", lambda: "127.0.0.1")
    finding = check_firewall(HostContext(realm.home, None, 0, running=[process]))
    assert finding.verdict is Verdict.FAILED
    assert "Connection refused" in finding.what


def test_a_damaged_store(realm: Realm) -> None:
    (realm.home / "host" / "counts.db").write_bytes(b"no database" * 1000)
    finding = examine(realm.home)["store"]
    assert (finding["verdict"], finding["code"]) == ("failed", "0xE04B0045")


def test_a_database_that_does_not_answer(realm: Realm, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setenv("KMS_FAST_STORE", f"postgresql://kms:secret@127.0.0.1:{free_port}/kms")
    finding = examine(realm.home)["store"]
    assert (finding["verdict"], finding["code"]) == ("failed", "0xE04B000F")
    assert "secret" not in json.dumps(finding)


def test_a_flipped_byte_in_an_old_segment(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no ledger yet" in examine(realm.home)["ledger"]["what"]
    requests = [Asker.of(realm, "desktop").ask().request for _ in range(3)]
    paths = [write_segment(realm, requests) for _ in range(3)]
    assert examine(realm.home)["ledger"]["what"] == "The ledger is whole: 9 batches in 3 segments verify."
    change(paths[0], offsets()[1] + 200)
    finding = examine(realm.home)["ledger"]
    assert (finding["verdict"], finding["code"], finding["details"]["file"]) == ("failed", "0xE04B0007", str(paths[0]))
    assert "host backup --damaged" in finding["cure"]
    monkeypatch.setattr("kms_fast.cli.doctor.host.LEDGER_S", 0.0)
    unread = check_ledger(HostContext(realm.home, None, 0))
    assert (unread.verdict, unread.details) == (Verdict.OK, {"batches": 0, "unread_segments": 3})
    assert "kms-fast ledger verify reads them all" in unread.what


def test_a_ledger_of_which_something_is_gone(realm: Realm) -> None:
    """As serve refuses it: whole as it lies, but older than the inventory, or from a backup."""
    with serve(realm) as host:
        client = make_client_home(realm.home.parent / "client", realm, host="{}:{}".format(*host.address))
        assert run_cli("client", "activate", home=client)[0] == 0
        assert host.stop() == 0
    assert examine(realm.home)["ledger"]["verdict"] == "ok"
    (realm.home / "host" / "ledger" / "restored.json").write_text('{"backup_created_ms": 5}')
    finding = examine(realm.home)["ledger"]
    assert (finding["verdict"], finding["code"]) == ("failed", BY_NAME["LEDGER_WENT_BACK"].hex)
    shutil.rmtree(realm.home / "host" / "ledger")
    finding = examine(realm.home)["ledger"]
    assert (finding["verdict"], finding["code"]) == ("failed", BY_NAME["LEDGER_WENT_BACK"].hex)


@pytest.mark.parametrize(("share", "verdict"), [(2.0, "failed"), (0.5, "warning"), (0.0, "ok")])
def test_room_on_the_disk(realm: Realm, monkeypatch: pytest.MonkeyPatch, share: float, verdict: str) -> None:
    disk = os.statvfs(realm.home)
    monkeypatch.setenv("KMS_FAST_LOW_WATER", f"{int(disk.f_bavail * disk.f_frsize * share)}B")
    assert examine(realm.home)["disk"]["verdict"] == verdict


def test_settings_of_the_home(realm: Realm) -> None:
    run_cli("host", "configure", "--low-water", "1MiB", home=realm.home)
    assert "low_water" in examine(realm.home)["configuration"]["what"]


def test_a_file_that_vanishes_is_passed_over(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "rglob", lambda self, _: [self / "counts.db-journal"])
    assert check_files(HostContext(realm.home, None, 0)).verdict is Verdict.OK
