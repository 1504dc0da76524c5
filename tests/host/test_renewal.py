"""A host that renews by itself, says when it cannot, takes revocations, and signs nothing once it is revoked itself."""

import asyncio
import errno
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kms_fast.errors import KmsFastError
from kms_fast.host.enrolment import apply_answer, read_certificate, read_installation
from kms_fast.host.renewal import PublisherService, Renewal
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.revocation import issue_revocation_list
from kms_fast.model.settings import HostSettings
from kms_fast.publisher.exporting import export_publisher_file
from kms_fast.publisher.issuing import certify
from kms_fast.publisher.publisher import Publisher
from tests.activation_services import PASSPHRASE, make_example
from tests.host.running import activate, fetch_health, find_web, log_of, renew, wait_for
from tests.hosts import Realm, make_realm, run_cli, serve
from tests.publishing import request_certificate
from tests.reference.certificate import Revocations, build_query
from tests.reference.rpc import GET_REVOCATIONS, Connection
from tests.system.asker import Asker, now_ms

HOST_NOT_ACTIVATED = 0xC004F041
DAY_S = 86_400


def publisher_file(realm: Realm, number: int, *revoked: int) -> bytes:
    """The realm's publisher file with this number and these serials revoked."""
    revocations = issue_revocation_list(
        realm.issuer_key, realm.issuer, number=number, issued_ms=now_ms(), serials=revoked
    )
    publisher = replace(PublisherFile.parse(realm.publisher_json.read_bytes()), number=number, revocations=revocations)
    return publisher.to_signed_json(realm.root_key)


@contextmanager
def giving(files: list[bytes], gate: threading.Event | None = None) -> Iterator[str]:
    """The address of a service that gives out these publisher files, the last of them from then on.

    With a ``gate``, once that is open.
    """

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if gate is not None:
                gate.wait(30)
            data = files.pop(0) if len(files) > 1 else files[0]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_running_host_renews_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over real TLS; connections stay, and the next answers are signed under the new certificate."""
    monkeypatch.setenv("KMS_FAST_PASSPHRASE", PASSPHRASE)
    example = make_example(tmp_path)
    with example.serve("--days", "1") as service:
        assert example.activate("home", service.url, example.make_key())[1]["serial"] == 1
        config = tmp_path / "host.toml"
        config.write_text(f'activation_url = "{service.url}"\nactivation_ca = "{example.ca}"\n')
        realm = replace(make_realm(tmp_path / "unused"), home=tmp_path / "home")
        with serve(realm, "--config", str(config), "--web", "127.0.0.1:0") as host:
            wait_for(lambda: "reloaded: certificate 2" in log_of(host))
            assert "renewed: certificate 2 until " in log_of(host)
            told = fetch_health(find_web(host), "readyz")[1]
            assert (told["certificate_days_left"], told["renewal_failed"]) == (0, None)
            assert run_cli("host", "status", home=realm.home)[1]["serial"] == 2
            # One that runs is told of what is done by hand.
            code, told, _ = run_cli("host", "renew", "--config", config, home=realm.home)
            assert (code, told["serial"], told["reloaded"]) == (0, 3, [host.process.pid])
            assert "reloaded: certificate 3" in log_of(host)
            assert host.stop() == 0
    (key,) = example.publisher("keys")["keys"]
    assert (key["hosts"], key["activations"]) == (1, 1)


@pytest.mark.parametrize(("days", "level"), [(30, "WARNING"), (5, "ERROR")])
def test_one_that_cannot_renew_says_so(tmp_path: Path, days: int, level: str) -> None:
    realm = make_realm(tmp_path, days=days, activation_url="http://127.0.0.1:1")
    with serve(realm, "--web", "127.0.0.1:0") as host:
        wait_for(lambda: fetch_health(find_web(host), "readyz")[1]["renewal_failed"] is not None)
        status, told = fetch_health(find_web(host), "readyz")
        assert (status, told["certificate_days_left"]) == (200, days - 1)
        assert told["renewal_failed"]["name"] == "PUBLISHER_UNREACHABLE"
        wait_for(
            lambda: f"{level} the certificate ends in {days - 1} days and is not renewed: 127.0.0.1:1" in log_of(host)
        )
        code, shown, warned = run_cli("host", "status", home=realm.home)
        assert (code, shown["renewal_failed"]["name"]) == (0, "PUBLISHER_UNREACHABLE")
        assert "It was not renewed at " in warned
        assert host.stop() == 0


@pytest.mark.parametrize("option", ["--auto-renew", "--no-auto-renew"])
def test_one_that_has_no_service_or_may_not_ask_it(tmp_path: Path, option: str) -> None:
    url = "" if option == "--auto-renew" else "http://127.0.0.1:1"
    realm = make_realm(tmp_path, days=30, activation_url=url)
    with serve(realm, option) as host:
        wait_for(lambda: "the certificate ends in 29 days and is not renewed: renew it: " in log_of(host))
        assert "tried again" not in log_of(host)


def test_revocations_reach_clients(tmp_path: Path) -> None:
    realm = make_realm(tmp_path)
    with (
        giving([publisher_file(realm, 2, 77)]) as url,
        serve(realm, "--activation-url", url) as host,
        Connection(host.address) as connection,
    ):
        connection.bind()
        assert connection.call(build_query(0), GET_REVOCATIONS) == (None, 0)
        wait_for(lambda: "reloaded: certificate 1, catalog 1, publisher file 2" in log_of(host))
        data, _ = connection.call(build_query(0), GET_REVOCATIONS)
        assert Revocations.parse(data).serials == (77,)
        activate(connection, Asker.of(realm, "desktop"))


def test_a_host_that_is_revoked_stops_signing(tmp_path: Path) -> None:
    """It hands the list on that names it, says why, and signs again with another certificate."""
    realm = make_realm(tmp_path)
    asker = Asker.of(realm, "desktop")
    with (
        giving([publisher_file(realm, 2, 1)]) as url,
        serve(realm, "--activation-url", url, "--workers", "2", "--web", "127.0.0.1:0") as host,
        Connection(host.address) as connection,
    ):
        connection.bind()
        activate(connection, asker)
        wait_for(lambda: "not reloaded: The publisher has revoked the host certificate 1" in log_of(host))
        for _ in range(10):
            with Connection(host.address) as other:
                other.bind()
                assert other.call(asker.ask().request) == (None, HOST_NOT_ACTIVATED)
                data, _ = other.call(build_query(0), GET_REVOCATIONS)
                assert Revocations.parse(data).serials == (1,)
        assert connection.call(asker.ask().request) == (None, HOST_NOT_ACTIVATED)
        wait_for(lambda: fetch_health(find_web(host), "readyz")[0] == 503)
        assert "has revoked the host certificate 1" in str(fetch_health(find_web(host), "healthz")[1]["busy"])
        for command in ("reload", "status"):
            code, told, _ = run_cli("host", command, home=realm.home)
            assert (code, told["name"]) == (1, "CERTIFICATE_REVOKED")
        renew(realm, 2)
        assert run_cli("host", "reload", home=realm.home)[0] == 0
        assert activate(connection, asker).header.serial == 2
        wait_for(lambda: fetch_health(find_web(host), "readyz")[0] == 200)
        assert host.stop() == 0
    assert run_cli("ledger", "verify", home=realm.home)[1]["records"] == 2


def test_a_reload_that_fails_after_a_renewal_is_told(tmp_path: Path) -> None:
    realm, config, gate = make_realm(tmp_path), tmp_path / "host.toml", threading.Event()
    config.write_text("")
    with (
        giving([publisher_file(realm, 2, 77)], gate) as url,
        serve(realm, "--config", str(config), "--activation-url", url, "--web", "127.0.0.1:0") as host,
    ):
        config.write_text("lissten = 3\n")
        gate.set()
        wait_for(lambda: fetch_health(find_web(host), "readyz")[1]["renewal_failed"] is not None)
        assert "installed publisher file 2" in log_of(host)
        failed = fetch_health(find_web(host), "readyz")[1]["renewal_failed"]
        assert "there is no option lissten" in str(failed)
        config.write_text("")
        assert run_cli("host", "reload", home=realm.home)[0] == 0
        wait_for(lambda: fetch_health(find_web(host), "readyz")[1]["renewal_failed"] is None)
        assert host.stop() == 0


class Service:
    """A publisher's service in this process that gives what a test says, or raises it."""

    def __init__(self, *given: bytes | Exception) -> None:
        self.given = list(given)

    async def fetch_publisher_file(self) -> bytes:
        one = self.given.pop(0) if len(self.given) > 1 else self.given[0]
        if isinstance(one, Exception):
            raise one
        return one

    async def certify(self, request: bytes) -> bytes:
        json.loads(request)
        raise KmsFastError("No.", name="KEY_DISABLED")


def look(
    folder: Path, service: PublisherService, times: int, *refusals: KmsFastError
) -> tuple[list[float], list[str | None]]:
    """What a renewal does in so many looks: how long it waits before each next one (s), and what failed.

    ``refusals``: why the host does not reload, the first times.
    """
    failed: list[str | None] = []
    left = list(refusals)

    async def reload() -> None:
        if left:
            raise left.pop(0)
        renewal.note_reload(read_installation(folder))

    renewal = Renewal(
        folder=folder,
        installation=read_installation(folder),
        open_service=lambda settings, publisher: service,
        reload=reload,
        on_attempt=lambda told: failed.append(told and told["name"]),
    )

    async def look_often() -> list[float]:
        return [await renewal.look(HostSettings()) for _ in range(times)]

    return asyncio.run(look_often()), failed


def test_it_looks_once_a_day(realm: Realm) -> None:
    waits_s, failed = look(realm.home / "host", Service(realm.publisher_json.read_bytes()), 3)
    assert (waits_s, failed) == ([DAY_S] * 3, [None] * 3)


@pytest.mark.parametrize(("days", "longest_s"), [(365, DAY_S), (30, DAY_S), (5, 3600), (1, 3600)])
def test_it_tries_again_later_each_time(tmp_path: Path, days: int, longest_s: float) -> None:
    unreachable = KmsFastError("Not there.", name="PUBLISHER_UNREACHABLE")
    waits_s, failed = look(make_realm(tmp_path, days=days).home / "host", Service(unreachable), 20)
    assert failed == ["PUBLISHER_UNREACHABLE"] * 20
    assert waits_s[:3] == [300, 600, 1200]
    assert waits_s[-1] == max(waits_s) == longest_s


class Issuing:
    """The service of a publisher in this process, whose certificates last a day."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def fetch_publisher_file(self) -> bytes:
        return (self._publisher.folder / "publisher.json").read_bytes()

    async def certify(self, request: bytes) -> bytes:
        return issue(self._publisher, request)


def issue(publisher: Publisher, request: bytes) -> bytes:
    issuer_key = publisher.read_issuer_key(PASSPHRASE.encode())
    return certify(publisher, request, issuer_key, now_ms=now_ms(), days=1).answer


@pytest.fixture
def issuing(tmp_path: Path) -> Iterator[Publisher]:
    """A publisher whose one host, in the folder ``host`` beside it, has a certificate for a day."""
    publisher = Publisher.create(tmp_path / "publisher", "Example", PASSPHRASE.encode(), now_ms=now_ms())
    publisher.add_product("Desktop 1", "desktop")
    export_publisher_file(publisher, PASSPHRASE.encode(), now_ms=now_ms())
    request = request_certificate(publisher, tmp_path / "host", publisher.make_host_key(now_ms=now_ms()).key.text)
    apply_answer(tmp_path / "host", issue(publisher, request), now_ms=now_ms())
    yield publisher
    publisher.close()


def test_a_short_certificate_is_looked_after_in_time(issuing: Publisher, tmp_path: Path) -> None:
    waits_s, failed = look(tmp_path / "host", Issuing(issuing), 1)
    assert (failed, read_certificate(tmp_path / "host").serial) == ([None], 2)
    assert waits_s == [pytest.approx(DAY_S / 3, rel=0.01)]


def test_a_renewal_that_was_not_taken_up_is_tried_again(issuing: Publisher, tmp_path: Path) -> None:
    wrong = KmsFastError("A setting is wrong.", name="CONFIGURATION_INVALID")
    waits_s, failed = look(tmp_path / "host", Issuing(issuing), 3, wrong, wrong)
    assert failed == ["CONFIGURATION_INVALID"] * 2 + [None]
    assert waits_s[:2] == [300, 600]
    assert read_certificate(tmp_path / "host").serial == 2


def test_a_file_that_it_may_not_use_is_told_as_that(realm: Realm) -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", str(realm.home / "host" / "host.key"))
    _, failed = look(realm.home / "host", Service(denied), 1)
    assert failed == ["NOT_ALLOWED"]


def test_a_host_that_finds_itself_revoked_has_taken_that_up(realm: Realm) -> None:
    revoked = KmsFastError("Revoked.", name="CERTIFICATE_REVOKED")
    waits_s, failed = look(realm.home / "host", Service(publisher_file(realm, 2, 1)), 2, revoked)
    assert (waits_s, failed) == ([DAY_S] * 2, [None] * 2)


def test_a_publisher_file_that_is_not_trusted_or_older_is_not_taken(realm: Realm, tmp_path: Path) -> None:
    installed = realm.home / "host" / "publisher.json"
    newer, older = publisher_file(realm, 3), publisher_file(realm, 2)
    stranger = make_realm(tmp_path / "stranger")
    forged = replace(PublisherFile.parse(newer), number=9).to_signed_json(stranger.issuer_key)
    _, failed = look(realm.home / "host", Service(newer, older, b"<html>", forged), 4)
    assert failed == [None, None, "OFFLINE_DATA_MALFORMED", "OFFLINE_DATA_MALFORMED"]
    assert installed.read_bytes() == newer
