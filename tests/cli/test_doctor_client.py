"""``kms-fast doctor`` on a client: each check against the real thing, whole and broken."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from kms_fast.cli.main import run
from kms_fast.client import Client
from kms_fast.client.state import Failure, State
from kms_fast.results import BY_NAME
from tests.client.world import give_up, make_client_home
from tests.examinations import DAY_MS, HOUR_MS, change_state, examine, verdicts
from tests.hosts import SKUS, Realm, RunningHost, make_realm, run_cli, serve
from tests.system.asker import now_ms

pytestmark = pytest.mark.usefixtures("free_port")


def test_a_client_before_and_after_a_real_activation(realm: Realm, tmp_path: Path) -> None:
    with serve(realm) as host:
        home = make_client_home(tmp_path / "client-home", realm, host=f"127.0.0.1:{host.address[1]}")
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
        home = make_client_home(tmp_path / "client-home", realm, host=f"127.0.0.1:{host.address[1]}")
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


def test_a_product_that_the_publisher_gave_up(realm: Realm, tmp_path: Path) -> None:
    home, server = make_client_home(tmp_path / "client-home", realm, "desktop", "server"), SKUS["server"].id
    give_up(realm, "server")
    make_client_home(home, realm)
    checks = examine(home)
    assert (checks["keys"]["verdict"], f"--sku {server}" in checks["keys"]["what"]) == ("warning", True)
    assert checks["licence"]["what"].startswith("Desktop 3: ")
    Client(home=home).uninstall_key(SKUS["desktop"].id)
    checks = examine(home, "--activate")
    for check in ("keys", "activation"):
        assert "The publisher has given the product" in checks[check]["what"]
    assert checks["licence"]["what"] == "because keys failed"


def test_a_folder_that_is_empty_is_nothing_to_look_at(realm: Realm, tmp_path: Path, client_home: Path) -> None:
    """systemd-tmpfiles makes the folders of a host and of a client on each machine."""
    (realm.home / "client").mkdir()
    (client_home / "host").mkdir()
    for home, about in ((realm.home, "host in"), (client_home, "client in")):
        folders = {finding["about"] for finding in examine(home).values() if " in " in finding["about"]}
        assert folders == {f"{about} {home}"}
    (tmp_path / "new" / "host").mkdir(parents=True)
    assert "of neither a host nor a client" in examine(tmp_path / "new")["home"]["what"]


def test_another_user_s_folder_is_told(
    realm: Realm, require_tool: Callable[[str], str], unavailable: Callable[[str], NoReturn]
) -> None:
    """The client of a machine is root's, its host is not."""
    without_rights = [require_tool("setpriv"), "--bounding-set=-dac_override,-dac_read_search"]
    client = make_client_home(realm.home, realm) / "client"
    try:
        os.chown(client, 4711, 4711)
    except PermissionError:
        unavailable("giving a folder to another user needs root")
    _, told, _ = run_cli("doctor", home=realm.home, prefix=without_rights)
    [finding] = [finding for finding in told["checks"] if finding["about"] == f"client in {realm.home}"]
    assert (told["ok"], finding["verdict"]) == (True, "skipped")
    assert "the client's folder is another user's" in finding["what"]
    os.chown(realm.home / "host", 4711, 4711)
    _, told, _ = run_cli("doctor", home=realm.home, prefix=without_rights)
    [finding] = told["checks"]
    assert (finding["verdict"], finding["cure"]) == ("failed", "Run the command as that user, or as root.")


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


def test_activation_is_this_client_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "example.com", "--activate"]) == 2


def test_other_products_are_activated_though_one_is_refused(tmp_path: Path, real_host: RunningHost) -> None:
    address = f"127.0.0.1:{real_host.address[1]}"
    home = make_client_home(tmp_path / "client-home", real_host.realm, "server", host=address)
    make_client_home(home, real_host.realm, "desktop")
    Client(home=home).set_host(address, SKUS["desktop"].id)
    finding = examine(home, "--activate")["activation"]
    assert (finding["verdict"], finding["code"]) == ("failed", "0xC004F042")
    assert "Activated: Desktop 3 until" in finding["what"]
    assert "Server 1: The certificate of" in finding["what"]


def test_why_a_lease_does_not_count_is_told(client_home: Path, real_host: RunningHost) -> None:
    """And the cure is for that, not for what failed last."""

    def copy_to_another_machine(state: State) -> None:
        state.cmid = uuid.uuid4()
        for product in state.products.values():
            product.failure = Failure(now_ms(), BY_NAME["NO_HOST_REACHED"].code, "Nobody answered.")

    make_client_home(client_home, real_host.realm, host=f"127.0.0.1:{real_host.address[1]}")
    Client(home=client_home).activate()
    change_state(client_home, copy_to_another_machine)
    finding = examine(client_home)["licence"]
    assert finding["verdict"] == "failed"
    assert "was made on other hardware. The last attempt failed: Nobody answered." in finding["what"]
    assert finding["cure"] == BY_NAME["HARDWARE_CHANGED"].cure


def test_a_damaged_state_file_is_left_where_it_is(client_home: Path) -> None:
    path = client_home / "client" / "state.json"
    path.write_bytes(b"{")
    finding = examine(client_home)["keys"]
    assert (finding["verdict"], finding["code"]) == ("failed", "0xE04B0006")
    assert path.read_bytes() == b"{"
