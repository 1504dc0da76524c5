"""``kms-fast lab``: the whole of it, for a second."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kms_fast import __version__
from kms_fast._core import backend
from kms_fast.cli.lab_findings import Findings
from kms_fast.cli.lab_page import draw_proof
from kms_fast.cli.realm import HostOptions, prepare_home
from kms_fast.load.plan import LoadPlan, LoadResult
from kms_fast.load.proof import LedgerProof
from kms_fast.store import Summary
from tests.hosts import run_cli
from tests.ports import find_free_port
from tests.postgres import PostgresServer

LAB = [sys.executable, "-m", "kms_fast", "lab"]


def run_lab(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Runs it with its temporary home under ``folder``."""
    done = subprocess.run(
        [*LAB, *arguments], capture_output=True, text=True, timeout=100, env=os.environ | {"TMPDIR": str(folder)}
    )
    return done.returncode, done.stdout, done.stderr


def find_servers(folder: Path) -> list[int]:
    """Processes whose command line names something under ``folder``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--per-connection", "1", "--connections", "16"],
        ["--clients", "7", "--connections", "9"],
        ["--workers", "3"],
    ],
)
def test_nothing_is_missing_wrong_or_unverified(tmp_path: Path, options: list[str]) -> None:
    code, out, err = run_lab(tmp_path, "--seconds", "1", "--json", *options)
    figures: dict[str, Any] = json.loads(out)
    assert (code, err) == (0, "")
    assert figures["ok"] is True
    assert figures["activations"] == figures["verified"] > 0
    assert (figures["errors"], figures["refused"]) == (0, 0)
    assert figures["activations_per_second"] > 0
    assert figures["server_cpu_us_per_activation"] > 0
    assert set(figures["latency_ms"]) == {"p50", "p90", "p99", "p999", "max"}
    assert set(figures["batch_size"]) == {"mean", "max"}
    warm_up, ledger = figures["warmup"], figures["ledger"]
    threshold = 7 if "7" in options else 25
    assert warm_up["requests"] in (2 * threshold, threshold)
    assert warm_up["refused"] == threshold - 1
    assert ledger["records"] == figures["activations"] + warm_up["requests"]
    assert ledger["acknowledged"] == ledger["records"] - warm_up["refused"]
    assert (ledger["acknowledged_missing"], ledger["acknowledged_repeated"], ledger["chain_ok"]) == (0, 0, True)
    assert 0 < ledger["batches"] <= ledger["records"]
    inventory = figures["inventory"]
    assert (inventory["granted"], inventory["refused"]) == (ledger["acknowledged"], warm_up["refused"])
    assert 0 < inventory["machines"] <= ledger["records"]
    assert (figures["backend"], figures["version"]) == (backend(), __version__)
    assert list(tmp_path.iterdir()) == []
    assert find_servers(tmp_path) == []


def test_a_lab_on_postgresql_has_a_database_of_its_own(tmp_path: Path, postgres_server: PostgresServer) -> None:
    before = postgres_server.execute("SELECT count(*) FROM pg_database")
    code, out, err = run_lab(tmp_path, "--seconds", "1", "--workers", "2", "--store", postgres_server.url(), "--json")
    figures = json.loads(out)
    assert (code, err, figures["ok"]) == (0, "", True)
    assert figures["warmup"]["refused"] == 24
    assert (figures["ledger"]["acknowledged_missing"], figures["ledger"]["acknowledged_repeated"]) == (0, 0)
    assert postgres_server.execute("SELECT count(*) FROM pg_database") == before
    assert list(tmp_path.iterdir()) == []


def test_a_lab_on_a_server_that_is_not_there(tmp_path: Path) -> None:
    store = f"postgresql://nobody@127.0.0.1:{find_free_port()}/postgres"
    code, out, _ = run_lab(tmp_path, "--store", store, "--json")
    assert (code, json.loads(out)["name"]) == (1, "STORE_UNAVAILABLE")
    assert list(tmp_path.iterdir()) == []


def test_the_page_shows_what_was_measured_and_proven(tmp_path: Path) -> None:
    code, out, _ = run_lab(tmp_path, "--seconds", "0.5")
    assert code == 0
    for words in (
        "activations a second",
        "leases verified",
        "p99",
        "µs of CPU",
        "0 missing, 0 twice",
        "chain verify",
        "recorded",
    ):
        assert words in out
    assert "✗" not in out


def test_a_home_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    code, error, _ = run_cli("lab", home=tmp_path)
    assert (code, error["name"]) == (1, "CONFIGURATION_INVALID")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_kept_lab_activates_by_hand(tmp_path: Path) -> None:
    home = tmp_path / "lab"
    code, out, _ = run_lab(tmp_path, "--seconds", "0.2", "--home", str(home), "--keep", "--json")
    kept = json.loads(out)["kept"]
    try:
        assert code == 0
        assert run_cli("client", "install-key", kept["key"], "--publisher", kept["publisher"], home=home)[0] == 0
        assert run_cli("client", "set-host", kept["address"], home=home)[0] == 0
        code, activated, _ = run_cli("client", "activate", home=home)
        assert (code, activated["ok"]) == (0, True)
    finally:
        os.kill(kept["pid"], signal.SIGTERM)
        while Path(f"/proc/{kept['pid']}/cmdline").exists() and Path(f"/proc/{kept['pid']}/cmdline").read_bytes():
            pass
    assert find_servers(home) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_prints_what_is_known_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C on the terminal, or TERM, as ``timeout`` sends it."""
    process = subprocess.Popen(
        [*LAB, "--seconds", "100", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    # More than the 26 lines of the warm-up: the load itself has begun.
    while not any(path.stat().st_size > 20_000 for path in tmp_path.glob("*/acknowledged.jsonl")):
        assert process.poll() is None
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    figures = json.loads(out)
    assert process.returncode == 130
    assert (figures["ok"], figures["interrupted"], figures["errors"]) == (False, True, 0)
    assert figures["activations"] == figures["verified"] > 0
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
    assert find_servers(tmp_path) == []


def test_neither_the_working_folder_nor_a_host_s_settings_matter(tmp_path: Path) -> None:
    """A checkout whose core is not compiled, and the variables of a host that runs beside the lab."""
    checkout = tmp_path / "checkout" / "kms_fast"
    checkout.mkdir(parents=True)
    (checkout / "__init__.py").touch()
    store = f"postgresql://127.0.0.1:{find_free_port()}/kms_fast"
    done = subprocess.run(
        [Path(sys.executable).with_name("kms-fast"), "lab", "--seconds", "0.5", "--json"],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=checkout.parent,
        env=os.environ | {"KMS_FAST_STORE": store, "KMS_FAST_CONFIG": str(tmp_path / "none"), "TMPDIR": str(tmp_path)},
    )
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True), done.stderr


def test_a_report_holds_the_proof_too(tmp_path: Path) -> None:
    report = tmp_path / "page.html"
    code, out, err = run_lab(tmp_path, "--seconds", "0.5", "--json", "--report", str(report))
    figures = json.loads(out)
    assert (code, err) == (0, "")
    page = report.read_text(encoding="utf-8")
    for words in (
        f"{figures['activations']:,} in {figures['seconds']:.2f} s",
        f"{figures['server_cpu_us_per_activation']:.1f} <small>µs</small>",
        f"<td>✓</td><td>{figures['activations']:,} of {figures['activations']:,} leases verified",
        f"kms-fast lab --seconds 0.5 --json --report {report}",
    ):
        assert words in page
    assert "✗" not in page
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_report_that_cannot_be_written_is_found_before_anything_is_made(tmp_path: Path) -> None:
    code, out, err = run_lab(tmp_path, "--json", "--report", str(tmp_path / "no" / "page.html"))
    assert (code, json.loads(out)["name"], err) == (1, "STORAGE_FAILED", "")


def test_ctrl_c_before_there_is_anything_to_tell_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(
        LAB, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    while not list(tmp_path.glob("*/publisher")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
    assert find_servers(tmp_path) == []


def test_ctrl_c_while_the_home_is_removed_does_not_leave_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    remove = shutil.rmtree

    def interrupted(path: Path) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        remove(path)

    with ExitStack() as cleanup:
        assert prepare_home(None, cleanup).parent == tmp_path
        monkeypatch.setattr(shutil, "rmtree", interrupted)
    assert list(tmp_path.iterdir()) == []


GOOD = Findings(
    plan=LoadPlan(address="127.0.0.1", port=1, product=None, machine_seed=bytes(32)),
    host=HostOptions(),
    warm_up=LoadResult(requests=4, activations=3, refused=1),
    load=LoadResult(requests=10, activations=10, verified=10),
    ledger=LedgerProof(batches=3, records=14, acknowledged=13, missing=0, repeated=0, chain_ok=True),
    inventory=Summary(0, [(b"", 5)], {1: 5}, 0, {}, 0, {0: 13, 0xC004F038: 1}),
    server_exit_code=0,
)


@pytest.mark.parametrize(
    "wrong",
    [
        {"load": replace(GOOD.load, failed=1)},
        {"load": replace(GOOD.load, verified=9)},
        {"load": replace(GOOD.load, refused=1)},
        {"load": replace(GOOD.load, requests=9)},
        {"load": LoadResult()},
        {"warm_up": replace(GOOD.warm_up, failed=1)},
        {"ledger": None},
        {"ledger": replace(GOOD.ledger, missing=1)},
        {"ledger": replace(GOOD.ledger, repeated=1)},
        {"ledger": replace(GOOD.ledger, chain_ok=False)},
        {"ledger": replace(GOOD.ledger, records=15)},
        {"ledger": replace(GOOD.ledger, acknowledged=12)},
        {"inventory": None},
        {"inventory": replace(GOOD.inventory, results={0: 12, 0xC004F038: 2})},
        {"inventory": replace(GOOD.inventory, results={0: 13})},
        {"server_exit_code": 1},
    ],
)
def test_anything_wrong_is_not_ok(wrong: dict[str, Any]) -> None:
    assert GOOD.ok
    assert "✗" not in draw_proof(GOOD).plain
    assert not replace(GOOD, **wrong).ok


def test_the_page_marks_what_the_ledger_does_not_bear_out() -> None:
    for wrong in (
        {"ledger": replace(GOOD.ledger, records=15)},
        {"ledger": replace(GOOD.ledger, acknowledged=12)},
        {"inventory": replace(GOOD.inventory, results={0: 12, 0xC004F038: 2})},
        {"inventory": replace(GOOD.inventory, results={0: 13})},
        {"server_exit_code": 1},
    ):
        assert draw_proof(replace(GOOD, **wrong)).plain.count("✗") == 1
