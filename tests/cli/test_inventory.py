"""``kms-fast inventory list | show | summary | forget``."""

import asyncio
import json
import re
import shlex
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw
import pytest

from kms_fast.cli.main import run
from kms_fast.store import ChangeRow, Total
from kms_fast.store.sqlite_inventory import SqliteInventory
from tests.hosts import SKUS, make_realm
from tests.store.inventory_contract import DAY_MS, HOST, NOW_MS, SKU, by_key, cmid, granted, refused

DESKTOP = SKUS["desktop"]
Command = Callable[..., dict[str, Any]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_realm(tmp_path).home


@pytest.fixture
def ask(home: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command with --json and gives its object, after checking the exit code against it."""

    def command(*arguments: str) -> dict[str, Any]:
        code = run(["inventory", *arguments, "--home", str(home), "--json"])
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert code == (0 if told["ok"] else 1 if told["name"] != "COMMAND_INVALID" else 2)
        return told

    return command


def fill(home: Path, rows: Sequence[ChangeRow], totals: Sequence[Total] = ()) -> None:
    async def record() -> None:
        inventory = SqliteInventory(home / "host" / "inventory.db")
        await inventory.record(HOST, by_key(rows), totals, [])
        await inventory.close()

    asyncio.run(record())


def keep_summary(home: Path) -> None:
    async def keep() -> None:
        inventory = SqliteInventory(home / "host" / "inventory.db")
        await inventory.keep_summary(await inventory.summarize(NOW_MS))
        await inventory.close()

    asyncio.run(keep())


def names(told: dict[str, Any]) -> list[str]:
    return [client["name"] for client in told["clients"]]


def test_a_page_and_the_next(home: Path, ask: Command) -> None:
    fill(home, [granted(number) for number in range(5)])
    first = ask("list", "--limit", "3")
    assert names(first) == ["desk-0000", "desk-0001", "desk-0002"]
    second = ask("list", "--limit", "3", "--after", first["next"])
    assert (names(second), second["next"]) == (["desk-0003", "desk-0004"], None)


def test_pages_by_name(home: Path, ask: Command) -> None:
    fill(home, [granted(number, name=name) for number, name in enumerate(["b,1", "B,2", "a", "b,3"])])
    first = ask("list", "--name", "b", "--limit", "2")
    second = ask("list", "--name", "b", "--limit", "2", "--after", first["next"])
    assert names(first) + names(second) == ["b,1", "B,2", "b,3"]


def test_filters(home: Path, ask: Command) -> None:
    fill(home, [granted(1), refused(2, state=5), refused(3), granted(4, hardware_changes=2)])
    assert names(ask("list", "--state", "notification")) == ["desk-0002"]
    assert names(ask("list", "--state", "licensed")) == ["desk-0001", "desk-0004"]
    assert names(ask("list", "--cloned")) == ["desk-0004"]
    assert names(ask("list", "--state", "unlicensed")) == []


@pytest.mark.parametrize(
    "place", ["nonsense", "", f"{uuid.UUID(int=1)}", f"{uuid.UUID(int=1)},{uuid.UUID(int=2)},name"]
)
def test_a_place_that_is_none(home: Path, ask: Command, place: str) -> None:
    fill(home, [granted(1)])
    assert ask("list", "--after", place)["name"] == "COMMAND_INVALID"


def test_a_place_of_another_order(home: Path, ask: Command) -> None:
    fill(home, [granted(1), granted(2)])
    place = ask("list", "--limit", "1")["next"]
    assert "another order" in ask("list", "--name", "desk", "--after", place)["message"]


def test_show(home: Path, ask: Command) -> None:
    row = refused(
        7, sku=DESKTOP.id.bytes, address=bytes(15) + b"\1", name="büro", virtual=1, library_version=0x01020003,
        previous_cmid=cmid(6), predecessor=b"p" * 32, state=3,
    )  # fmt: skip
    fill(home, [row])
    [client] = ask("show", str(uuid.UUID(int=7)))["clients"]
    assert client == {
        "cmid": str(uuid.UUID(int=7)),
        "sku": str(DESKTOP.id),
        "product": DESKTOP.name,
        "name": "büro",
        "address": "::1",
        "state": "out-of-tolerance-grace",
        "first_seen_ms": NOW_MS,
        "last_seen_ms": NOW_MS,
        "activations": 0,
        "activated_ms": None,
        "expires_ms": None,
        "refusals": 1,
        "refused_ms": NOW_MS,
        "refusal": "0xC004F038",
        "refusal_name": "COUNT_TOO_LOW",
        "hardware": (b"w" * 16).hex(),
        "hardware_changes": 0,
        "predecessor": (b"p" * 32).hex(),
        "previous_cmid": str(uuid.UUID(int=6)),
        "virtual": True,
        "library_version": "1.2.3",
    }


def test_a_machine_that_is_not_there(home: Path, ask: Command) -> None:
    fill(home, [granted(1)])
    told = ask("show", str(uuid.UUID(int=9)))
    assert told["name"] == "MACHINE_UNKNOWN"
    assert "No machine with CMID" in told["message"]


def test_a_place_is_one_word_of_a_shell(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(home, [granted(1, name="desk; $(reboot)'"), granted(2, name="desks")])
    assert run(["inventory", "list", "--home", str(home), "--name", "desk", "--limit", "1"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("more: ")]
    assert shlex.split(line)[2:] == [f"{uuid.UUID(int=1)},{uuid.UUID(bytes=SKU)},desk; $(reboot)'"]


def test_summary(home: Path, ask: Command) -> None:
    rows = [granted(1, sku=DESKTOP.id.bytes, expires_ms=DAY_MS), refused(2), granted(3, hardware_changes=1)]
    fill(home, rows, [Total(DESKTOP.id.bytes, 0, 1, 2), Total(DESKTOP.id.bytes, 0xC004F038, 2, 5)])
    told = ask("summary")
    assert {"sku": str(DESKTOP.id), "product": DESKTOP.name, "clients": 1} in told["products"]
    assert told["states"] == {"licensed": 2, "initial-grace": 1}
    assert (told["expired"], told["cloned"], told["requests"]) == (1, 1, 7)
    assert told["results"] == {"ACTIVATED": 2, "COUNT_TOO_LOW": 5}
    fill(home, [granted(4)])
    assert sum(ask("summary")["states"].values()) == 4
    keep_summary(home)
    kept = ask("summary")
    fill(home, [granted(5)])
    assert ask("summary") == kept


def test_a_summary_while_the_recorder_writes(home: Path, ask: Command) -> None:
    fill(home, [granted(1)])
    db = apsw.Connection(str(home / "host" / "inventory.db"))
    db.execute("BEGIN IMMEDIATE")
    assert ask("summary")["states"] == {"licensed": 1}


def test_texts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(home, [granted(1, sku=DESKTOP.id.bytes, name="desk\x1b[31m"), granted(2)])
    assert run(["inventory", "list", "--home", str(home), "--limit", "1"]) == 0
    shown = capsys.readouterr().out
    assert DESKTOP.name in shown
    assert r"desk\x1b[31m" in shown
    assert "\x1b" not in shown
    assert "192.0.2.1" in shown
    assert "more: --after 00000000-0000-0000-0000-000000000001," in shown
    assert run(["inventory", "show", str(uuid.UUID(int=1)), "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    assert "licensed" in shown
    assert re.search(r"^first seen +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$", shown, re.MULTILINE)
    assert " ms " not in shown
    assert run(["inventory", "summary", "--home", str(home)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^  licensed +2$", shown, re.MULTILINE)
    assert " ms " not in shown
    assert run(["inventory", "list", "--name", "no-such", "--home", str(home)]) == 0
    assert capsys.readouterr().out == "No machine.\n"


def test_a_home_without_an_inventory(home: Path, ask: Command) -> None:
    told = ask("list")
    assert "is not the home of a host that has run" in told["message"]
    assert not (home / "host" / "inventory.db").exists()
