"""Each result that administrators know, reached by a real situation: what the terminal and ``--json`` say of it.

A row that no client can meet is listed with the test that reaches it.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from kms_fast.client import Client
from kms_fast.results import BY_NAME, RESULTS
from tests.activation_services import PASSPHRASE, make_example
from tests.client.world import SETUP_KEYS, make_client_home
from tests.faked import DAY_S, replace_file, require_clock
from tests.hosts import RunningHost, make_realm, run_cli, serve

ROOT = Path(__file__).parents[2]
OWN_RANGE = 0xE04B0000

ELSEWHERE = {
    "HOST_NOT_ACTIVATED": "tests/cli/test_serve.py::test_json_tells_the_same",
    "HOST_KEY_USED_UP": "tests/cli/test_publisher_service.py::test_refusals_reach_the_hosts_administrator",
}


@dataclass
class World:
    """What a situation is made of. ``unavailable``: call it with what is missing."""

    folder: Path
    host: RunningHost
    unavailable: Callable[[str], NoReturn]
    stack: ExitStack
    monkeypatch: pytest.MonkeyPatch

    @property
    def home(self) -> Path:
        return self.folder / "client-home"

    def install(self, product: str = "desktop", host: RunningHost | None = None) -> Client:
        """A client with this product's key, that asks this host."""
        asked = host or self.host
        return Client(home=make_client_home(self.home, asked.realm, product, host="{}:{}".format(*asked.address)))

    def at(self, ahead_s: float) -> list[str]:
        """What goes in front of a command for a clock that is ahead."""
        clock = require_clock(self.folder, self.unavailable)("other")
        clock.set(ahead_s)
        return clock.command

    def reading(self, path: str, content: str) -> list[str]:
        """What goes in front of a command that reads this content at ``path``."""
        other = self.folder / Path(path).name
        other.write_text(content)
        return replace_file(path, other, self.unavailable)


@dataclass
class Shown:
    """A command, and what it must tell besides the row of the table: in its text, and as details in JSON."""

    arguments: tuple[str, ...]
    before: list[str] = field(default_factory=list)
    text: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def activated(world: World) -> Shown:
    world.install()
    return Shown(("activate",), text="Desktop 3 is activated until")


def count_too_low(world: World) -> Shown:
    host = world.stack.enter_context(serve(make_realm(world.folder / "realm", threshold=3)))
    world.install(host=host)
    return Shown(("activate",), text="has seen 1 of the 3 machines", details={"count": 1, "threshold": 3})


def host_cannot_serve(world: World) -> Shown:
    world.install("newer")
    needed = "a host key for the family 'desktops' of generation 4 or later"
    return Shown(("activate",), text=needed, details={"key_needed": needed, "certified_generation": 3})


def key_invalid(world: World) -> Shown:
    key = SETUP_KEYS["desktop"]
    mistyped = key[:8] + ("A" if key[8] != "A" else "B") + key[9:]
    arguments = ("install-key", mistyped, "--publisher", str(world.host.realm.publisher_json))
    return Shown(arguments, text="Group 2, character 3", details={"group": 2, "character": 3})


def clocks_differ(world: World) -> Shown:
    world.install()
    return Shown(("activate",), world.at(-5 * 3600), text="This machine's clock showed", details={"client_time": ...})


def no_host_reached(world: World) -> Shown:
    world.install().set_host("127.0.0.1:1")
    hosts = [{"host": "127.0.0.1:1", "outcome": "unreachable", "code": None, "text": "Connection refused"}]
    return Shown(("activate",), text="127.0.0.1:1: Connection refused", details={"hosts": hosts})


def no_key_installed(world: World) -> Shown:
    return Shown(("activate",), text="No client setup key is installed")


def hardware_changed(world: World) -> Shown:
    world.install().activate()
    before = world.reading("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    return Shown(("status",), before, text="The activation of Desktop 3 was made on other hardware.")


def multiple_activation_key_used_up(world: World) -> Shown:
    world.monkeypatch.setenv("KMS_FAST_PASSPHRASE", PASSPHRASE)
    example = make_example(world.folder / "publisher")
    service = world.stack.enter_context(example.serve())
    key = str(example.publisher("activation-key", "Example Runner", "--machines", "1")["activation_key"])
    given = ("--publisher", str(example.publisher_json), "--mak", key, "--url", service.url, "--ca", str(example.ca))
    assert run_cli("client", "activate", *given, home=world.folder / "first")[0] == 0
    details = {"publisher_details": {"machines": 1, "machines_allowed": 1}}
    return Shown(("activate", *given), text=f"ends in {key[-5:]} has activated 1 of 1 machines.", details=details)


def offline_data_malformed(world: World) -> Shown:
    damaged = world.folder / "publisher.json"
    damaged.write_bytes(world.host.realm.publisher_json.read_bytes()[:-100])
    return Shown(("install-key", SETUP_KEYS["desktop"], "--publisher", str(damaged)), text="The publisher file")


def grace_ended(world: World) -> Shown:
    world.install()
    return Shown(("status",), world.at(31 * DAY_S), text="The grace period has ended.")


def no_srv_record(world: World) -> Shown:
    world.install().clear_host()
    before = world.reading("/etc/resolv.conf", "nameserver 255.255.255.255\ndomain .\nsearch .\n")
    return Shown(("activate",), before, text="no DNS domain and no search list", details={"names": {}})


def dns_unanswered(world: World) -> Shown:
    world.install().clear_host()
    # An address to which nothing can be sent, so that nobody waits for an answer.
    before = world.reading("/etc/resolv.conf", "nameserver 255.255.255.255\nsearch nothing.invalid\n")
    return Shown(("activate",), before, text="_kms-fast._tcp.nothing.invalid.", details={"names": ...})


def not_allowed(world: World) -> Shown:
    world.install()
    state = world.home / "client" / "state.json"
    state.chmod(0)
    # Root may read any file, unless it gives that right away.
    before = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return Shown(("status",), before, text="state.json: Permission denied", details={"file": str(state)})


SITUATIONS = {
    "ACTIVATED": activated,
    "COUNT_TOO_LOW": count_too_low,
    "HOST_CANNOT_SERVE": host_cannot_serve,
    "KEY_INVALID": key_invalid,
    "CLOCKS_DIFFER": clocks_differ,
    "NO_HOST_REACHED": no_host_reached,
    "NO_KEY_INSTALLED": no_key_installed,
    "HARDWARE_CHANGED": hardware_changed,
    "MULTIPLE_ACTIVATION_KEY_USED_UP": multiple_activation_key_used_up,
    "OFFLINE_DATA_MALFORMED": offline_data_malformed,
    "GRACE_ENDED": grace_ended,
    "NO_SRV_RECORD": no_srv_record,
    "DNS_UNANSWERED": dns_unanswered,
    "NOT_ALLOWED": not_allowed,
}


@pytest.fixture
def world(
    tmp_path: Path,
    real_host: RunningHost,
    unavailable: Callable[[str], NoReturn],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, real_host, unavailable, stack, monkeypatch)


def run(world: World, shown: Shown, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*shown.before, sys.executable, "-m", "kms_fast", "client", *shown.arguments, "--home", str(world.home)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation(name: str, world: World) -> None:
    shown, result = SITUATIONS[name](world), BY_NAME[name]
    in_text, in_json = run(world, shown), run(world, shown, "--json")
    told = json.loads(in_json.stdout)
    assert shown.text in in_text.stdout + in_text.stderr
    if name == "ACTIVATED":
        assert (in_text.returncode, in_json.returncode, told["ok"], told["state_name"]) == (0, 0, True, "licensed")
        return
    assert result.cure in in_text.stdout + in_text.stderr
    assert result.hex in in_text.stdout + in_text.stderr
    if shown.arguments == ("status",) and told["ok"]:
        # A state is no failure of the command that shows it.
        told = told["products"][0]["reason"]
    else:
        assert (in_text.returncode, in_json.returncode, told["ok"]) == (1, 1, False)
        for key, value in shown.details.items():
            assert value in (..., told["details"][key])
    assert (told["code"], told["name"]) == (result.hex, name)
    assert (told["meaning"], told["cure"]) == (result.meaning, result.cure)
    assert shown.text in told["message"]


def test_every_row_that_administrators_know_is_reached() -> None:
    known = {result.name for code, result in RESULTS.items() if code < OWN_RANGE}
    assert known == SITUATIONS.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_reached_elsewhere(name: str) -> None:
    path, _, test = ELSEWHERE[name].partition("::")
    source = (ROOT / path).read_text(encoding="utf-8")
    body = re.search(rf"def {test}\(.*?(?=\n(?:async )?def |\Z)", source, re.DOTALL)
    assert body is not None
    assert name in body[0] or BY_NAME[name].hex in body[0]
