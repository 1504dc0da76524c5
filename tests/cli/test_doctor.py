"""``kms-fast doctor``: the ladder, and the rungs of a host as the network shows it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kms_fast.cli.doctor.ladder import Check, Finding, Verdict, climb, fail, ok
from kms_fast.cli.doctor.target import TargetContext, check_reach
from kms_fast.cli.main import run
from kms_fast.client import Client
from kms_fast.discovery.address import HostAddress
from tests.client.world import FakeClock, ScriptedHost, listening, make_client_home
from tests.examinations import HOUR_MS, examine, verdicts
from tests.hosts import SKUS, Realm, RunningHost, make_realm, run_cli, serve
from tests.rpc.pdus import NOT_OURS, bind_ack
from tests.system.asker import now_ms

pytestmark = pytest.mark.usefixtures("free_port")


@pytest.fixture(params=["as the standard wants it", "impacket"])
def foreign(request: pytest.FixtureRequest) -> Iterator[str]:
    """An RPC server that has other interfaces than ours, and says so."""
    if request.param == "impacket":
        yield str(request.getfixturevalue("stock_server"))
        return
    with listening(bind_ack(NOT_OURS)) as address:
        yield address


def test_a_home_with_nothing(tmp_path: Path) -> None:
    assert verdicts(examine(tmp_path)) == {"home": "failed"}


def test_no_record_and_no_host(client_home: Path) -> None:
    finding = examine(client_home)["lookup"]
    assert finding["verdict"] == "failed"
    # As the name servers of whoever runs the tests have it: no record, or no answer.
    assert finding["code"] in ("0x8007232B", "0x8007232A")


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
            finding = examine(home, address)["interface"]
            assert finding["verdict"] == "failed"
            assert "firewall" not in finding["cure"]


def test_a_host_seen_without_a_key(tmp_path: Path, real_host: RunningHost) -> None:
    checks = examine(tmp_path, f"127.0.0.1:{real_host.address[1]}")
    assert checks["interface"]["what"] == "It is a kms_fast host: it accepts our interface."
    assert checks["host certificate"]["verdict"] == "skipped"


def test_a_host_that_the_publisher_revoked(tmp_path: Path) -> None:
    realm = make_realm(tmp_path / "host")
    home = make_client_home(tmp_path / "client-home", make_realm(tmp_path / "client", revoked=[1]))
    with serve(realm) as host:
        finding = examine(home, f"127.0.0.1:{host.address[1]}")["host certificate"]
    assert (finding["verdict"], finding["code"]) == ("failed", "0xE04B0029")


def test_a_host_whose_certificate_ends_soon(tmp_path: Path) -> None:
    realm = make_realm(tmp_path, days=30)
    home = make_client_home(tmp_path / "client-home", realm)
    with serve(realm) as host:
        assert examine(home, f"127.0.0.1:{host.address[1]}")["host certificate"]["verdict"] == "warning"


def test_a_host_of_other_products(tmp_path: Path, real_host: RunningHost) -> None:
    """A failure where it is the only host that is asked, else nobody's."""
    home, address = tmp_path / "client-home", f"127.0.0.1:{real_host.address[1]}"
    make_client_home(home, real_host.realm, "server", host=address)
    finding = examine(home)["host certificate"]
    assert (finding["verdict"], finding["code"]) == ("failed", "0xC004F042")
    finding = examine(home, address)["host certificate"]
    assert finding["verdict"] == "ok"
    assert "Server 1: The host's certificate does not cover this product" in finding["what"]


def test_two_products_each_with_a_host_of_its_own(tmp_path: Path, real_host: RunningHost) -> None:
    home = tmp_path / "client-home"
    make_client_home(home, real_host.realm, "server", host="127.0.0.1:1")
    make_client_home(home, real_host.realm, "desktop")
    Client(home=home).set_host(f"127.0.0.1:{real_host.address[1]}", SKUS["desktop"].id)
    told = run_cli("doctor", home=home)[1]["checks"]
    judged = [(finding["about"], finding["verdict"]) for finding in told if finding["check"] == "host certificate"]
    assert judged == [("127.0.0.1:1", "skipped"), (f"127.0.0.1:{real_host.address[1]}", "ok")]
    # Each host is named for its product also where the state's mode is wrong.
    (home / "client" / "state.json").chmod(0o644)
    told = run_cli("doctor", home=home)[1]["checks"]
    assert [finding["what"].partition(":")[0] for finding in told if finding["check"] == "lookup"] == [
        "Server 1",
        "Desktop 3",
    ]


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


def test_an_address_that_is_none() -> None:
    code, told, _ = run_cli("doctor", "a b")
    assert (code, told["name"]) == (2, "COMMAND_INVALID")
