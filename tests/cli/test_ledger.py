"""``kms-fast ledger verify | records``, text and JSON, on a host's home."""

import json
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.batches import BatchMaker
from tests.hosts import Realm, make_key, make_realm
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
    """A segment with batches of these sizes; and what `records` is to say of them."""
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
        "batches": 2,
        "records": 5,
        "granted": 5,
        "torn_tails": 0,
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
    code, out, _ = run("records", "--home", realm.home)
    assert [json.loads(line) for line in out.splitlines()] == expected[:2]


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


@pytest.mark.parametrize("command", ["verify", "records"])
def test_damage_as_json(realm: Realm, command: str) -> None:
    path, _ = write(realm)
    damage(path)
    code, out, errors = run(command, "--home", realm.home, "--json")
    said = json.loads(out)
    assert (code, errors) == (1, "")
    assert (said["ok"], said["name"], said["details"]["file"]) == (False, "LEDGER_DAMAGED", str(path))


def test_records(realm: Realm) -> None:
    _, expected = write(realm)
    _, more = write(realm, (1,))
    code, out, errors = run("records", "--home", realm.home)
    assert (code, errors) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == expected + more


def test_records_for_a_reader_that_has_enough(realm: Realm) -> None:
    write(realm, (1000,))
    command = f"{sys.executable} -m kms_fast ledger records --home {realm.home} | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout)["index"] == 0
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["verify", "records"])
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
