"""``kms-fast load`` against a real host process."""

import html
import json
import operator
import os
import re
import signal
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kms_fast.cli.load import resolve
from kms_fast.model.keys import KeyKind, new_key
from tests.hosts import PUBLISHER_ID, RunningHost, run_cli

LOAD = [sys.executable, "-m", "kms_fast", "load"]


def arguments(host: RunningHost, *more: str, sku: str = "desktop") -> list[str]:
    key = host.realm.skus[sku].setup_key(PUBLISHER_ID).text
    return [f"127.0.0.1:{host.address[1]}", "--publisher", str(host.realm.publisher_json), "--key", key, *more]


def load(host: RunningHost, *more: str, sku: str = "desktop") -> tuple[int, dict[str, Any]]:
    code, figures, _ = run_cli("load", *arguments(host, *more, sku=sku))
    return code, figures


def test_every_activation_is_verified_and_recorded(real_host: RunningHost, tmp_path: Path) -> None:
    record = tmp_path / "record"
    code, figures = load(
        real_host, "--activations", "2000", "--processes", "2", "--clients", "500", "--record", str(record)
    )
    assert code == 0
    assert figures["ok"] is True
    assert figures["activations"] == figures["verified"] == figures["requests"] == 2000
    assert (figures["errors"], figures["refused"], figures["connections"]) == (0, 0, 256)
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert len({line["request_hash"] for line in lines}) == 2000
    assert len({line["cmid"] for line in lines}) == 500
    assert len({(line["batch"], line["index"]) for line in lines}) == 2000
    latency = figures["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p999"] <= latency["max"]
    assert 1 <= figures["batch_size"]["mean"] <= figures["batch_size"]["max"] <= 1024


@pytest.mark.parametrize("share", ["none", "0%"])
def test_nothing_is_verified_when_told_so(real_host: RunningHost, share: str) -> None:
    code, figures = load(real_host, "--activations", "50", "--verify", share)
    assert (code, figures["activations"], figures["verified"]) == (0, 50, 0)


def test_the_page_shows_rate_latency_and_counts(real_host: RunningHost) -> None:
    done = subprocess.run([*LOAD, *arguments(real_host, "--activations", "300")], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
    for words in ("activations a second", "300  leases verified", "0  errors", "p99.9", "█"):
        assert words in done.stdout


def test_a_product_that_the_host_cannot_serve_is_its_result(real_host: RunningHost) -> None:
    code, error = load(real_host, "--activations", "5", sku="newer")
    assert (code, error["name"], error["signed"]) == (1, "HOST_CANNOT_SERVE", True)


def test_a_wrong_key_is_its_result(real_host: RunningHost) -> None:
    key = new_key(KeyKind.CLIENT_SETUP, PUBLISHER_ID, reference=1).text
    command = arguments(real_host, "--activations", "5")
    command[command.index("--key") + 1] = key
    code, error, _ = run_cli("load", *command)
    assert (code, error["name"], error["signed"]) == (1, "REQUEST_UNREADABLE", False)


def test_a_dead_host_is_one_clear_line(real_host: RunningHost) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        command = arguments(real_host)
        command[0] = f"127.0.0.1:{unused.getsockname()[1]}"
        done = subprocess.run([*LOAD, *command], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "NO_HOST_REACHED" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("host", ["192.0.2.1", "[2001:db8::1]:1688"])
def test_another_machine_is_not_loaded_unless_that_is_allowed(real_host: RunningHost, host: str) -> None:
    command = arguments(real_host)
    command[0] = host
    code, error, _ = run_cli("load", *command)
    assert (code, error["name"]) == (2, "COMMAND_INVALID")
    assert "--i-may-load-this-host" in error["message"]
    assert resolve(host, allowed=True)[1] == 1688


@pytest.mark.parametrize("host", ["a" * 70, "a..b", "127.0.0.1:x", "[::1"])
def test_what_is_no_address_is_one_clear_error(real_host: RunningHost, host: str) -> None:
    command = arguments(real_host)
    command[0] = host
    code, error, err = run_cli("load", *command)
    assert (code, error["name"], err) == (2, "COMMAND_INVALID", "")
    assert host in error["message"]


@pytest.mark.parametrize(
    "wrong",
    [["--verify", "101%"], ["--verify", "half"], ["--rate", "0"], ["--processes", "300"], ["--per-connection", "-1"]],
)
def test_options_that_make_no_sense_are_usage_errors(real_host: RunningHost, wrong: list[str]) -> None:
    code, error = load(real_host, *wrong)
    assert (code, error["name"]) == (2, "COMMAND_INVALID")


def test_ctrl_c_prints_what_is_known_and_leaves_no_process(real_host: RunningHost) -> None:
    command = [*LOAD, *arguments(real_host, "--seconds", "100", "--processes", "2", "--json")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    # Once both processes of the load have connections, something is known.
    while not all(count_sockets(child) > 10 for child in find_children(process.pid)) or not find_children(process.pid):
        assert process.poll() is None
    children = find_children(process.pid)
    assert len(children) <= 2
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    figures = json.loads(out)
    assert figures["interrupted"] is True
    assert figures["errors"] == 0
    assert "Traceback" not in err
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def find_children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def count_sockets(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def read_page(path: Path) -> str:
    return html.unescape(path.read_text(encoding="utf-8"))


def test_a_report_shows_the_figures_and_the_command_but_not_the_key(real_host: RunningHost, tmp_path: Path) -> None:
    report = tmp_path / "the report.html"
    options = ["--seconds", "1.5", "--processes", "2", "--report", str(report)]
    code, figures = load(real_host, *options)
    page = read_page(report)
    assert code == 0
    assert f"{figures['activations']:,} in {figures['seconds']:.2f} s" in page
    for name in ("p50", "p99", "max"):
        assert f">{figures['latency_ms'][name]:,.2f} <" in page
    assert f"kms-fast load 127.0.0.1:{real_host.address[1]} --publisher " in page
    assert f"--report '{report}'" in page
    assert "--key XXXXX-XXXXX-XXXXX-XXXXX-XXXXX" in page
    assert real_host.realm.skus["desktop"].setup_key(PUBLISHER_ID).text not in page
    charts = json.loads(re.findall('<script type="application/json" id="charts">(.*)</script>', report.read_text())[0])
    rate = next(chart for chart in charts if chart["axes"][1]["title"] == "activations (1/s)")
    seconds = [end - begin for begin, end in pairwise([0, *rate["points"]])]
    granted = sum(map(operator.mul, seconds, rate["series"][0]["values"]))
    assert granted == pytest.approx(figures["activations"], rel=0.001)
    assert len(rate["points"]) >= 2
    latency = next(chart for chart in charts if chart["points"] == rate["points"] and chart["axes"][1]["log"])
    for p50, p90, p99, p999, longest in zip(*(series["values"] for series in latency["series"]), strict=True):
        assert 0 < p50 <= p90 <= p99 <= p999 <= longest <= figures["latency_ms"]["max"] * 1.001


@pytest.mark.parametrize("option", ["--record", "--report"])
def test_a_file_that_cannot_be_written_is_found_before_the_load(
    real_host: RunningHost, tmp_path: Path, option: str
) -> None:
    path = tmp_path / "no" / "file"
    code, error, err = run_cli("load", *arguments(real_host, "--seconds", "100", option, str(path)))
    assert (code, error["name"], err) == (1, "STORAGE_FAILED", "")
    assert str(path) in error["message"]
    code, error, err = run_cli("load", *arguments(real_host, "--seconds", "100", option, str(tmp_path)))
    assert (code, error["name"], err) == (2, "COMMAND_INVALID", "")


def test_a_report_that_fails_at_the_end_does_not_cost_the_figures(real_host: RunningHost) -> None:
    code, figures, err = run_cli("load", *arguments(real_host, "--activations", "20", "--report", "/dev/full"))
    assert (code, figures["activations"]) == (1, 20)
    assert "/dev/full: No space left on device. The page was not written." in err


def test_a_load_that_got_no_answer_says_so_in_its_report(real_host: RunningHost, tmp_path: Path) -> None:
    command = arguments(real_host, "--report", str(tmp_path / "page.html"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        command[0] = f"127.0.0.1:{unused.getsockname()[1]}"
        code, error, _ = run_cli("load", *command)
    assert (code, error["name"]) == (1, "NO_HOST_REACHED")
    assert f'<p class="notice">{error["message"]}</p>' in read_page(tmp_path / "page.html")


def test_ctrl_c_writes_the_report_of_what_is_known(real_host: RunningHost, tmp_path: Path) -> None:
    report = tmp_path / "page.html"
    record = tmp_path / "record"
    options = ["--seconds", "100", "--json", "--report", str(report), "--record", str(record)]
    command = [*LOAD, *arguments(real_host, *options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)
    while not record.exists() or record.stat().st_size < 100_000:
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    figures = json.loads(process.communicate(timeout=30)[0])
    assert (process.returncode, figures["interrupted"]) == (130, True)
    page = read_page(report)
    assert '<p class="notice">Stopped by Ctrl-C; the figures are those until then.</p>' in page
    assert f"{figures['activations']:,} in {figures['seconds']:.2f} s" in page
