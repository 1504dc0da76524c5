"""``kms-fast publisher serve`` as a process over TLS, asked by hosts, by programs, and by those who mean it no good."""

import asyncio
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kms_fast.publisher.records import Records
from kms_fast.results import BY_NAME
from tests.activation_services import PASSPHRASE, Example, make_example, make_tls
from tests.host.running import wait_for
from tests.hosts import run_cli


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    monkeypatch.setenv("KMS_FAST_PASSPHRASE", PASSPHRASE)
    monkeypatch.delenv("KMS_FAST_HOME", raising=False)
    return make_example(tmp_path)


def count_certificates(example: Example) -> int:
    records = Records(example.home / "publisher" / "publisher.db")
    try:
        return len(records.list_certificates())
    finally:
        records.close()


def connect(example: Example, port: int) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(example.ca))
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), 30), server_hostname="localhost")


def head(length: int) -> bytes:
    return f"POST /v1/host-requests HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()


def test_from_a_key_to_a_renewed_host(example: Example) -> None:
    """The service needs no root key, and what it did is in its log and in the publisher's."""
    key = example.make_key("--note", "Customer 4711", "--customer", "4711")
    (example.home / "publisher" / "root.key").rename(example.folder / "root.key")
    with example.serve() as service:
        assert service.url.startswith("https://127.0.0.1:")
        code, told = example.activate("host", service.url, key)
        assert (code, told["serial"], told["families"], told["reloaded"]) == (0, 1, {"ci": 1}, [])
        code, status, _ = run_cli("host", "status", home=example.folder / "host")
        assert (code, status["serial"], status["days_left"], status["renewal_failed"]) == (0, 1, 364, None)
        args = ("--url", service.url, "--ca", example.ca)
        code, told, _ = run_cli("host", "renew", *args, home=example.folder / "host")
        assert (code, told["serial"]) == (0, 2)
        status, body, headers = example.get(service.url, "/v1/publisher.json")
        assert (status, body) == (200, example.publisher_json.read_bytes())
        assert example.get(service.url, "/v1/publisher.json", {"If-None-Match": headers["ETag"]})[0] == 304
        assert example.get(service.url, "/healthz")[0] == 200
        assert service.stop() == 0
        said = service.log.read_text()
    assert "activated with host key" in said
    assert "renewed with host key" in said
    assert key not in said
    (shown,) = example.publisher("keys")["keys"]
    assert (shown["hosts"], shown["activations"], shown["note"]) == (1, 1, "Customer 4711")
    (customer,) = example.publisher("customers")["customers"]
    assert (customer["customer_id"], customer["hosts"]) == (4711, 1)
    assert [(row["serial"], row["state"]) for row in customer["certificates"]] == [(1, "valid"), (2, "valid")]
    rows = example.publisher("log")["requests"]
    assert [(row["serial"], row["name"], row["peer"], row["keys"]) for row in rows] == [
        (2, "GRANTED", "127.0.0.1", [key[-5:]]),
        (1, "GRANTED", "127.0.0.1", [key[-5:]]),
    ]
    status = example.publisher("status")
    assert (status["hosts"], status["certificates"], status["root_key_here"], status["export_due"]) == (
        1,
        2,
        False,
        False,
    )


def test_refusals_reach_the_hosts_administrator(example: Example) -> None:
    used_up, disabled = example.make_key("--hosts", "1", "--activations", "1"), example.make_key()
    example.publisher("disable-key", disabled[-5:])
    other = make_example(example.folder / "other")
    unknown = other.make_key()
    with example.serve() as service:
        assert example.activate("first", service.url, used_up)[0] == 0
        (example.folder / "first" / "host" / "host.key").unlink()
        code, told = example.activate("first", service.url)
        assert (code, told["code"], told["name"]) == (1, "0xC004C008", "HOST_KEY_USED_UP")
        assert "this host 1 of 1 times" in told["message"]
        result = BY_NAME["HOST_KEY_USED_UP"]
        assert (told["meaning"], told["cure"]) == (result.meaning, result.cure)
        options = ("--url", service.url, "--ca", example.ca, "--home", example.folder / "first")
        command = [sys.executable, "-m", "kms_fast", "host", "activate", *options]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60).stderr
        for text in ("this host 1 of 1 times", result.cure, f"({result.hex} {result.name})"):
            assert text in shown
        code, told = example.activate("second", service.url, disabled)
        assert (code, told["name"]) == (1, "KEY_DISABLED")
        assert disabled[-5:] in told["message"]
        status, body, _ = example.post(service.url, other.request("third", unknown))
        assert (status, json.loads(body)["name"]) == (400, "OFFLINE_DATA_MALFORMED")
        example.publisher("disable-key", disabled[-5:], "--undo")
        assert example.activate("second", service.url)[0] == 0
    names = [row["name"] for row in example.publisher("log", "--refused")["requests"]]
    assert names == ["OFFLINE_DATA_MALFORMED", "KEY_DISABLED", "HOST_KEY_USED_UP", "HOST_KEY_USED_UP"]
    key_id = next(key["key_id"] for key in example.publisher("keys")["keys"] if key["last_five"] == disabled[-5:])
    for named in (disabled[-5:], disabled[-5:].lower(), key_id):
        assert len(example.publisher("log", "--key", named, "--granted")["requests"]) == 1
    code, told, _ = run_cli("publisher", "log", "--key", "00000", home=example.home)
    assert (code, "no key that ends in 00000" in told["message"]) == (1, True)
    assert example.publisher("log", "--peer", "10.0.0.1")["requests"] == []
    kept = [len(example.publisher("log", "--since", since)["requests"]) for since in ("1h", "2001-02-03", "2101-02-03")]
    assert kept == [len(example.publisher("log")["requests"])] * 2 + [0]


def test_a_key_that_this_publisher_forgot_is_unknown(example: Example) -> None:
    request = example.request("host", example.make_key())
    records = Records(example.home / "publisher" / "publisher.db")
    records._execute("DELETE FROM host_keys")
    records.close()
    with example.serve() as service:
        status, body, _ = example.post(service.url, request)
    assert (status, json.loads(body)["name"]) == (403, "KEY_INVALID")


def test_what_is_no_request_is_refused_and_changes_nothing(example: Example) -> None:
    with example.serve() as service:
        for data, status in ((b"garbage", 400), (b"\0" * 10_000, 400), (b"[" * 60_000, 400), (b"x" * 70_000, 413)):
            got, body, headers = example.post(service.url, data)
            told = json.loads(body)
            assert (got, told["ok"], told["name"]) == (status, False, "OFFLINE_DATA_MALFORMED")
            assert headers["Server"] == "kms_fast"
        for path in ("/", "/v1/host-requests", "/v1/../publisher.db"):
            got, body, _ = example.get(service.url, path)
            assert (got in (404, 405), json.loads(body)["name"]) == (True, "NO_ACTIVATION_SERVICE")
        assert service.stop() == 0
        assert "Traceback" not in service.log.read_text()
    assert count_certificates(example) == 0


def test_an_address_and_a_key_may_not_ask_too_often(example: Example) -> None:
    request = example.request("host", example.make_key())
    with example.serve("--key-limit", "1", "--peer-limit", "1") as service:
        replies = [example.post(service.url, request) for _ in range(31)]
    assert [status for status, _, _ in replies] == [200] * 20 + [429] * 11
    named = [json.loads(body)["message"].split(":")[0] for status, body, _ in replies if status == 429]
    assert named[0].startswith("Too many requests of the host key that ends in ")
    assert named[-1] == "Too many requests of the address 127.0.0.1"
    assert 3_500 < int(replies[-1][2]["Retry-After"]) <= 3_600
    assert count_certificates(example) == 20


def test_behind_a_proxy_the_address_is_the_one_that_it_saw(example: Example) -> None:
    with example.serve(tls=False) as service:
        assert service.url.startswith("http://127.0.0.1:")
        with socket.create_connection(("127.0.0.1", service.port), 30) as proxy:
            forwarded = b"POST /v1/host-requests HTTP/1.1\r\nX-Forwarded-For: 10.9.9.9, 192.0.2.7\r\n"
            proxy.sendall(forwarded + b"Host: x\r\nContent-Length: 2\r\n\r\n{}")
            assert proxy.makefile("rb").readline() == b"HTTP/1.1 400 Bad Request\r\n"
    assert [row["peer"] for row in example.publisher("log")["requests"]] == ["192.0.2.7"]


def test_without_tls_it_is_for_this_machine_only(example: Example) -> None:
    for args in (("--listen", "0.0.0.0:0"), ("--listen", "192.0.2.1:8443"), ("--tls-cert", "x")):
        code, told, _ = run_cli("publisher", "serve", *args, home=example.home)
        assert (code, told["name"]) == (2, "COMMAND_INVALID")
    args = ("--tls-cert", str(example.ca), "--tls-key", str(example.folder / "tls.key"))
    code, told, _ = run_cli("publisher", "serve", *args, home=example.home)
    assert (code, told["name"]) == (1, "CONFIGURATION_INVALID")
    code, told, _ = run_cli("publisher", "serve", "--tls-cert", "no", "--tls-key", "no", home=example.home)
    assert (code, told["name"]) == (1, "STORAGE_FAILED")
    with example.serve() as service:
        code, told, _ = run_cli("publisher", "serve", "--listen", f"127.0.0.1:{service.port}", home=example.home)
        assert (code, told["name"]) == (1, "ADDRESS_IN_USE")


def test_term_lets_who_asked_have_an_answer(example: Example) -> None:
    request = example.request("host", example.make_key())
    with example.serve() as service, connect(example, service.port) as asked:
        asked.sendall(head(len(request)) + request[:100])
        # By then the service has read the head of the request before.
        assert example.get(service.url, "/healthz")[0] == 200
        service.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not listens(service.port))
        asked.sendall(request[100:])
        answer = asked.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"kms_fast host answer 1" in answer
        assert service.process.wait(30) == 0


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def test_killed_between_the_record_and_the_answer(example: Example) -> None:
    """The host asks again, and gets a certificate without a second activation taken."""
    key = example.make_key("--hosts", "1", "--activations", "1")
    request = example.request("host", key)
    with example.serve() as service, connect(example, service.port) as asked:
        asked.sendall(head(len(request)) + request)
        wait_for(lambda: count_certificates(example) == 1)
        service.process.kill()
        service.process.wait(30)
    with example.serve() as service:
        code, told = example.activate("host", service.url)
    assert (code, told["serial"]) == (0, 2)
    (shown,) = example.publisher("keys")["keys"]
    assert (shown["hosts"], shown["activations"]) == (1, 1)


def test_two_services_on_one_folder_count_as_one(example: Example) -> None:
    key = example.make_key("--hosts", "4")
    installations = [bytes([number]) * 16 for number in range(8)]
    requests = [make_request_of(example, key, number, one) for number, one in enumerate(installations)]
    with example.serve() as one, example.serve() as other:
        results: list[tuple[int, bytes]] = []

        def ask(url: str, data: bytes) -> None:
            results.append(example.post(url, data)[:2])

        threads = [
            threading.Thread(target=ask, args=(service.url, data))
            for data, service in zip(requests, [one, other] * 4, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(status for status, _ in results) == [200] * 4 + [403] * 4
    assert {json.loads(body)["name"] for status, body in results if status == 403} == {"HOST_KEY_USED_UP"}
    assert count_certificates(example) == 4


def make_request_of(example: Example, key: str, number: int, installation: bytes) -> bytes:
    """The request of a host on a machine of its own."""
    from kms_fast.host.enrolment import make_request

    data = example.publisher_json.read_bytes()
    folder = example.folder / f"host{number}"
    return make_request(folder, [key], publisher_data=data, installation_id=installation, now_ms=1)


def test_a_catalog_that_changed_waits_for_its_export(example: Example) -> None:
    """Hosts are told to ask the publisher; its log says what to do; the service takes the export up by itself."""
    key = example.make_key()
    with example.serve() as service:
        example.publisher("add-product", "Example Runner 2", "--family", "ci")
        code, told = example.activate("host", service.url, key)
        assert (code, told["name"]) == (1, "EXPORT_DUE")
        assert "ask the publisher" in told["cure"]
        assert "run kms-fast publisher export" in service.log.read_text()
        assert example.publisher("status")["export_due"] is True
        example.publisher("export")
        code, told = example.activate("host", service.url)
        assert (code, told["publisher_file"], told["products"]) == (0, 2, 2)


def test_what_fails_at_the_publisher_stays_there(example: Example) -> None:
    request = example.request("host", example.make_key())
    with example.serve() as service:
        (example.home / "publisher" / "catalog.toml").write_text("= secret")
        status, body, _ = example.post(service.url, request)
        told = json.loads(body)
        assert (status, told["name"]) == (503, "PUBLISHER_FAILED")
        assert "catalog" not in body.decode()
        assert "catalog.toml is not valid TOML" in service.log.read_text()


def test_hup_takes_up_a_new_tls_certificate(example: Example) -> None:
    with example.serve() as service:
        make_tls(example.folder)
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            example.get(service.url, "/healthz")
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "reloaded: publisher file 1" in service.log.read_text())
        assert example.get(service.url, "/healthz")[0] == 200
        # As a renewal of certificates that was interrupted leaves them: one of another key, and one that is damaged.
        make_tls(example.folder, "other")
        for count, text in enumerate(((example.folder / "other.pem").read_text(), "damaged"), 1):
            (example.folder / "tls.pem").write_text(text)
            service.process.send_signal(signal.SIGHUP)
            wait_for(lambda count=count: service.log.read_text().count("not reloaded: ") == count)
            assert example.get(service.url, "/healthz")[0] == 200


def test_a_service_that_is_asked_by_many_at_once_answers_all(example: Example) -> None:
    async def ask(port: int) -> bytes:
        context = ssl.create_default_context(cafile=str(example.ca))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        line = await reader.readline()
        writer.close()
        return line

    async def ask_all(port: int) -> list[bytes]:
        return await asyncio.gather(*(ask(port) for _ in range(50)))

    with example.serve() as service:
        assert asyncio.run(ask_all(service.port)) == [b"HTTP/1.1 200 OK\r\n"] * 50
