"""``kms-fast ledger verify | export | prune``, text and JSON, on a host's home."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from kms_fast.host.recorder import Recorder
from kms_fast.store.sqlite_inventory import SqliteInventory
from tests.batches import BatchMaker
from tests.hosts import Realm, make_key, make_realm, run_cli
from tests.system.asker import Asker, now_ms


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return make_realm(tmp_path)


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    command = [sys.executable, "-m", "kms_fast", "ledger", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def write(realm: Realm, sizes: tuple[int, ...] = (2, 3)) -> tuple[Path, list[dict[str, object]]]:
    """A segment with batches of these sizes; and the main fields that `export` is to give of them."""
    maker, asker = BatchMaker(realm), Asker.of(realm, "desktop")
    ledger, expected = maker.open_ledger(), []
    for number, size in enumerate(sizes, 1):
        asked = [asker.ask() for _ in range(size)]
        maker.write(ledger, maker.collect([one.request for one in asked]), now_ms())
        for index, (one, (answer, _)) in enumerate(zip(asked, maker.answers(), strict=True)):
            verified = asker.check(one, answer)
            expected.append(
                {
                    "request_hash": verified.leaf.request_hash.hex(),
                    "cmid": str(uuid.UUID(bytes=one.cmid)),
                    "sku": str(realm.skus["desktop"].id),
                    "result": 0,
                    "time": verified.header.time,
                    "batch": f"{ledger.segment}/{number}",
                    "index": index,
                }
            )
    ledger.close()
    return ledger.path, expected


def test_verify_says_what_it_found(realm: Realm) -> None:
    write(realm)
    write(realm, (1,))
    code, out, errors = run("verify", "--home", realm.home)
    assert (code, errors) == (0, "")
    assert "The ledger is whole" in out
    assert "segments: 2, batches: 3, records: 6, granted: 6" in out
    assert time.strftime("%Y-") in out


def test_verify_json(realm: Realm) -> None:
    _, expected = write(realm)
    code, out, errors = run("verify", "--home", realm.home, "--json")
    assert (code, errors) == (0, "")
    assert json.loads(out) == {
        "ok": True,
        "segments": 1,
        "pruned_segments": 0,
        "batches": 2,
        "records": 5,
        "granted": 5,
        "torn_tails": 0,
        "lost_heads": 0,
        "clock_resets": 0,
        "first_ms": expected[0]["time"],
        "last_ms": expected[-1]["time"],
        "chain_ok": True,
    }


def test_verify_of_an_empty_ledger(realm: Realm) -> None:
    write(realm, ())
    assert run("verify", "--home", realm.home) == (0, "The ledger is whole and empty (segments: 1).\n", "")


def test_verify_tells_of_a_torn_tail(realm: Realm) -> None:
    path, expected = write(realm)
    path.write_bytes(path.read_bytes()[:-100])
    code, out, _ = run("verify", "--home", realm.home)
    assert code == 0
    assert "1 cut short by a crash, never answered" in out
    assert "batches: 1, records: 2" in out
    code, out, _ = run("export", "--home", realm.home)
    assert main_fields(out) == expected[:2]


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 + 200] ^= 1
    path.write_bytes(data)


def test_verify_of_a_damaged_ledger(realm: Realm) -> None:
    path, _ = write(realm)
    damage(path)
    code, out, errors = run("verify", "--home", realm.home)
    (line,) = errors.splitlines()
    assert (code, out) == (1, "")
    assert line.startswith("error: The record behind batch 0 of ")
    assert str(path) in line
    assert "LEDGER_DAMAGED" in line
    assert "backup" in line


@pytest.mark.parametrize("command", ["verify", "export"])
def test_damage_as_json(realm: Realm, command: str) -> None:
    path, _ = write(realm)
    damage(path)
    code, out, errors = run(command, "--home", realm.home, "--json")
    said = json.loads(out)
    assert (code, errors) == (1, "")
    assert (said["ok"], said["name"], said["details"]["file"]) == (False, "LEDGER_DAMAGED", str(path))


def test_every_problem_is_told_with_its_facts(realm: Realm) -> None:
    first, _ = write(realm, (1, 1, 1))
    second, _ = write(realm)
    data = bytearray(first.read_bytes())
    data[4096 + 452 + 130] ^= 1
    first.write_bytes(data)
    damage(second)
    code, out, _ = run("verify", "--home", realm.home, "--json")
    said = json.loads(out)
    assert (code, said["name"], said["details"]["chain_ok"]) == (1, "LEDGER_DAMAGED", False)
    assert said["details"]["problems"] == [
        {
            "kind": "signature",
            "message": f"Batch 1/2 in {first} is wrong: its signature does not verify.",
            "file": str(first),
            "segment": 1,
            "batch": "1/2",
            "offset": 4096 + 452,
        },
        {
            "kind": "record",
            "message": f"The record behind batch 0 of {second}, at byte 4096, is damaged.",
            "file": str(second),
            "segment": 2,
            "batch": "2/1",
            "offset": 4096,
        },
    ]
    assert (said["details"]["batch"], said["details"]["batches"]) == ("1/2", 3)
    assert "Problems in all: 2." in said["message"]


def main_fields(out: str) -> list[dict[str, object]]:
    names = ("request_hash", "cmid", "sku", "result", "time", "batch", "index")
    return [{name: entry[name] for name in names} for entry in map(json.loads, out.splitlines())]


def record(realm: Realm) -> None:
    """Takes the ledger into the inventory, as the recorder of a running host does."""
    host_id = BatchMaker(realm).installation.certificate.host_id

    async def run_recorder() -> None:
        async def open_file() -> SqliteInventory:
            return SqliteInventory(realm.home / "host" / "inventory.db")

        recorder = Recorder(
            folder=realm.home / "host" / "ledger", host_id=host_id, open_inventory=open_file, clock_ms=now_ms
        )
        recorder.drain()
        await recorder.run(lambda: None)

    asyncio.run(run_recorder())


def prune(realm: Realm, *options: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = run("prune", "--home", realm.home, *options, "--json")
    return code, json.loads(out)


def test_prune_drops_what_is_old_and_recorded(realm: Realm) -> None:
    maker = BatchMaker(realm)
    asker = Asker.of(realm, "desktop")
    # The certificate has been valid for a day.
    for time_ms in (maker.installation.certificate.not_before_ms, now_ms()):
        ledger = maker.open_ledger()
        maker.write(ledger, maker.collect([asker.ask().request]), time_ms)
        ledger.close()
    assert prune(realm, "--keep", "1d") == (
        0, {"ok": True, "segments": 0, "batches": 0, "freed_bytes": 0, "waiting": 1}
    )  # fmt: skip
    record(realm)
    assert prune(realm, "--keep", "1d") == (
        0, {"ok": True, "segments": 1, "batches": 1, "freed_bytes": 264, "waiting": 0}
    )  # fmt: skip
    code, out, _ = run("verify", "--home", realm.home)
    assert code == 0
    assert "segments without their records (pruned): 1" in out
    assert len(run("export", "--home", realm.home)[1].splitlines()) == 1


def test_prune_takes_the_setting(realm: Realm, tmp_path: Path) -> None:
    write(realm)
    code, said = prune(realm)
    assert (code, said["name"]) == (1, "CONFIGURATION_INVALID")
    assert "keep_records is not set" in said["message"]
    (tmp_path / "kms.toml").write_text('keep_records = "90d"')
    assert prune(realm, "--config", str(tmp_path / "kms.toml"))[0] == 0


@pytest.mark.parametrize("keep", ["90", "1h", "never"])
def test_prune_with_a_span_that_is_none(realm: Realm, keep: str) -> None:
    write(realm)
    code, said = prune(realm, "--keep", keep)
    assert (code, said["name"]) == (2, "COMMAND_INVALID")
    assert "--keep" in said["message"]


def test_export(realm: Realm) -> None:
    _, expected = write(realm)
    _, more = write(realm, (1,))
    code, out, errors = run("export", "--home", realm.home)
    assert (code, errors) == (0, "")
    assert main_fields(out) == expected + more


def test_export_as_events(realm: Realm) -> None:
    _, expected = write(realm)
    code, out, errors = run("export", "--format", "events", "--home", realm.home)
    assert (code, errors) == (0, "")
    lines = out.splitlines()
    assert len(lines) == len(expected)
    for line, entry in zip(lines, expected, strict=True):
        time_text, number, fields = line.split(" ", 2)
        assert datetime.fromisoformat(time_text).timestamp() * 1000 == pytest.approx(entry["time"], abs=0.5)
        result, threshold, name, cmid, *_, sku = fields.split(",")
        assert (number, result, threshold, cmid, sku) == ("12290", "0x00000000", "1", entry["cmid"], entry["sku"])
        assert name.startswith("machine-")


def test_export_to_a_file(realm: Realm, tmp_path: Path) -> None:
    write(realm)
    path = tmp_path / "entries.csv"
    code, out, errors = run("export", "--home", realm.home, "--format", "csv", "--out", path, "--json")
    assert (code, errors) == (0, "")
    assert json.loads(out) == {"ok": True, "file": str(path), "entries": 5}
    assert len(path.read_bytes().splitlines()) == 6
    assert path.stat().st_mode & 0o777 == 0o600


def test_export_of_a_damaged_ledger_leaves_no_file(realm: Realm, tmp_path: Path) -> None:
    path, _ = write(realm)
    damage(path)
    target = tmp_path / "out" / "entries"
    target.parent.mkdir()
    assert run("export", "--home", realm.home, "--out", target)[0] == 1
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (("--since", "1h"), 5),
        (("--until", "1h"), 0),
        (("--since", "2001-02-03"), 5),
        (("--since", "2001-02-03", "--until", "2001-02-04T12:00+02:00"), 0),
        (("--since", "30000d"), 5),
        (("--since", "1969-12-31"), 5),
        (("--until", "0001-01-01T00:00+14:00"), 0),
    ],
)
def test_export_of_a_span(realm: Realm, options: tuple[str, ...], count: int) -> None:
    write(realm)
    code, out, _ = run("export", "--home", realm.home, *options)
    assert (code, len(out.splitlines())) == (0, count)


def test_a_time_that_is_none(realm: Realm) -> None:
    code, out, errors = run("export", "--home", realm.home, "--since", "yesterday")
    assert (code, out) == (2, "")
    assert "'yesterday' is no time" in errors


def test_export_for_a_reader_that_has_enough(realm: Realm) -> None:
    write(realm, (1000,))
    command = f"{sys.executable} -m kms_fast ledger export --home {realm.home} | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["index"] == 0
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["verify", "export"])
def test_a_home_that_is_none(tmp_path: Path, command: str) -> None:
    code, out, errors = run(command, "--home", tmp_path)
    (line,) = errors.splitlines()
    assert (code, out) == (1, "")
    assert "--home" in line


def test_a_home_whose_host_never_ran(realm: Realm) -> None:
    code, _, errors = run("verify", "--home", realm.home)
    assert code == 1
    assert f"{realm.home}/host/ledger is not there" in errors


def test_under_another_publisher(realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(realm)
    with monkeypatch.context() as patch:
        patch.setattr("tests.hosts.make_key", lambda name: make_key("other " + name))
        (tmp_path / "other").mkdir()
        other = make_realm(tmp_path / "other")
    shutil.copy(other.home / "host" / "publisher.json", realm.home / "host" / "publisher.json")
    code, _, errors = run("verify", "--home", realm.home)
    assert code == 1
    assert "do not verify" in errors


def test_pruning_asks_the_store_that_is_named(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    (realm.home / "host" / "ledger").mkdir()
    code, said, _ = run_cli(
        "ledger", "prune", "--keep", "1d", "--store", "postgresql://kms@127.0.0.1:1/kms", home=realm.home
    )
    assert (code, said["name"]) == (1, "STORE_UNAVAILABLE")
