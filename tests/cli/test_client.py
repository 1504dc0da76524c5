"""``kms-fast client`` as users run it, against a real host."""

import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.client.world import SETUP_KEYS, give_up, make_client_home
from tests.hosts import SKUS, Realm, RunningHost, make_realm, run_cli, serve


def run(home: Path, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of ``kms-fast client ARGUMENTS``; nothing but JSON may be printed."""
    code, result, errors = run_cli("client", *arguments, home=home)
    assert "Traceback" not in errors
    return code, result


def show(home: Path, *arguments: str | Path) -> str:
    """What ``kms-fast client ARGUMENTS`` prints for people, on stdout and stderr."""
    command = [sys.executable, "-m", "kms_fast", "client", *arguments, "--home", home]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    return done.stdout


def install(home: Path, host: RunningHost, product: str = "desktop") -> None:
    code, _ = run(home, "install-key", SETUP_KEYS[product], "--publisher", host.realm.publisher_json)
    assert code == 0
    code, _ = run(home, "set-host", "{}:{}".format(*host.address))
    assert code == 0


def test_from_key_to_licence(tmp_path: Path, real_host: RunningHost) -> None:
    publisher = real_host.realm.publisher_json
    code, result = run(tmp_path, "install-key", SETUP_KEYS["desktop"], "--publisher", publisher)
    assert (code, result["ok"], result["product"], result["state"]) == (0, True, "Desktop 3", 2)
    code, result = run(tmp_path, "set-host", "{}:{}".format(*real_host.address))
    assert (code, result) == (0, {"ok": True, "host": "{}:{}".format(*real_host.address)})
    code, result = run(tmp_path, "activate")
    assert (code, result["state_name"], result["lease"]["threshold"]) == (0, "licensed", 1)
    code, result = run(tmp_path, "status")
    (product,) = result["products"]
    assert (product["state"], product["minutes_left"], product["reason"]) == (1, 180 * 1440, None)
    code, result = run(tmp_path, "expiry")
    assert result["products"] == [{"product": "Desktop 3", "state": 1, "minutes_left": 180 * 1440}]


def test_what_people_read(tmp_path: Path, real_host: RunningHost) -> None:
    install(tmp_path, real_host)
    assert "initial grace, 30 d left" in show(tmp_path, "status")
    assert "Desktop 3 is activated until" in show(tmp_path, "activate")
    text = show(tmp_path, "status")
    assert re.search(r"licensed until 20\d\d-\d\d-\d\d .* UTC, 180 d left", text)
    assert f"…{SETUP_KEYS['desktop'][-5:]}" in text
    assert SETUP_KEYS["desktop"][:-5] not in text
    assert show(tmp_path, "expiry").startswith("Desktop 3: licensed")


def test_without_a_key(tmp_path: Path) -> None:
    for command in (
        *("activate", "status", "status --all", "expiry", "history", "clear-host", "uninstall-key", "rearm"),
        *("set-domain lab.example", "clear-domain", "host-cache off"),
    ):
        code, result = run(tmp_path, *command.split())
        assert (code, result["code"], result["ok"]) == (1, "0xC004F014", False)


def test_a_mistyped_key_is_located(tmp_path: Path, real_host: RunningHost) -> None:
    wrong = SETUP_KEYS["desktop"][:8] + ("A" if SETUP_KEYS["desktop"][8] != "A" else "B") + SETUP_KEYS["desktop"][9:]
    code, result = run(tmp_path, "install-key", wrong, "--publisher", real_host.realm.publisher_json)
    assert (code, result["code"]) == (1, "0xC004F050")
    assert (result["details"]["group"], result["details"]["character"]) == (2, 3)


def test_a_key_without_publisher_file_is_refused(tmp_path: Path) -> None:
    code, result = run(tmp_path, "install-key", SETUP_KEYS["desktop"])
    assert (code, result["name"]) == (1, "CONFIGURATION_INVALID")
    assert "publisher.json" in result["message"]


def test_a_product_newer_than_the_host_key_says_which_key_is_needed(tmp_path: Path, real_host: RunningHost) -> None:
    install(tmp_path, real_host, "newer")
    code, result = run(tmp_path, "activate")
    assert (code, result["code"], result["signed"]) == (1, "0xC004F042", True)
    assert result["details"]["key_needed"] == "a host key for the family 'desktops' of generation 4 or later"
    assert "generation 4" in show(tmp_path, "activate")


def test_a_low_count_shows_count_and_threshold(tmp_path: Path) -> None:
    with serve(make_realm(tmp_path, threshold=3)) as host:
        for number in range(3):
            install(tmp_path / str(number), host)
        outcomes = [run(tmp_path / str(number), "activate") for number in range(3)]
    assert [code for code, _ in outcomes] == [1, 1, 0]
    refusal = outcomes[1][1]
    assert (refusal["code"], refusal["signed"]) == ("0xC004F038", True)
    assert (refusal["details"]["count"], refusal["details"]["threshold"]) == (2, 3)


def test_clocks_that_differ_are_both_shown(tmp_path: Path, real_host: RunningHost) -> None:
    install(tmp_path, real_host)
    # The command in a process whose clock is five hours behind.
    program = (
        "import sys, time; now = time.time_ns; time.time_ns = lambda: now() - 5 * 3600 * 10**9\n"
        "from kms_fast.cli.main import main; main()"
    )
    command = [sys.executable, "-c", program, "client", "activate", "--home", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert '"code": "0xC004F06C"' in done.stdout
    assert '"client_time"' in done.stdout
    assert '"host_time"' in done.stdout
    assert '"signed": true' in done.stdout


def test_an_unreachable_host_is_named(tmp_path: Path, real_host: RunningHost) -> None:
    install(tmp_path, real_host)
    run(tmp_path, "set-host", "127.0.0.1:1")
    code, result = run(tmp_path, "activate")
    assert (code, result["code"], result["signed"]) == (1, "0xC004F074", False)
    assert result["details"]["hosts"] == [
        {"host": "127.0.0.1:1", "outcome": "unreachable", "code": None, "text": "Connection refused"}
    ]


@pytest.mark.parametrize("address", ["kms:99999", "http://kms", "[::1"])
def test_a_bad_host_is_refused(tmp_path: Path, real_host: RunningHost, address: str) -> None:
    install(tmp_path, real_host)
    code, result = run(tmp_path, "set-host", address)
    assert (code, result["name"]) == (2, "COMMAND_INVALID")


def test_several_products_are_told_apart(tmp_path: Path, real_host: RunningHost) -> None:
    install(tmp_path, real_host)
    code, _ = run(tmp_path, "install-key", SETUP_KEYS["server"])
    assert code == 0
    code, result = run(tmp_path, "activate")
    assert (code, result["name"]) == (1, "CONFIGURATION_INVALID")
    code, result = run(tmp_path, "activate", "--sku", str(SKUS["desktop"].id))
    assert code == 0
    assert [product["state"] for product in run(tmp_path, "status")[1]["products"]] == [1, 2]
    assert run(tmp_path, "uninstall-key", "--sku", str(SKUS["server"].id))[1]["product"] == "Server 1"
    assert len(run(tmp_path, "expiry")[1]["products"]) == 1


def test_products_are_named_as_users_know_them(tmp_path: Path, real_host: RunningHost) -> None:
    install(tmp_path, real_host)
    assert run(tmp_path, "install-key", SETUP_KEYS["server"])[0] == 0
    hint = show(tmp_path, "install-key", SETUP_KEYS["server"])
    assert f"Next: kms-fast client activate --sku {SKUS['server'].id} --home " in hint
    several = run(tmp_path, "activate")[1]["message"]
    installed = f"Desktop 3 ({SKUS['desktop'].id}), Server 1 ({SKUS['server'].id})"
    assert several == f"Keys of several products are installed; say which is meant (--sku): {installed}."
    assert run(tmp_path, "set-host", "192.0.2.7", "--sku", "Server 1")[0] == 0
    [product] = run(tmp_path, "status", "--sku", "Server 1")[1]["products"]
    assert product["host"] == "192.0.2.7:1688"
    assert run(tmp_path, "history", "--sku", "Server 1")[1]["products"][0]["product"] == "Server 1"
    assert run(tmp_path, "activate", "--key", SETUP_KEYS["server"], "--sku", "Desktop 3")[0] == 2
    for unknown in ("Server 2", str(uuid.UUID(int=7))):
        for command in ("activate", "history"):
            code, told = run(tmp_path, command, "--sku", unknown)
            assert (code, told["name"], installed in told["message"]) == (1, "NO_KEY_INSTALLED", True)
    assert run(tmp_path, "uninstall-key", "--sku", "Server 1")[0] == 0
    assert len(run(tmp_path, "status", "--all", "--sku", "Server 1")[1]["products"]) == 1


def test_rearm_makes_a_new_machine(tmp_path: Path, real_host: RunningHost) -> None:
    install(tmp_path, real_host)
    assert run(tmp_path, "activate")[0] == 0
    assert run(tmp_path, "rearm") == (0, {"ok": True, "rearms_left": 4})
    assert run(tmp_path, "expiry")[1]["products"][0]["state"] == 2


def test_clear_host_looks_up_again(tmp_path: Path, real_host: RunningHost) -> None:
    install(tmp_path, real_host)
    assert run(tmp_path, "clear-host") == (0, {"ok": True, "host": None})
    assert run(tmp_path, "status")[1]["products"][0]["host"] is None


def test_domain_and_host_cache(tmp_path: Path, real_host: RunningHost) -> None:
    install(tmp_path, real_host)
    assert run(tmp_path, "set-domain", "lab.example.") == (0, {"ok": True, "domain": "lab.example"})
    assert run(tmp_path, "host-cache", "off") == (0, {"ok": True, "host_cache": False})
    [product] = run(tmp_path, "status")[1]["products"]
    assert (product["domain"], product["host_cache"]) == ("lab.example", False)
    assert run(tmp_path, "clear-host")[0] == 0
    assert "looked up in lab.example" in show(tmp_path, "status")
    assert run(tmp_path, "clear-domain") == (0, {"ok": True, "domain": None})
    assert run(tmp_path, "host-cache", "on") == (0, {"ok": True, "host_cache": True})
    [product] = run(tmp_path, "status")[1]["products"]
    assert (product["domain"], product["host_cache"]) == (None, True)


@pytest.mark.parametrize("arguments", [("set-domain", "a..b"), ("host-cache", "maybe")])
def test_a_bad_value_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, result = run(tmp_path, *arguments)
    assert (code, result["name"]) == (2, "COMMAND_INVALID")


def test_verbose_status_shows_machine_and_intervals(tmp_path: Path, real_host: RunningHost) -> None:
    install(tmp_path, real_host)
    run(tmp_path, "activate")
    brief, verbose = show(tmp_path, "status"), show(tmp_path, "status", "--verbose")
    for fact in (
        "rearms left       5",
        "service           does not run",
        "renew every       7 d",
        "host cache        on",
    ):
        assert fact in verbose
        assert fact not in brief
    machine = run(tmp_path, "status")[1]["machine"]
    assert (machine["publisher"], machine["service"], machine["rearms_left"]) == ("Testing Ltd", None, 5)


def test_status_of_all_shows_removed_products(tmp_path: Path, real_host: RunningHost) -> None:
    install(tmp_path, real_host)
    run(tmp_path, "uninstall-key")
    for command in ("status", "expiry"):
        code, result = run(tmp_path, command)
        assert (code, result["name"]) == (1, "NO_KEY_INSTALLED")
        assert "removed ones are shown by kms-fast client status --all" in result["message"]
    [product] = run(tmp_path, "status", "--all")[1]["products"]
    assert (product["product"], product["state"], product["key_last_five"]) == ("Desktop 3", 0, None)
    assert "setup key         removed" in show(tmp_path, "status", "--all")


def test_a_product_that_the_publisher_gave_up(realm: Realm, tmp_path: Path) -> None:
    home, server = make_client_home(tmp_path / "client-home", realm, "desktop", "server"), str(SKUS["server"].id)
    give_up(realm, "server")
    assert run(home, "install-key", SETUP_KEYS["desktop"], "--publisher", realm.publisher_json)[0] == 0
    assert len(run(home, "expiry")[1]["products"]) == 1
    code, told = run(home, "status")
    assert (code, [product["product"] for product in told["products"]]) == (0, ["Desktop 3"])
    assert told["unlisted"] == [server]
    assert f"remove the product's key: kms-fast client uninstall-key --sku {server}." in show(home, "status")
    assert len(run(home, "history")[1]["products"]) == 1
    assert run(home, "uninstall-key", "--sku", str(SKUS["desktop"].id))[1]["product"] == "Desktop 3"
    for command in ("status", "expiry"):
        code, told = run(home, command)
        assert (code, "The publisher has given the product" in told["message"]) == (1, True)
    assert run(home, "uninstall-key", "--sku", server)[1] == {"ok": True, "product": None, "sku": server}
    assert run(home, "status")[1]["name"] == "NO_KEY_INSTALLED"


def test_history_tells_each_attempt(tmp_path: Path, real_host: RunningHost) -> None:
    install(tmp_path, real_host)
    assert "no attempt yet" in show(tmp_path, "history")
    run(tmp_path, "activate")
    run(tmp_path, "set-host", "127.0.0.1:1")
    for _ in range(2):
        run(tmp_path, "activate")
    [product] = run(tmp_path, "history")[1]["products"]
    assert [(one["name"], one["times"]) for one in product["attempts"]] == [("ACTIVATED", 1), ("NO_HOST_REACHED", 2)]
    text = show(tmp_path, "history", "--sku", product["sku"])
    assert re.search(r"0x00000000 ACTIVATED  count \d+ of 1  host's clock [+-]\d+\.\d s", text)
    assert "2 times  127.0.0.1:1  0xC004F074 NO_HOST_REACHED" in text
    assert "Connection refused" in text


def test_one_command_installs_the_key_and_sets_the_host(real_host: RunningHost, tmp_path: Path) -> None:
    realm, address = real_host.realm, "{}:{}".format(*real_host.address)
    options = ["--publisher", realm.publisher_json, "--host", address, "--key"]
    code, told, _ = run_cli("client", "activate", *options, SETUP_KEYS["desktop"][:-1], home=tmp_path)
    assert (code, told["name"]) == (1, "KEY_INVALID")
    code, told, _ = run_cli("client", "activate", *options, SETUP_KEYS["desktop"], home=tmp_path)
    assert (code, told["state_name"], told["host"]) == (0, "licensed", address)
    other = ["--key", SETUP_KEYS["server"], "--sku", realm.skus["desktop"].id]
    code, told, _ = run_cli("client", "activate", *map(str, other), home=tmp_path)
    assert (code, told["name"]) == (2, "COMMAND_INVALID")
