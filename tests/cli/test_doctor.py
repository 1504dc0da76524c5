"""``kms-fast doctor``: each check against the real thing, whole and broken."""

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kms_fast.cli.doctor.host import HostContext, check_firewall
from kms_fast.cli.doctor.ladder import Check, Finding, Verdict, climb, fail, ok
from kms_fast.cli.doctor.target import TargetContext, check_reach
from kms_fast.cli.main import run
from kms_fast.client import Client
from kms_fast.client.state import State
from kms_fast.discovery.address import HostAddress
from kms_fast.host.presence import HostProcess
from tests.batches import BatchMaker
from tests.client.world import SETUP_KEYS, FakeClock, ScriptedHost, listening
from tests.hosts import Realm, RunningHost, make_realm, run_cli, serve
from tests.reference import rpc
from tests.system.asker import Asker, now_ms

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
Checks = dict[str, dict[str, Any]]


def examine(home: Path, *arguments: str) -> Checks:
    """Every finding by the name of its check; the exit code is what the verdicts say."""
    code, told, _ = run_cli("doctor", *arguments, home=home)
    failed = [finding["check"] for finding in told["checks"] if finding["verdict"] == "failed"]
    assert (code, told["ok"]) == ((1, False) if failed else (0, True))
    if failed:
        assert told["name"] == "CHECK_FAILED"
        assert told["message"].endswith(f"checks failed: {', '.join(failed)}.")
    assert all(finding["cure"] for finding in told["checks"] if finding["verdict"] in ("failed", "warning"))
    return {finding["check"]: finding for finding in told["checks"]}


def verdicts(checks: Checks) -> dict[str, str]:
    return {name: finding["verdict"] for name, finding in checks.items()}


@pytest.fixture(autouse=True)
def free_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Where hosts of these tests are set to listen; nobody does."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    monkeypatch.setenv("KMS_FAST_LISTEN", f"127.0.0.1:{port}")
    return port


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return make_realm(tmp_path)


@pytest.fixture
def client_home(tmp_path: Path, realm: Realm) -> Path:
    """The home of a client with a setup key."""
    return make_client(tmp_path / "client-home", realm)


def make_client(home: Path, realm: Realm, key: str = "desktop", host: str = "") -> Path:
    client = Client(home=home, publisher=realm.publisher_json.read_bytes())
    client.install_key(SETUP_KEYS[key])
    if host:
        client.set_host(host)
    return home


def change_state(home: Path, change: Callable[[State], None]) -> None:
    path = home / "client" / "state.json"
    state = msgspec.json.decode(path.read_bytes(), type=State)
    change(state)
    path.write_bytes(msgspec.json.encode(state))


@pytest.fixture(params=["as the standard wants it", "impacket"])
def foreign(request: pytest.FixtureRequest) -> Iterator[str]:
    """An RPC server that has other interfaces than ours, and says so."""
    if request.param == "impacket":
        script = Path(__file__).parents[1] / "system" / "impacket_server.py"
        command = [request.getfixturevalue("impacket_python"), script]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout
            yield f"127.0.0.1:{int(server.stdout.readline())}"
            server.kill()
        return
    bind = rpc.split_pdus(rpc.build_bind())[0]
    with listening(rpc.build_bind_ack(bind, [(2, 1, bytes(20))])) as address:
        yield address


def test_a_host_that_runs(realm: Realm) -> None:
    with serve(realm) as host:
        checks = examine(realm.home)
        assert f"process {host.process.pid}" in checks["port"]["what"]
    # No other machine reaches this one, and no record is in DNS.
    expected = dict.fromkeys(checks, "ok") | {"firewall": "warning", "lookup": "warning"}
    assert verdicts(checks) == expected
    assert list(checks)[:8] == ["configuration", "files", "certificate", "clock", "port", "firewall", "store", "disk"]
    assert list(checks)[9:] == ["name", "reach", "interface", "host certificate", "host clock"]
    assert "Certificate 1 of Testing Ltd" in checks["host certificate"]["what"]
    assert f"SRV 0 0 {host.address[1]} " in checks["lookup"]["cure"]


def test_what_it_looks_at_is_left_alone(realm: Realm) -> None:
    before = {path: path.stat() for path in realm.home.rglob("*")}
    examine(realm.home)
    after = {path: path.stat() for path in realm.home.rglob("*")}
    assert {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in after.items() if path.is_file()} == {
        path: (stat.st_ino, stat.st_mtime_ns) for path, stat in before.items() if path.is_file()
    }


def test_a_home_with_nothing(tmp_path: Path) -> None:
    assert verdicts(examine(tmp_path)) == {"home": "failed"}


def test_a_wrong_configuration(realm: Realm, tmp_path: Path) -> None:
    config = tmp_path / "host.toml"
    config.write_text("lissten = 3\n")
    checks = examine(realm.home, "--config", str(config))
    assert checks["configuration"]["code"] == "0xE04B0006"
    assert "the nearest is listen" in checks["configuration"]["what"]
    skipped = [name for name, finding in checks.items() if finding["what"] == "because configuration failed"]
    assert skipped == ["port", "firewall", "store", "disk"]
    assert checks["certificate"]["verdict"] == "ok"


@pytest.mark.parametrize("name", ["host.key", "catalog.json"])
def test_secrets_that_others_may_read_and_the_cure(realm: Realm, name: str) -> None:
    path = realm.home / "host" / name
    path.chmod(0o640)
    finding = examine(realm.home)["files"]
    assert (finding["verdict"], finding["details"]["files"]) == ("failed", [str(path)])
    subprocess.run(finding["cure"], shell=True, check=True, timeout=30)
    assert examine(realm.home)["files"]["verdict"] == "ok"


def test_files_of_another_user(realm: Realm, unavailable: Callable[[str], None]) -> None:
    if os.geteuid() != 0:
        unavailable("files that belong to other users are for root to make")
    path = realm.home / "host" / "publisher.json"
    os.chown(path, 65_534, -1)
    finding = examine(realm.home)["files"]
    assert (finding["verdict"], finding["details"]["files"]) == ("failed", [str(path)])
    assert finding["cure"].startswith("chown -R root ")


def remove_certificate(realm: Realm) -> None:
    (realm.home / "host" / "host.cert").unlink()


def damage_catalog(realm: Realm) -> None:
    path = realm.home / "host" / "catalog.json"
    path.write_bytes(path.read_bytes().replace(b"Desktop", b"Dexktop"))


@pytest.mark.parametrize(("break_it", "code"), [(remove_certificate, "0xC004F041"), (damage_catalog, "0xC004F02C")])
def test_a_certificate_that_is_missing_or_wrong(realm: Realm, break_it: Callable[[Realm], None], code: str) -> None:
    break_it(realm)
    finding = examine(realm.home)["certificate"]
    assert (finding["verdict"], finding["code"]) == ("failed", code)


@pytest.mark.parametrize(
    ("options", "verdict", "code"),
    [
        ({"days": 0}, "failed", "0xE04B0005"),
        ({"days": 30}, "warning", None),
        ({"revoked": [1]}, "failed", "0xE04B0029"),
        ({"now_ms": now_ms() + 400 * DAY_MS}, "failed", "0xE04B0005"),
    ],
    ids=["ended", "ends soon", "revoked", "not yet"],
)
def test_dates_and_revocation(tmp_path: Path, options: dict[str, Any], verdict: str, code: str | None) -> None:
    finding = examine(make_realm(tmp_path, **options).home)["certificate"]
    assert (finding["verdict"], finding["code"]) == (verdict, code)


def test_a_clock_behind_what_was_signed(realm: Realm) -> None:
    maker = BatchMaker(realm)
    ledger = maker.open_ledger()
    signed_ms = now_ms() + HOUR_MS
    maker.write(ledger, maker.collect([Asker.of(realm, "desktop").ask().request]), signed_ms)
    ledger.close()
    finding = examine(realm.home)["clock"]
    assert (finding["verdict"], finding["details"]["newest_ms"]) == ("failed", signed_ms)


def test_a_port_that_is_free_and_one_that_is_taken(realm: Realm, free_port: int) -> None:
    assert examine(realm.home)["port"]["verdict"] == "warning"
    with socket.create_server(("127.0.0.1", free_port)):
        checks = examine(realm.home)
    assert (checks["port"]["verdict"], checks["port"]["code"]) == ("failed", "0xE04B0009")
    assert checks["firewall"]["what"] == "because port failed"


def test_an_address_that_others_use(realm: Realm) -> None:
    with serve(realm, listen="0.0.0.0:0") as host:
        finding = examine(realm.home)["firewall"]
    if finding["verdict"] != "skipped":  # a machine without a network
        assert finding["verdict"] == "ok"
        assert f":{host.address[1]}" in finding["details"]["address"]
        assert "can only be seen from one of them" in finding["what"]


def test_an_address_that_cannot_be_reached(realm: Realm, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens stands for what a firewall rejects."""
    process = HostProcess(pid=1, version="", started_ms=0, addresses=(f"0.0.0.0:{free_port}",), workers=1)
    monkeypatch.setattr("kms_fast.cli.doctor.host._find_own_address", lambda: "127.0.0.1")
    finding = check_firewall(HostContext(realm.home, None, 0, running=[process]))
    assert finding.verdict is Verdict.FAILED
    assert "Connection refused" in finding.what


def test_a_damaged_store(realm: Realm) -> None:
    (realm.home / "host" / "counts.db").write_bytes(b"no database" * 1000)
    finding = examine(realm.home)["store"]
    assert (finding["verdict"], finding["code"]) == ("failed", "0xE04B0045")


def test_a_database_that_does_not_answer(realm: Realm, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setenv("KMS_FAST_STORE", f"postgresql://kms:secret@127.0.0.1:{free_port}/kms")
    finding = examine(realm.home)["store"]
    assert (finding["verdict"], finding["code"]) == ("failed", "0xE04B000F")
    assert "secret" not in json.dumps(finding)


@pytest.mark.parametrize(("share", "verdict"), [(2.0, "failed"), (0.5, "warning"), (0.0, "ok")])
def test_room_on_the_disk(realm: Realm, monkeypatch: pytest.MonkeyPatch, share: float, verdict: str) -> None:
    disk = os.statvfs(realm.home)
    monkeypatch.setenv("KMS_FAST_LOW_WATER", f"{int(disk.f_bavail * disk.f_frsize * share)}B")
    assert examine(realm.home)["disk"]["verdict"] == verdict


def test_a_client_before_and_after_a_real_activation(realm: Realm, tmp_path: Path) -> None:
    with serve(realm) as host:
        home = make_client(tmp_path / "client-home", realm, host=f"127.0.0.1:{host.address[1]}")
        before = examine(home)
        counted = run_cli("host", "status", home=realm.home)[1]["families"]["desktops"]["count"]
        activated = examine(home, "--activate")["activation"]
        after = examine(home)
    assert before["licence"]["verdict"] == "warning"
    assert "Set by client set-host" in before["lookup"]["what"]
    assert (activated["verdict"], counted) == ("ok", 0)
    assert set(verdicts(after).values()) == {"ok"}
    assert list(after) == [
        "keys", "licence", "clock", "lookup", "name", "reach", "interface", "host certificate", "host clock",
    ]  # fmt: skip


def test_an_activation_that_is_refused(tmp_path: Path) -> None:
    realm = make_realm(tmp_path, threshold=5)
    with serve(realm) as host:
        home = make_client(tmp_path / "client-home", realm, host=f"127.0.0.1:{host.address[1]}")
        checks = examine(home, "--activate")
        assert (checks["activation"]["verdict"], checks["activation"]["code"]) == ("failed", "0xC004F038")
        assert "1 of the 5 machines" in checks["activation"]["what"]
        # What failed is told the next time too.
        assert "1 of the 5 machines" in examine(home)["licence"]["what"]


def test_activation_where_no_key_is(tmp_path: Path, client_home: Path) -> None:
    Client(home=client_home).uninstall_key()
    checks = examine(client_home, "--activate")
    assert checks["keys"]["code"] == checks["activation"]["code"] == "0xC004F014"
    assert checks["licence"]["what"] == "because keys failed"


def test_a_client_whose_time_is_over(client_home: Path, realm: Realm) -> None:
    def wait_two_months(state: State) -> None:
        for product in state.products.values():
            product.grace_started_ms -= 60 * DAY_MS

    change_state(client_home, wait_two_months)
    finding = examine(client_home)["licence"]
    assert (finding["verdict"], "notification" in finding["what"]) == ("failed", True)


def test_a_client_s_clock_that_was_set_back(client_home: Path) -> None:
    def note_later(state: State) -> None:
        state.mark_ms = now_ms() + 9 * HOUR_MS

    change_state(client_home, note_later)
    assert examine(client_home)["clock"]["verdict"] == "failed"


def test_a_client_s_state_that_others_may_read(client_home: Path) -> None:
    path = client_home / "client" / "state.json"
    path.chmod(0o644)
    finding = examine(client_home)["keys"]
    assert (finding["verdict"], finding["cure"]) == ("failed", f"chmod 600 {path}")


def test_no_record_and_no_host(client_home: Path) -> None:
    finding = examine(client_home)["lookup"]
    assert (finding["verdict"], finding["code"]) == ("failed", "0x8007232B")


def test_a_dead_host(client_home: Path, free_port: int) -> None:
    Client(home=client_home).set_host(f"127.0.0.1:{free_port}")
    checks = examine(client_home)
    assert checks["reach"]["verdict"] == "failed"
    assert "Connection refused" in checks["reach"]["what"]
    assert {checks[name]["what"] for name in ("interface", "host certificate", "host clock")} == {
        "because reach failed"
    }


def test_one_of_two_addresses(free_port: int) -> None:
    context = TargetContext(HostAddress("kms.example", free_port), addresses=["127.0.0.1", "127.0.0.2"])
    with socket.create_server(("127.0.0.1", free_port)):
        finding = check_reach(context)
    assert (finding.verdict, list(finding.details["failures"])) == (Verdict.WARNING, ["127.0.0.2"])


def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    checks = examine(tmp_path, "no-such-host.invalid:1688")
    assert verdicts(checks)["name"] == "failed"
    assert checks["host clock"]["what"] == "because name failed"


def test_a_foreign_rpc_server(tmp_path: Path, client_home: Path, foreign: str) -> None:
    """With and without a setup key; that it is there is nobody's failure."""
    for home in (tmp_path / "empty", client_home):
        checks = examine(home, foreign)
        assert checks["reach"]["verdict"] == "ok"
        assert checks["interface"]["verdict"] == "warning"
        assert "A foreign RPC server" in checks["interface"]["what"]
        assert checks["host certificate"]["what"] == "because it is no kms_fast host"


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", None], ids=["garbage", "closed"])
def test_what_speaks_another_protocol(tmp_path: Path, client_home: Path, said: bytes | None) -> None:
    with listening(said) as address:
        for home in (tmp_path / "empty", client_home):
            assert verdicts(examine(home, address))["interface"] == "failed"


def test_a_host_seen_without_a_key(tmp_path: Path, real_host: RunningHost) -> None:
    checks = examine(tmp_path, f"127.0.0.1:{real_host.address[1]}")
    assert checks["interface"]["what"] == "It is a kms_fast host: it accepts our interface."
    assert checks["host certificate"]["verdict"] == "skipped"


def test_a_host_that_the_publisher_revoked(tmp_path: Path) -> None:
    realm = make_realm(tmp_path / "host")
    home = make_client(tmp_path / "client-home", make_realm(tmp_path / "client", revoked=[1]))
    with serve(realm) as host:
        finding = examine(home, f"127.0.0.1:{host.address[1]}")["host certificate"]
    assert (finding["verdict"], finding["code"]) == ("failed", "0xE04B0029")


def test_a_host_whose_certificate_ends_soon(tmp_path: Path) -> None:
    realm = make_realm(tmp_path, days=30)
    home = make_client(tmp_path / "client-home", realm)
    with serve(realm) as host:
        assert examine(home, f"127.0.0.1:{host.address[1]}")["host certificate"]["verdict"] == "warning"


def test_a_host_of_other_products(tmp_path: Path, real_host: RunningHost) -> None:
    home = make_client(tmp_path / "client-home", real_host.realm, "server")
    finding = examine(home, f"127.0.0.1:{real_host.address[1]}")["host certificate"]
    assert (finding["verdict"], finding["code"]) == ("failed", "0xC004F042")


@pytest.mark.parametrize(
    ("shift_ms", "verdict"), [(5 * HOUR_MS, "failed"), (-5 * HOUR_MS, "failed"), (HOUR_MS // 6, "warning")]
)
def test_a_host_whose_clock_is_wrong(realm: Realm, client_home: Path, shift_ms: int, verdict: str) -> None:
    host = ScriptedHost(realm, FakeClock(wall_ms=now_ms()), time_shift_ms=shift_ms)
    with listening(host) as address:
        checks = examine(client_home, address)
    assert checks["host certificate"]["verdict"] == "ok"
    assert checks["host clock"]["verdict"] == verdict
    assert abs(checks["host clock"]["details"]["difference_ms"] - shift_ms) < 10_000


def test_the_page_for_people(client_home: Path, free_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    Client(home=client_home).set_host(f"127.0.0.1:{free_port}")
    assert run(["doctor", "--home", str(client_home)]) == 1
    page = capsys.readouterr().out
    assert f"\n\n127.0.0.1:{free_port}\n  ok       name " in page
    assert "  skipped  interface         because reach failed\n" in page
    assert "What to do: Activate: kms-fast client activate." in page
    assert page.endswith("\n4 ok, 1 warning, 1 failed, 3 skipped\n")


def test_activation_is_this_client_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "example.com", "--activate"]) == 2


def test_a_rung_that_rests_on_one_that_was_skipped() -> None:
    def fails(context: None) -> Finding:
        return fail("no", "do")

    def holds(context: None) -> Finding:
        return ok("yes")

    checks = [Check("a", fails), Check("b", holds, ("a",)), Check("c", holds, ("b",)), Check("d", holds)]
    assert [finding.what for finding in climb("x", checks, None)] == [
        "no",
        "because a failed",
        "because a failed",
        "yes",
    ]
