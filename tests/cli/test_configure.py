"""``host configure``: settings in the home's file, which a host reads, and which nothing wrong ever gets into."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.hosts import Realm, make_realm, run_cli, serve
from tests.reference.rpc import Connection
from tests.system.asker import Asker


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return make_realm(tmp_path)


def file_of(realm: Realm) -> Path:
    return realm.home / "host" / "kms-fast.toml"


def ask_interval(address: tuple[str, int], realm: Realm) -> int:
    """The activation interval (min) of a new machine's lease."""
    asker = Asker.of(realm, "desktop")
    asked = asker.ask()
    with Connection(address) as connection:
        connection.bind()
        interval: int = asker.check(asked, connection.call(asked.request)[0]).leaf.activation_interval
        return interval


def test_a_host_takes_up_what_was_configured(realm: Realm) -> None:
    code, told, _ = run_cli("host", "configure", "--activation-interval", "4h", home=realm.home)
    assert (code, told["settings"], told["file"]) == (0, {"activation_interval": "4h"}, str(file_of(realm)))
    assert file_of(realm).stat().st_mode & 0o777 == 0o600
    with serve(realm) as host:
        assert ask_interval(host.address, realm) == 240
        run_cli("host", "configure", "--activation-interval", "5h", home=realm.home)
        assert ask_interval(host.address, realm) == 240
        assert run_cli("host", "reload", home=realm.home)[0] == 0
        assert ask_interval(host.address, realm) == 300
    with serve(realm, environment={"KMS_FAST_ACTIVATION_INTERVAL": "6h"}) as host:
        assert ask_interval(host.address, realm) == 360
    with serve(realm, "--activation-interval", "7h") as host:
        assert ask_interval(host.address, realm) == 420


def test_what_else_the_file_holds_stays(realm: Realm) -> None:
    file_of(realm).write_text('# ours\nretention = "60d" # long\nworkers = 1\n')
    run_cli("host", "configure", "--renewal-interval", "20d", "--workers", "2", home=realm.home)
    assert file_of(realm).read_text() == '# ours\nretention = "60d" # long\nworkers = 2\nrenewal_interval = "20d"\n'
    code, told, _ = run_cli("host", "configure", "--unset", "workers", home=realm.home)
    assert (code, told["settings"]) == (0, {"workers": 1})
    assert file_of(realm).read_text() == '# ours\nretention = "60d" # long\nrenewal_interval = "20d"\n'


def test_a_file_keeps_its_owner_and_mode(realm: Realm, tmp_path: Path, unavailable: Callable[[str], NoReturn]) -> None:
    if os.geteuid() != 0:
        unavailable("a file of another owner is for root to make")
    config = tmp_path / "host.toml"
    config.write_text("workers = 1\n")
    config.chmod(0o640)
    os.chown(config, 4711, 4712)
    before = config.stat()
    assert run_cli("host", "configure", "--workers", "2", "--config", config, home=realm.home)[0] == 0
    after = config.stat()
    assert config.read_text() == "workers = 2\n"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, 4711, 4712)


def test_files_are_kept_with_their_whole_path(realm: Realm) -> None:
    named = os.path.relpath(__file__)
    run_cli("host", "configure", "--dns-key", named, "--log-file", "kms.log", home=realm.home)
    assert file_of(realm).read_text() == f'dns_key = "{__file__}"\nlog_file = "{Path.cwd() / "kms.log"}"\n'


def test_a_setting_is_unset_by_its_flag_too(realm: Realm) -> None:
    file_of(realm).write_text('renewal_interval = "5d"\n')
    command = [
        sys.executable,
        "-m",
        "kms_fast",
        "host",
        "configure",
        "--unset",
        "renewal-interval",
        "--home",
        realm.home,
    ]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert told.startswith("renewal_interval is not set\n")
    assert file_of(realm).read_text() == ""


def test_a_port_is_that_of_every_address(realm: Realm) -> None:
    run_cli("host", "configure", "--port", "1689", home=realm.home)
    assert file_of(realm).read_text() == 'listen = ["0.0.0.0:1689", "[::]:1689"]\n'
    run_cli("host", "configure", "--listen", "kms.example:1", "--port", "2", home=realm.home)
    assert file_of(realm).read_text() == 'listen = ["kms.example:2"]\n'


@pytest.mark.parametrize(
    ("options", "name", "words"),
    [
        (["--workers", "none"], "COMMAND_INVALID", "--workers none: expected a whole number"),
        (["--renewal-interval", "20d"], "CONFIGURATION_INVALID", "line 2"),
        (["--dns-key", "no-such.key"], "COMMAND_INVALID", "dns_key: there is no file /"),
        (["--unset", "worker"], "COMMAND_INVALID", "'worker' is not one of"),
        ([], "COMMAND_INVALID", "Name an option to set"),
    ],
)
def test_what_is_wrong_changes_nothing(realm: Realm, options: list[str], name: str, words: str) -> None:
    before = 'workers = 1\nretention = "30d"\n'
    file_of(realm).write_text(before)
    code, told, _ = run_cli("host", "configure", *options, home=realm.home)
    assert (code, told["name"]) == (2 if name == "COMMAND_INVALID" else 1, name)
    assert words in told["message"]
    assert file_of(realm).read_text() == before


def test_a_file_that_is_wrong_already_is_named_and_kept(realm: Realm) -> None:
    file_of(realm).write_text("workers = \n")
    code, told, _ = run_cli("host", "configure", "--workers", "2", home=realm.home)
    assert (code, told["name"]) == (1, "CONFIGURATION_INVALID")
    assert str(file_of(realm)) in told["message"]
    assert file_of(realm).read_text() == "workers = \n"


def test_another_file_can_be_named(realm: Realm, tmp_path: Path) -> None:
    run_cli("host", "configure", "--workers", "3", "--config", str(tmp_path / "other.toml"), home=realm.home)
    assert (tmp_path / "other.toml").read_text() == "workers = 3\n"
    assert not file_of(realm).exists()
    shown = run_cli("config", "show", home=realm.home)[1]["settings"]["workers"]
    assert shown == {"value": 1, "source": "default"}
