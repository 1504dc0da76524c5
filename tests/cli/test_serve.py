"""``kms-fast serve`` as a process: starts that fail in one clear line, listening lines, signals."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kms_fast.model.policy import DAY_MS
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.revocation import issue_revocation_list
from tests.hosts import Realm, make_key, make_realm, run_cli, serve
from tests.reference import rpc
from tests.reference.rpc import Connection
from tests.system.asker import Asker, now_ms

Failure = tuple[str, str]


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return make_realm(tmp_path)


def fail(realm: Realm, *options: str | Path, home: Path | None = None, events: int = 1) -> Failure:
    """Starts a host that cannot start: its line on stderr, and the name of the result that the line ends with.

    ``events``: of how many the log tells; with settings that cannot be read there is no log.
    """
    listen = () if "--listen" in options else ("--listen", "127.0.0.1:0")
    command = [sys.executable, "-m", "kms_fast", "serve", "--home", home or realm.home, *listen, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    *logged, line = done.stderr.splitlines()
    assert [" ERROR 12291 0x" in event for event in logged] == [True] * events
    assert line.startswith("error: ")
    return line, line[line.rindex(" ") + 1 : -1]


def test_without_a_certificate(realm: Realm) -> None:
    (realm.home / "host" / "host.cert").unlink()
    line, name = fail(realm)
    assert name == "HOST_NOT_ACTIVATED"
    assert "kms-fast host request, publisher certify, host apply" in line


def test_json_tells_the_same(realm: Realm) -> None:
    (realm.home / "host" / "host.cert").unlink()
    code, answer, errors = run_cli("serve", "--listen", "127.0.0.1:0", home=realm.home)
    assert (code, answer["ok"], answer["name"]) == (1, False, "HOST_NOT_ACTIVATED")
    assert errors.endswith(" ERROR 12291 0xC004F041\n")
    assert answer["cure"]


def test_with_an_expired_certificate(tmp_path: Path) -> None:
    line, name = fail(make_realm(tmp_path, now_ms=now_ms() - 20 * DAY_MS, days=10))
    assert name == "HOST_CERTIFICATE_DATES"
    assert "renew" in line


def test_with_a_certificate_of_the_future(tmp_path: Path) -> None:
    assert fail(make_realm(tmp_path, now_ms=now_ms() + 5 * DAY_MS))[1] == "HOST_CERTIFICATE_DATES"


def test_with_a_revoked_certificate(realm: Realm) -> None:
    path = realm.home / "host" / "publisher.json"
    revocations = issue_revocation_list(realm.issuer_key, realm.issuer, number=1, issued_ms=now_ms(), serials=[1])
    publisher = replace(PublisherFile.parse(path.read_bytes()), number=2, revocations=revocations)
    path.write_bytes(publisher.to_signed_json(realm.root_key))
    line, name = fail(realm)
    assert name == "CERTIFICATE_REVOKED"
    assert "new certificate" in line


def test_with_another_key(realm: Realm) -> None:
    pem = make_key("another").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (realm.home / "host" / "host.key").write_bytes(pem)
    line, name = fail(realm)
    assert name == "CONFIGURATION_INVALID"
    assert "host.key is not the key" in line


@pytest.mark.parametrize("file", ["host.key", "host.cert", "catalog.json", "publisher.json"])
def test_with_a_damaged_file(realm: Realm, file: str) -> None:
    (realm.home / "host" / file).write_bytes(b"damaged")
    fail(realm)


@pytest.mark.parametrize("file", ["host.key", "catalog.json"])
def test_with_a_missing_file(realm: Realm, file: str) -> None:
    (realm.home / "host" / file).unlink()
    line, name = fail(realm)
    assert (file in line, name) == (True, "STORAGE_FAILED")


def test_on_a_used_port(realm: Realm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        address = f"127.0.0.1:{used.getsockname()[1]}"
        line, name = fail(realm, "--listen", address)
    assert (address in line, name) == (True, "ADDRESS_IN_USE")
    assert not (realm.home / "host" / "ledger").exists()


@pytest.mark.parametrize("address", ["no-such-host.invalid:1688", "192.0.2.1:1688", "a..b:1688"])
def test_on_an_address_that_is_none(realm: Realm, address: str) -> None:
    line, name = fail(realm, "--listen", address)
    assert (address in line, name) == (True, "CONFIGURATION_INVALID")


@pytest.mark.parametrize("name", ["ledger", "counts.db"])
def test_when_its_folder_cannot_be_written(realm: Realm, name: str) -> None:
    """A folder in the place of a file, or the other way round: rights do not stop root."""
    path = realm.home / "host" / name
    if name == "ledger":
        path.write_text("")
    else:
        path.mkdir()
    line, result = fail(realm)
    assert (str(path) in line, result) == (True, "STORAGE_FAILED")


def test_on_a_read_only_file_system(realm: Realm, mount: Callable[..., Path]) -> None:
    folder = mount("size=8m")
    shutil.copytree(realm.home, folder / "home")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True, timeout=30)
    assert fail(realm, home=folder / "home")[1] in ("STORAGE_FAILED", "NOT_ALLOWED")


def test_on_a_full_disk(realm: Realm, mount: Callable[..., Path]) -> None:
    folder = mount("size=8m")
    shutil.copytree(realm.home, folder / "home")
    line, name = fail(realm, home=folder / "home")
    assert name == "STORAGE_FAILED"
    assert "No space left" in line
    # Nothing that a later start would stumble over.
    subprocess.run(["mount", "-o", "remount,size=256m", folder], check=True, timeout=30)
    with serve(replace(realm, home=folder / "home")) as host:
        assert host.stop() == 0


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("lissten = ['127.0.0.1:0']", "listen"),
        ("retention = 'for ever'", "retention"),
        ("idle_timeout = 30", "30s"),
        ("max_connections = 0", "max_connections"),
        ("= 3", "not TOML"),
    ],
)
def test_with_a_bad_configuration(realm: Realm, config: str, said: str) -> None:
    path = realm.home.parent / "host.toml"
    path.write_text(config + "\n")
    line, name = fail(realm, "--config", path, events=0)
    assert name == "CONFIGURATION_INVALID"
    assert str(path) in line
    assert said in line


def test_with_health_pages_where_another_program_listens(realm: Realm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line, name = fail(realm, "--web", f"127.0.0.1:{taken.getsockname()[1]}")
    assert ("Health pages cannot listen" in line, name) == (True, "ADDRESS_IN_USE")


def test_on_a_damaged_ledger(realm: Realm) -> None:
    (realm.home / "host" / "ledger").mkdir()
    (realm.home / "host" / "ledger" / "segment-00000001.kfl").write_bytes(b"")
    line, name = fail(realm)
    assert ("segment-00000001.kfl" in line, name) == (True, "LEDGER_DAMAGED")


def read_lines(process: subprocess.Popen[str], number: int) -> list[str]:
    assert process.stdout
    return [process.stdout.readline().rstrip("\n") for _ in range(number)]


@pytest.fixture
def start(realm: Realm) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts hosts with whatever options, and ends them."""
    started: list[subprocess.Popen[str]] = []

    def run(*options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "kms_fast", "serve", "--home", realm.home, *options]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate(timeout=30)


def test_a_line_for_each_address(realm: Realm, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--listen", "127.0.0.1:0")
    lines = read_lines(process, 3)
    prefixes = ("listening on 127.0.0.1:", "listening on [::1]:", "listening on 127.0.0.1:")
    ports = [int(line.removeprefix(prefix)) for line, prefix in zip(lines, prefixes, strict=True)]
    assert len(set(ports)) >= 2
    asker = Asker.of(realm, "desktop")
    for host, port in zip(("127.0.0.1", "::1", "127.0.0.1"), ports, strict=True):
        with Connection((host, port)) as connection:
            connection.bind()
            asked = asker.ask()
            assert asker.check(asked, connection.call(asked.request)[0]).leaf.result == 0
    process.terminate()
    assert process.wait(30) == 0


def test_json_lines(start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start("--listen", "127.0.0.1:0", "--json", "--log-format", "json")
    (line,) = read_lines(process, 1)
    said = json.loads(line)
    with socket.create_connection((said["address"], said["port"]), timeout=30):
        pass
    assert said == {"event": "listening", "address": "127.0.0.1", "port": said["port"]}
    process.terminate()
    rest, log = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, "")
    assert [json.loads(line)["level"] for line in log.splitlines()] == ["info"] * len(log.splitlines())
    assert "; workers: 1, AES by " in log


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_signals_end_it_while_clients_wait(realm: Realm, number: int, code: int) -> None:
    asker = Asker.of(realm, "desktop")
    pipelined = b"".join(rpc.build_request(asker.ask().request, call_id) for call_id in range(500))
    with serve(realm) as host, Connection(host.address) as connection:
        connection.bind()
        connection.send(pipelined)
        assert connection.receive()
        host.process.send_signal(number)
        assert host.process.wait(30) == code
        log = (realm.home.parent / "serve.log").read_text()
        assert "Traceback" not in log
        assert "ERROR" not in log
    assert run_cli("ledger", "verify", home=realm.home)[1]["ok"]


def test_term_answers_what_it_has_read(realm: Realm) -> None:
    """Requests that were admitted get their lease, those behind them SERVER_BUSY: none is left without a word."""
    asker = Asker.of(realm, "desktop")
    asked = [asker.ask() for _ in range(200)]
    # A long spacing holds the second batch back until after TERM.
    with serve(realm, "--batch-spacing", "700ms") as host, Connection(host.address) as connection:
        connection.bind()
        for call_ids in (range(100), range(100, 200)):
            connection.send(b"".join(rpc.build_request(asked[n].request, n) for n in call_ids))
            if call_ids[0] == 0:
                pdus = [connection.receive() for _ in range(100)]
        idle = socket.create_connection(host.address, timeout=30)
        time.sleep(0.2)
        host.process.terminate()
        pdus += [connection.receive() for _ in range(100)]
        with pytest.raises(ConnectionError):
            connection.receive()
        assert idle.recv(1) == b""
        assert host.process.wait(30) == 0
    for pdu in pdus:
        assert asker.check(asked[pdu.call_id], rpc.parse_response(pdu)[0]).leaf.result == 0
    assert {pdu.call_id for pdu in pdus} == set(range(200))
    ledger = realm.home / "host" / "ledger" / "segment-00000001.kfl"
    assert ledger.stat().st_size < 1 << 20


def test_two_hosts_on_one_home(realm: Realm, tmp_path: Path) -> None:
    """Each writes a segment of its own, and both count in one place: the 25th machine is granted by either."""
    (tmp_path / "shared").mkdir()
    realm = make_realm(tmp_path / "shared", threshold=25)
    asker = Asker.of(realm, "desktop")
    with serve(realm) as first, serve(realm) as second:
        with Connection(first.address) as one, Connection(second.address) as other:
            one.bind()
            other.bind()
            asked = [asker.ask() for _ in range(30)]
            turns = [(one, other)[n % 2].call(each.request)[0] for n, each in enumerate(asked)]
        leaves = [asker.check(each, answer).leaf for each, answer in zip(asked, turns, strict=True)]
        assert [leaf.current_count for leaf in leaves] == list(range(1, 31))
        assert [leaf.result == 0 for leaf in leaves] == [False] * 24 + [True] * 6
        assert run_cli("ledger", "verify", home=realm.home)[1]["records"] == 30
        assert (first.stop(), second.stop()) == (0, 0)
    with serve(realm) as third:
        assert third.stop() == 0
    verdict = run_cli("ledger", "verify", home=realm.home)[1]
    assert (verdict["ok"], verdict["segments"], verdict["records"]) == (True, 3, 30)


def test_kill_in_the_middle_of_load(realm: Realm) -> None:
    """Whatever was told before a kill -9 is in the ledger of the host that starts again."""
    asker, told = Asker.of(realm, "desktop"), set()
    for _ in range(2):
        with serve(realm) as host, Connection(host.address) as connection:
            connection.bind()
            asked = [asker.ask() for _ in range(400)]
            connection.send(b"".join(rpc.build_request(each.request, n) for n, each in enumerate(asked)))
            for _ in range(150):
                pdu = connection.receive()
                verified = asker.check(asked[pdu.call_id], rpc.parse_response(pdu)[0])
                told.add(verified.leaf.request_hash.hex())
            host.process.kill()
            host.process.wait(30)
    verdict = run_cli("ledger", "verify", home=realm.home)[1]
    assert (verdict["ok"], verdict["segments"]) == (True, 2)
    command = [sys.executable, "-m", "kms_fast", "ledger", "export", "--home", realm.home]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    recorded = [json.loads(line)["request_hash"] for line in lines]
    assert told <= set(recorded)
    assert len(recorded) == len(set(recorded)) == verdict["records"]
