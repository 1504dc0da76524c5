"""What was acknowledged against the ledger, and the real thing: a host killed in the middle of a load."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kms_fast.load.proof import compare, prove_ledger
from tests.hosts import PUBLISHER_ID, make_realm, serve


def make_line(number: int, **changes: str | int) -> bytes:
    leaf = {"request_hash": f"{number:064x}", "cmid": f"{number:036}", "batch": f"1/{number}", "index": number}
    return json.dumps(leaf | changes).encode() + b"\n"


TOLD = [make_line(number) for number in range(5)]
LEDGER = [make_line(number, sku="s", result=0, time=1) for number in range(7)]


def test_every_acknowledged_leaf_is_found_in_any_order() -> None:
    assert compare(TOLD, LEDGER[::-1]) == (7, 5, 5, 0)


def test_a_leaf_that_is_not_in_the_ledger_is_missing() -> None:
    assert compare(TOLD, LEDGER[1:]) == (6, 5, 4, 0)


@pytest.mark.parametrize(
    "change", [{"request_hash": "f" * 64}, {"cmid": "c"}, {"batch": "2/2"}, {"index": 9}, {"result": 0xC004F038}]
)
def test_a_record_that_differs_is_not_what_was_told(change: dict[str, str | int]) -> None:
    assert compare(TOLD, [make_line(2, **change), *LEDGER[:2], *LEDGER[3:]]) == (7, 5, 4, 0)


def test_a_leaf_that_is_there_twice_or_told_twice_is_repeated() -> None:
    assert compare(TOLD, [*LEDGER, LEDGER[1]]) == (8, 5, 5, 1)
    assert compare([*TOLD, TOLD[1]], LEDGER) == (7, 6, 5, 1)


def test_after_kill_9_in_mid_load_the_ledger_holds_every_acknowledgement(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    record = tmp_path / "record"
    with serve(realm) as host:
        load = subprocess.Popen(
            [
                *(sys.executable, "-m", "kms_fast", "load", f"127.0.0.1:{host.address[1]}", "--seconds", "3", "--json"),
                *("--publisher", str(realm.publisher_json), "--record", str(record)),
                *("--key", realm.skus["desktop"].setup_key(PUBLISHER_ID).text),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        while not record.exists() or record.stat().st_size < 200_000:
            assert load.poll() is None
        host.process.send_signal(signal.SIGKILL)
        host.process.wait()
        figures = json.loads(load.communicate(timeout=60)[0])
    assert load.returncode == 1
    assert figures["ok"] is False
    assert {"CONNECTION_LOST", "CONNECTION_FAILED"} == set(figures["error_kinds"])
    assert figures["activations"] == figures["verified"] > 1000

    with serve(realm) as host:
        assert host.stop() == 0
    proof = prove_ledger(realm.home, record)
    assert proof.ok, proof
    assert proof.acknowledged == figures["activations"] <= proof.records


def test_a_ledger_that_was_changed_is_not_ok(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    with serve(realm) as host:
        subprocess.run(
            [
                *(sys.executable, "-m", "kms_fast", "load", f"127.0.0.1:{host.address[1]}", "--activations", "300"),
                *("--publisher", str(realm.publisher_json), "--record", str(tmp_path / "record")),
                *("--key", realm.skus["desktop"].setup_key(PUBLISHER_ID).text),
            ],
            check=True,
            capture_output=True,
        )
    assert prove_ledger(realm.home, tmp_path / "record").ok
    request_hash = json.loads((tmp_path / "record").read_text().splitlines()[100])["request_hash"]
    (segment,) = [path for path in (realm.home / "host" / "ledger").iterdir() if path.is_file() and path.stat().st_size]
    data = segment.read_bytes()
    segment.write_bytes(data.replace(bytes.fromhex(request_hash), bytes(32)))
    proof = prove_ledger(realm.home, tmp_path / "record")
    assert (proof.ok, proof.chain_ok) == (False, False)
    assert proof.problem
