"""``kms-fast client activate --mak | request | apply``: real commands against a real activation service over TLS."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.activation_services import PASSPHRASE, Example, Service, make_example
from tests.hosts import run_cli


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    monkeypatch.setenv("KMS_FAST_PASSPHRASE", PASSPHRASE)
    monkeypatch.delenv("KMS_FAST_HOME", raising=False)
    return make_example(tmp_path)


@pytest.fixture
def service(example: Example) -> Iterator[Service]:
    with example.serve() as service:
        yield service


def make_key(example: Example, machines: int = 1) -> str:
    options = ("--machines", str(machines), "--customer", "4711", "--note", "laptops")
    return str(example.publisher("activation-key", "Example Runner", *options)["activation_key"])


def client(example: Example, name: str, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Run ``kms-fast client ARGUMENTS`` on the machine with this home: exit code and result."""
    code, told, error = run_cli("client", *arguments, home=example.folder / name)
    assert "Traceback" not in error
    return code, told


def activate(example: Example, name: str, key: str, service: Service, *options: str) -> tuple[int, dict[str, Any]]:
    given = ("--publisher", example.publisher_json, "--mak", key, "--url", service.url, "--ca", example.ca)
    return client(example, name, "activate", *given, *options)


def show(example: Example, name: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "kms_fast", "client", *arguments, "--home", str(example.folder / name)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """The address of a service that answers every request with this."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_over_the_network(example: Example, service: Service) -> None:
    """The service needs no root key, and both sides tell of the activation."""
    key = make_key(example)
    (example.home / "publisher" / "root.key").rename(example.folder / "root.key")
    for _ in range(2):
        code, told = activate(example, "laptop", key, service)
        assert (code, told["state_name"], told["minutes_left"]) == (0, "licensed", 0)
    assert told["direct"]["key_last_five"] == key[-5:]
    shown = show(example, "laptop", "status")
    assert "setup key         none" in shown
    assert "state             licensed without an end" in shown
    assert f"by the publisher, with key …{key[-5:]}" in shown
    assert show(example, "laptop", "expiry") == "Example Runner: licensed without an end\n"
    assert "publisher  0x00000000 ACTIVATED" in show(example, "laptop", "history")
    said = service.log.read_text()
    assert f"activated machine {told['cmid']} with multiple-activation key …{key[-5:]}: 1 of 1 machines" in said
    assert f"activated again machine {told['cmid']}" in said
    assert key not in said
    keys = example.publisher("keys")
    (listed,) = keys["activation_keys"]
    assert (listed["product"], listed["machines"], listed["machines_allowed"]) == ("Example Runner", 1, 1)
    (customer,) = example.publisher("customers")["customers"]
    assert (customer["customer_id"], customer["activation_keys"], customer["machines"]) == (4711, [key[-5:]], 1)
    rows = example.publisher("log", "--key", key[-5:])["requests"]
    assert [(row["name"], row["installation_id"], row["serial"]) for row in rows] == [("GRANTED", told["cmid"], None)]


def test_what_is_refused_is_told_and_changes_nothing(example: Example, service: Service) -> None:
    key = make_key(example)
    assert activate(example, "first", key, service)[0] == 0
    code, told = activate(example, "second", key, service)
    assert (code, told["name"]) == (1, "MULTIPLE_ACTIVATION_KEY_USED_UP")
    code, told = client(example, "second", "status")
    assert (code, told["name"]) == (1, "NO_KEY_INSTALLED")
    code, told = client(example, "second", "history")
    assert [attempt["name"] for attempt in told["products"][0]["attempts"]] == ["MULTIPLE_ACTIVATION_KEY_USED_UP"]
    example.publisher("disable-key", key[-5:])
    code, told = activate(example, "first", key, service)
    assert (code, told["name"]) == (1, "KEY_DISABLED")
    assert "state             licensed without an end" in show(example, "first", "status")
    example.publisher("disable-key", key[-5:], "--undo")
    assert activate(example, "first", key, service)[0] == 0


def test_without_a_network(example: Example) -> None:
    key, request, activation = make_key(example), example.folder / "machine.request", example.folder / "activation"
    (example.folder / "mak.txt").write_text(f"{key}\n")
    code, told = client(
        example,
        "island",
        "request",
        "--publisher",
        example.publisher_json,
        "--mak",
        f"@{example.folder / 'mak.txt'}",
        "--out",
        request,
    )
    assert code == 0
    done = example.publisher("activate-machine", request, "--out", activation)
    assert (done["cmid"], done["machines"], done["machines_allowed"], done["again"]) == (told["cmid"], 1, 1, False)
    assert example.publisher("activate-machine", request, "--out", activation)["again"]
    code, told = client(example, "elsewhere", "apply", activation)
    assert (code, told["name"]) == (1, "OFFLINE_DATA_MALFORMED")
    assert "apply it where its request was made" in told["message"]
    code, told = client(example, "island", "apply", activation)
    assert (code, told["state_name"]) == (0, "licensed")


def test_an_answer_for_another_machine_stands_in_the_history(example: Example, service: Service) -> None:
    key, request, answer = make_key(example, 2), example.folder / "other.request", example.folder / "other.activation"
    given = ("--publisher", example.publisher_json, "--mak", key, "--out", request)
    assert client(example, "other", "request", *given)[0] == 0
    example.publisher("activate-machine", request, "--out", answer)
    with answering(answer.read_bytes()) as url:
        code, told = client(example, "laptop", "activate", *given[:4], "--url", url)
    assert (code, told["name"]) == (1, "OFFLINE_DATA_MALFORMED")
    (attempt,) = client(example, "laptop", "history")[1]["products"][0]["attempts"]
    assert attempt["name"] == "OFFLINE_DATA_MALFORMED"


def test_a_service_that_is_gone(example: Example) -> None:
    with example.serve() as service:
        service.stop()
    code, told = activate(example, "laptop", make_key(example), service)
    assert (code, told["name"]) == (1, "PUBLISHER_UNREACHABLE")


def test_keys_in_the_wrong_place(example: Example) -> None:
    setup_key = str(example.publisher("client-key", "Example Runner")["setup_key"])
    given = ("--publisher", example.publisher_json)
    code, told = client(example, "laptop", "install-key", make_key(example), *given)
    assert (code, told["name"]) == (1, "KEY_INVALID")
    assert "kms-fast client activate --mak" in told["message"]
    code, told = client(example, "laptop", "activate", "--mak", setup_key, *given)
    assert (code, told["name"]) == (1, "KEY_INVALID")
    assert "kms-fast client install-key" in told["message"]
    for wrong in (("--mak", "KEY", "--host", "kms.example.com"), ("--url", "https://activation.example")):
        command = [sys.executable, "-m", "kms_fast", "client", "activate", *wrong]
        assert subprocess.run(command, capture_output=True, timeout=60).returncode == 2


def test_no_host_is_asked_any_more(example: Example, service: Service) -> None:
    """Neither by a setup key that comes later; and after a rearm the way back is told."""
    assert activate(example, "laptop", make_key(example), service)[0] == 0
    setup_key = str(example.publisher("client-key", "Example Runner")["setup_key"])
    assert client(example, "laptop", "install-key", setup_key)[0] == 0
    code, told = client(example, "laptop", "activate")
    assert (code, told["state_name"], told["next_attempt"], told["last_failure"]) == (0, "licensed", None, None)
    assert "without an end: no host is asked" in show(example, "laptop", "activate")
    assert client(example, "laptop", "uninstall-key")[0] == 0
    assert activate(example, "laptop", make_key(example), service)[0] == 0
    assert "Next: kms-fast client activate --mak KEY --home" in show(example, "laptop", "rearm")


def test_the_doctor_finds_a_machine_without_setup_key_well(example: Example, service: Service) -> None:
    """Nor does it look for hosts where a setup key stands beside the activation."""
    activate(example, "laptop", make_key(example), service)
    setup_key = str(example.publisher("client-key", "Example Runner")["setup_key"])
    for with_key in (False, True):
        if with_key:
            assert client(example, "laptop", "install-key", setup_key)[0] == 0
            assert client(example, "laptop", "set-host", "127.0.0.1:1")[0] == 0
        code, told, _ = run_cli("doctor", "--activate", home=example.folder / "laptop")
        assert (code, told["ok"]) == (0, True), told
        assert [check["check"] for check in told["checks"]] == ["keys", "licence", "clock", "activation"]
        assert "licensed without an end" in told["checks"][1]["what"]
