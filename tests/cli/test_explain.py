"""``kms-fast explain CMID|NAME``: a machine's story, from what a real host signed and its recorder took up."""

import asyncio
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kms_fast.cli.main import run
from kms_fast.cli.settings import settings_file
from kms_fast.cli.story import Story, find_causes, format_difference
from kms_fast.host.attempts import Attempt, find_attempts
from kms_fast.host.segment import list_segments
from kms_fast.model.lease import Leaf
from kms_fast.model.policy import MINUTE_MS
from kms_fast.results import BY_NAME
from kms_fast.store import Client
from kms_fast.store.sqlite_inventory import SqliteInventory
from tests.batches import BatchMaker
from tests.host.running import wait_for
from tests.hosts import Realm, RunningHost, make_realm, run_cli, serve
from tests.reference.rpc import Connection
from tests.store.inventory_contract import DAY_MS, NOW_MS, SKU, granted
from tests.system.asker import Asker, now_ms

CMID = uuid.UUID(int=0xC0FFEE)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[RunningHost]:
    """Three machines are needed here."""
    with serve(make_realm(tmp_path, threshold=3)) as running:
        yield running


def ask(host: RunningHost, cmid: bytes, name: str, **fields: Any) -> None:
    asker = Asker.of(host.realm, "desktop")
    with Connection(host.address) as connection:
        connection.bind()
        asked = asker.ask(cmid=cmid, name=name.encode(), **{"hardware_digest": b"h" * 16, **fields})
        connection.call(asked.request)


def explain(host: RunningHost, what: object) -> dict[str, Any]:
    code, told, _ = run_cli("explain", str(what), home=host.realm.home)
    assert code == (0 if told["ok"] else 1)
    return told


def causes(told: dict[str, Any]) -> list[str]:
    return [cause["name"] for cause in told["causes"]]


def wait_until_recorded(host: RunningHost, cmid: uuid.UUID, requests: int) -> None:
    async def count() -> int:
        inventory = SqliteInventory(host.realm.home / "host" / "inventory.db")
        clients = await inventory.get(cmid.bytes)
        await inventory.close()
        return sum(client.activations + client.refusals for client in clients)

    wait_for(lambda: asyncio.run(count()) == requests)


def test_a_machine_that_was_refused_and_then_granted(host: RunningHost, capsys: pytest.CaptureFixture[str]) -> None:
    ask(host, CMID.bytes, "desk-1", client_time=now_ms() - 90 * MINUTE_MS)
    told = explain(host, CMID)
    assert causes(told) == ["COUNT_TOO_LOW", "CLOCK_DRIFTS"]
    assert "It had seen 1, and needs 3." in told["causes"][0]["what"]
    for number in (2, 3):
        ask(host, os.urandom(16), f"desk-{number}")
    ask(host, CMID.bytes, "desk-1")
    wait_until_recorded(host, CMID, 2)
    told = explain(host, CMID)
    assert causes(told) == ["NOTHING_WRONG"]
    [product] = told["products"]
    assert (product["product"], product["generation"], product["state"]) == ("Desktop 3", 3, "licensed")
    assert (product["granted"], product["refused_by_result"]) == (1, {"COUNT_TOO_LOW": 1})
    assert (product["last"]["count"], product["last"]["threshold"]) == (3, 3)
    assert [attempt["result_name"] for attempt in told["attempts"]] == ["COUNT_TOO_LOW", "ACTIVATED"]
    assert -91 * MINUTE_MS < told["attempts"][0]["clock_difference_ms"] < -89 * MINUTE_MS
    assert run(["explain", str(CMID), "--home", str(host.realm.home)]) == 0
    page = capsys.readouterr().out
    assert f"Machine desk-1, CMID {CMID}, last from 127.0.0.1" in page
    assert "granted 1 times, refused 1 times (1 COUNT_TOO_LOW)" in page
    assert "at the last decision 3 machines were seen, 3 are needed" in page


def test_by_name(host: RunningHost, capsys: pytest.CaptureFixture[str]) -> None:
    cmids = [uuid.UUID(int=number) for number in (1, 2, 3)]
    for cmid, name in zip(cmids, ("desk-1", "desk-10", "DESK-10"), strict=True):
        ask(host, cmid.bytes, name)
        wait_until_recorded(host, cmid, 1)
    assert explain(host, "desk-1")["cmid"] == str(cmids[0]), "the whole name, not the beginning of others"
    assert {client["cmid"] for client in explain(host, "desk-10")["clients"]} == {str(cmids[1]), str(cmids[2])}
    assert len(explain(host, "des")["clients"]) == 3
    assert run(["explain", "desk-10", "--home", str(host.realm.home)]) == 0
    assert f"kms-fast explain {cmids[2]}" in capsys.readouterr().out
    assert run(["explain", "laptop", "--home", str(host.realm.home)]) == 2


def test_an_unknown_machine(host: RunningHost) -> None:
    assert explain(host, uuid.UUID(int=5))["name"] == "MACHINE_UNKNOWN"


def test_a_result_is_explained_whatever_the_settings_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "host.toml"
    config.write_text("no toml")
    assert run(["explain", "CONFIGURATION_INVALID", "--config", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "CONFIGURATION_INVALID"


def test_clones_and_a_lease_that_was_renewed_twice(host: RunningHost) -> None:
    lease = b"p" * 32
    for digest in (b"a" * 16, b"b" * 16, b"a" * 16):
        ask(host, CMID.bytes, "image", hardware_digest=digest, predecessor=lease, previous_cmid=bytes(15) + b"\7")
    for _ in range(2):
        ask(host, os.urandom(16), "other")
    for digest in (b"a" * 16, b"b" * 16):
        ask(host, CMID.bytes, "image", hardware_digest=digest, predecessor=lease)
    told = explain(host, CMID)
    assert causes(told) == ["DUPLICATED_CMID", "LEASE_RENEWED_TWICE"]
    assert told["previous_cmids"] == [str(uuid.UUID(int=7))]
    assert sorted(told["hardware"].values()) == [2, 3]


def test_attempts_are_those_of_the_ledger(host: RunningHost) -> None:
    ask(host, CMID.bytes, "büro", previous_cmid=b"q" * 16, licence_state=5)
    ask(host, os.urandom(16), "other")
    [attempt] = find_attempts(host.realm.home / "host" / "ledger", CMID.bytes, lambda so_far: None)
    assert (attempt.name, attempt.address, attempt.state) == ("büro", "127.0.0.1", 5)
    assert (attempt.previous_cmid, attempt.predecessor) == (b"q" * 16, None)
    assert (attempt.leaf.result, attempt.leaf.count, attempt.leaf.threshold) == (BY_NAME["COUNT_TOO_LOW"].code, 1, 3)


def test_a_machine_that_only_the_ledger_has(tmp_path: Path) -> None:
    with serve(make_realm(tmp_path)) as host:
        ask(host, CMID.bytes, "desk-1")
    (host.realm.home / "host" / "inventory.db").unlink()
    assert explain(host, CMID)["attempts_in_ledger"] == 1


def test_the_store_is_that_of_the_home_s_settings(host: RunningHost) -> None:
    settings_file(host.realm.home).write_text('store = "postgresql://kms@127.0.0.1:1/kms"\n')
    assert explain(host, CMID)["name"] == "STORE_UNAVAILABLE"


def test_a_segment_that_is_gone_is_told(realm: Realm) -> None:
    maker, asker = BatchMaker(realm), Asker.of(realm, "desktop")
    for _ in range(2):
        ledger = maker.open_ledger()
        maker.write(ledger, maker.collect([asker.ask(cmid=CMID.bytes).request]), now_ms())
        ledger.close()
    folder = realm.home / "host" / "ledger"
    last = list_segments(folder)[-1]
    with pytest.raises(FileNotFoundError, match=last.name):
        find_attempts(folder, CMID.bytes, lambda _: last.unlink(missing_ok=True))


def make_story(*attempts: Attempt, now_ms: int = NOW_MS, **client: Any) -> Story:
    row = granted(0xC0FFEE, **client)
    known = Client(*row[:3], NOW_MS, *row[3:12], row[13], row[14], row[15], row[16], row[17], row[18])
    return Story(CMID, [known], attempts, {}, now_ms)


GRANTED = Attempt(
    NOW_MS, b"h" * 16,
    Leaf(0, 0, b"r" * 32, SKU, CMID.bytes, b"w" * 16, NOW_MS, 1, 259_200, 120, 10_080, 5, 5),
    "desk", "192.0.2.1", 2, None, None,
)  # fmt: skip


REFUSED_LONG_AGO = replace(
    GRANTED, time_ms=NOW_MS - 40 * DAY_MS, leaf=replace(GRANTED.leaf, result=BY_NAME["COUNT_TOO_LOW"].code)
)


def renewed(predecessor: bytes, request: bytes) -> Attempt:
    return replace(GRANTED, predecessor=predecessor * 32, leaf=replace(GRANTED.leaf, request_hash=request * 32))


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        (make_story(GRANTED, now_ms=NOW_MS + 15 * DAY_MS), "NOTHING_WRONG"),
        (make_story(GRANTED, now_ms=NOW_MS + 16 * DAY_MS), "RENEWAL_MISSED"),
        (make_story(GRANTED, now_ms=NOW_MS + 181 * DAY_MS), "LEASE_ENDED"),
        (make_story(hardware_changes=1), "HARDWARE_CHANGED_ONCE"),
        (make_story(hardware_changes=2), "DUPLICATED_CMID"),
        (
            make_story(replace(GRANTED, predecessor=b"p" * 32), replace(GRANTED, predecessor=b"p" * 32)),
            "NOTHING_WRONG",  # sent again
        ),
        (make_story(renewed(b"p", b"1"), renewed(b"p", b"2")), "ANSWER_LOST"),
        (make_story(renewed(b"p", b"1"), renewed(b"p", b"2"), renewed(b"q", b"3")), "ANSWER_LOST"),
        (make_story(renewed(b"p", b"1"), renewed(b"q", b"2"), renewed(b"p", b"3")), "LEASE_RENEWED_TWICE"),
        # A host of the same store granted since.
        (make_story(REFUSED_LONG_AGO), "NOTHING_WRONG"),
        (make_story(refusals=1, refused_ms=NOW_MS + 1, refusal=BY_NAME["CLOCKS_DIFFER"].code), "CLOCKS_DIFFER"),
        (make_story(refusals=1, refused_ms=NOW_MS - 1, refusal=BY_NAME["CLOCKS_DIFFER"].code), "NOTHING_WRONG"),
    ],
)
def test_causes(story: Story, expected: str) -> None:
    assert [cause.name for cause in find_causes(story)] == [expected]


@pytest.mark.parametrize(
    ("difference_ms", "text"),
    [(59_999, "within a minute of"), (-62 * MINUTE_MS, "1 h 02 min behind"), (MINUTE_MS, "0 h 01 min ahead of")],
)
def test_differences(difference_ms: int, text: str) -> None:
    assert format_difference(difference_ms) == text
