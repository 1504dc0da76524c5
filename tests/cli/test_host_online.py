"""``kms-fast host install-key | activate | renew``: each way in which it fails has a message of its own."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kms_fast.host.enrolment import apply_answer
from kms_fast.publisher.issuing import certify
from kms_fast.publisher.publisher import Publisher
from tests.activation_services import PASSPHRASE, Example, Service, make_example, make_tls
from tests.hosts import run_cli


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KMS_FAST_PASSPHRASE", PASSPHRASE)
        patch.delenv("KMS_FAST_HOME", raising=False)
        for name in ("http_proxy", "https_proxy", "no_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        yield patch


@pytest.fixture(scope="module")
def example(patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Example:
    return make_example(tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def service(example: Example) -> Iterator[Service]:
    with example.serve() as service:
        yield service


@pytest.fixture(scope="module")
def host(example: Example) -> str:
    """The name of a home with a host key installed."""
    args = ("--publisher", example.publisher_json, example.make_key())
    code, told, _ = run_cli("host", "install-key", *args, home=example.folder / "host")
    assert (code, len(told["keys"][0])) == (0, 5)
    return "host"


@contextmanager
def answering(answer: bytes, tls: Path | None = None) -> Iterator[int]:
    """A server that gives every connection these bytes; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                try:
                    if tls is not None:
                        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                        context.load_cert_chain(tls.with_suffix(".pem"), tls.with_suffix(".key"))
                        connection = context.wrap_socket(connection, server_side=True)
                    connection.recv(1 << 16)
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 16):
                        pass
                except OSError:
                    pass
                finally:
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_key_is_installed_first_and_used_then(example: Example, service: Service, host: str) -> None:
    code, told = example.activate(host, service.url)
    assert (code, told["families"]) == (0, {"ci": 1})
    assert example.activate(host, service.url.replace("127.0.0.1", "localhost"))[0] == 0


def test_a_key_that_does_not_belong_here_says_so(example: Example, patch: pytest.MonkeyPatch) -> None:
    setup_key = example.publisher("client-key", "Example Runner")["setup_key"]
    other = make_example(example.folder / "other")
    home = example.folder / "none"
    for key, said in ((setup_key, "This is a client setup key"), (other.make_key(), "another publisher"), ("9", "25")):
        args = ("--publisher", example.publisher_json, key)
        code, told, _ = run_cli("host", "install-key", *args, home=home)
        assert (code, told["name"]) == (1, "KEY_INVALID")
        assert said in told["message"]
    assert not home.exists()
    code, told, _ = run_cli("host", "install-key", example.make_key(), home=home)
    assert (code, "--publisher" in told["message"]) == (1, True)
    code, told, _ = run_cli("host", "activate", "--publisher", example.publisher_json, home=home)
    assert (code, "no host key yet" in told["message"]) == (1, True)


def test_without_an_address_the_offline_exchange_is_named(example: Example, host: str) -> None:
    code, told, _ = run_cli("host", "renew", home=example.folder / host)
    assert (code, told["name"]) == (1, "PUBLISHER_UNREACHABLE")
    assert "names no activation service" in told["message"]
    assert "kms-fast host request" in told["cure"]


@pytest.mark.parametrize("url", ["http://activation.example", "ftp://127.0.0.1", "activation.example", "https://[bad"])
def test_an_address_that_is_none(example: Example, host: str, url: str) -> None:
    code, told = example.activate(host, url)
    assert (code, told["name"]) == (1, "CONFIGURATION_INVALID")


def test_a_name_that_does_not_resolve(example: Example, host: str) -> None:
    code, told = example.activate(host, "https://no-such-name.invalid")
    assert (code, told["name"]) == (1, "PUBLISHER_UNREACHABLE")
    assert told["message"].startswith("The name no-such-name.invalid does not resolve")


def test_a_port_where_nobody_listens(example: Example, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    code, told = example.activate(host, f"https://127.0.0.1:{port}")
    assert (code, told["name"]) == (1, "PUBLISHER_UNREACHABLE")
    assert told["message"] == f"127.0.0.1:{port} cannot be reached: Connection refused."


def test_a_tls_certificate_that_nobody_trusts(example: Example, service: Service, host: str, tmp_path: Path) -> None:
    make_tls(tmp_path, "stranger")
    for trusted in ((), ("--ca", tmp_path / "stranger-ca.pem")):
        args = ("host", "activate", "--url", service.url, *trusted)
        code, told, _ = run_cli(*args, home=example.folder / host)
        assert (code, told["name"]) == (1, "TLS_NOT_TRUSTED")
        assert "127.0.0.1" in told["message"]
    code, told, _ = run_cli("host", "renew", "--url", service.url, "--ca", "missing", home=example.folder / host)
    assert (code, told["name"], told["details"]["file"]) == (1, "STORAGE_FAILED", "missing")
    code, told, _ = run_cli("host", "renew", "--url", service.url, "--ca", __file__, home=example.folder / host)
    assert (code, told["name"]) == (1, "CONFIGURATION_INVALID")


def test_a_server_that_speaks_no_tls(example: Example, host: str) -> None:
    with answering(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        code, told = example.activate(host, f"https://127.0.0.1:{port}")
    assert (code, told["name"]) == (1, "TLS_NOT_TRUSTED")
    assert "does not speak TLS" in told["message"]


@pytest.mark.parametrize(
    ("answer", "name", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n<html>", "NO_ACTIVATION_SERVICE", "answered 404 Not Found"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://x.example/\r\n\r\n", "NO_ACTIVATION_SERVICE", "leads to https://x"),
        (b"HTTP/1.1 500 No\r\n\r\n[1]", "NO_ACTIVATION_SERVICE", "answered 500 No"),
        (b"HTTP/1.1 403 No\r\n\r\n" + b"[" * 60_000, "NO_ACTIVATION_SERVICE", "answered 403 No"),
        (b'HTTP/1.1 403 No\r\n\r\n{"code": "0x0", "message": "Well."}', "NO_ACTIVATION_SERVICE", "answered 403 No"),
        (b'HTTP/1.1 403 No\r\n\r\n{"code": "-5", "message": "Well."}', "NO_ACTIVATION_SERVICE", "answered 403 No"),
        (b'HTTP/1.1 403 No\r\n\r\n{"code": "0x1ffffffff", "message": "?"}', "NO_ACTIVATION_SERVICE", "answered 403 No"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "OFFLINE_DATA_MALFORMED", "not readable as JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", "PUBLISHER_UNREACHABLE", ""),
        (b"garbage\r\n\r\n", "PUBLISHER_UNREACHABLE", ""),
        (b"", "PUBLISHER_UNREACHABLE", ""),
    ],
)
def test_an_answer_that_is_none(example: Example, host: str, answer: bytes, name: str, said: str) -> None:
    with answering(answer, example.folder / "tls") as port:
        code, told = example.activate(host, f"https://127.0.0.1:{port}")
    assert (code, told["name"]) == (1, name), told
    assert said in told["message"]


def test_a_refusal_of_a_newer_publisher_is_shown_as_it_came(example: Example, host: str) -> None:
    refusal = json.dumps({"code": "0xE04B0FFF", "message": "Something new.", "details": {}}).encode()
    with answering(b"HTTP/1.1 403 Forbidden\r\n\r\n" + refusal, example.folder / "tls") as port:
        code, told = example.activate(host, f"https://127.0.0.1:{port}")
    assert (code, told["code"], told["message"]) == (1, "0xE04B0FFF", "The publisher says: Something new.")


def test_the_proxy_of_the_environment_is_asked(
    example: Example, service: Service, host: str, patch: pytest.MonkeyPatch
) -> None:
    with answering(b"HTTP/1.1 403 Not for you\r\n\r\n") as port, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        code, told = example.activate(host, service.url)
        assert (code, told["name"]) == (1, "PUBLISHER_UNREACHABLE")
        assert told["message"].startswith("The proxy answered 403 Not for you")
        patch.setenv("NO_PROXY", "127.0.0.1")
        assert example.activate(host, service.url)[0] == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        code, told = example.activate(host, service.url)
        assert told["message"].startswith("The proxy 127.0.0.1:1 cannot be reached")


def test_settings_name_the_service_too(example: Example, service: Service, host: str, tmp_path: Path) -> None:
    config = tmp_path / "host.toml"
    config.write_text(f'activation_url = "{service.url}"\nactivation_ca = "{example.ca}"\n')
    code, told, stderr = run_cli("host", "renew", "--config", config, home=example.folder / host)
    assert (code, told["ok"], stderr) == (0, True, "")


def test_what_renewals_lack_is_told(example: Example, service: Service, host: str) -> None:
    args = ("--url", service.url, "--ca", example.ca)
    code, _, stderr = run_cli("host", "renew", *args, home=example.folder / host)
    assert code == 0
    assert f"host configure --activation-url {service.url} --activation-ca {example.ca}" in stderr


def test_nothing_is_lost_when_it_fails(example: Example, service: Service, host: str) -> None:
    assert example.activate(host, service.url)[0] == 0
    before = run_cli("host", "status", home=example.folder / host)[1]
    assert example.activate(host, "https://127.0.0.1:1")[0] == 1
    assert run_cli("host", "status", home=example.folder / host)[1] == before


def test_a_key_that_is_refused_does_not_take_the_place_of_one_that_works(example: Example, service: Service) -> None:
    first, refused = example.make_key(), example.make_key()
    example.publisher("disable-key", refused[-5:])
    assert example.activate("keyed", service.url, first)[0] == 0
    code, told = example.activate("keyed", service.url, refused)
    assert (code, told["name"]) == (1, "KEY_DISABLED")
    assert example.activate("keyed", service.url)[0] == 0
    shown = run_cli("host", "status", home=example.folder / "keyed")[1]["host_keys"]
    assert shown == [f"…{first[-5:]}"]


def test_a_host_whose_certificate_has_ended_renews(example: Example, service: Service, tmp_path: Path) -> None:
    data = example.request("ended", example.make_key())
    publisher = Publisher(example.home / "publisher")
    past_ms = time.time_ns() // 1_000_000
    issuer_key = publisher.read_issuer_key(PASSPHRASE.encode())
    answer = certify(publisher, data, issuer_key, now_ms=past_ms, days=0).answer
    publisher.close()
    apply_answer(example.folder / "ended" / "host", answer, now_ms=past_ms)
    code, told, _ = run_cli("serve", "--listen", "127.0.0.1:0", home=example.folder / "ended")
    assert (code, told["name"]) == (1, "HOST_CERTIFICATE_DATES")
    assert "kms-fast host renew" in told["cure"]
    args = ("--url", service.url, "--ca", example.ca)
    assert run_cli("host", "renew", *args, home=example.folder / "ended")[0] == 0
    assert run_cli("host", "status", home=example.folder / "ended")[1]["days_left"] == 364
