"""``kms-fast publisher`` and ``kms-fast host``: from nothing to a certified host, and what people do wrong."""

import asyncio
import json
import os
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kms_fast.cli.main import run
from kms_fast.store.sqlite_counts import SqliteCounts

Command = Callable[..., dict[str, Any]]


PAGE = Path(__file__).parents[2] / "docs" / "publisher.md"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("KMS_FAST_HOME", str(folder))
    monkeypatch.setenv("KMS_FAST_PASSPHRASE", "correct horse")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def succeed(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command with ``--json``; its result."""

    def command(*args: str) -> dict[str, Any]:
        code = run([*args, "--json"])
        output: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert (code, output["ok"]) == (0, True), output
        return output

    return command


@pytest.fixture
def fail(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command that fails with exit code 1, as text and with ``--json``; the failure."""

    def command(*args: str) -> dict[str, Any]:
        assert run(args) == 1
        text = capsys.readouterr()
        assert (text.out, text.err.startswith("error: "), "Traceback" in text.err) == ("", True, False)
        assert run([*args, "--json"]) == 1
        failure: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert failure["ok"] is False
        return failure

    return command


@pytest.fixture
def host_key(succeed: Command) -> str:
    """A publisher with one product, exported; a host key of it."""
    succeed("publisher", "init", "Example")
    succeed("publisher", "add-product", "Desktop 1", "--family", "desktop")
    succeed("publisher", "export", "--out", "publisher.json")
    return str(succeed("publisher", "host-key")["host_key"])


def test_each_step_says_the_next_one(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    steps = [
        (["publisher", "init", "Example"], "kms-fast publisher add-product"),
        (["publisher", "add-product", "Desktop 1", "--family", "desktop"], "kms-fast publisher export"),
        (["publisher", "export", "--out", "publisher.json"], "kms-fast publisher host-key"),
        (["publisher", "host-key"], "kms-fast host request"),
    ]
    for args, following in steps:
        assert run(args) == 0
        output = capsys.readouterr().out
        assert f"Next{', on the host' if 'host request' in following else ''}: {following}" in output
    key = output.splitlines()[0].removeprefix("Host key: ")
    Path("key").write_text(key + "\n")
    assert run(["host", "request", "--publisher", "publisher.json", "--key", "@key", "--out", "host.request"]) == 0
    assert "kms-fast publisher certify host.request" in capsys.readouterr().out
    assert run(["publisher", "certify", "host.request", "--out", "host.answer"]) == 0
    assert "kms-fast host apply host.answer" in capsys.readouterr().out
    assert run(["host", "apply", "host.answer"]) == 0
    said = capsys.readouterr().out
    assert "catalog 1, products: 1.\n" in said
    assert "kms-fast serve" in said
    assert {path.name for path in (home / "host").iterdir()} >= {"host.cert", "catalog.json", "publisher.json"}


def test_the_next_command_can_be_run_as_it_stands(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.delenv("KMS_FAST_PASSPHRASE")
    home = ["--home", "home of keys"]

    def follow(*args: str) -> str:
        assert run(args) == 0
        found = re.search(r"Next: (kms-fast .*)", capsys.readouterr().out)
        assert found is not None
        return found[1]

    added = follow("publisher", "init", "Example", *home, "--key-file", "k")
    assert added == "kms-fast publisher add-product \"PRODUCT\" --family desktop --home 'home of keys'"
    exported = follow(*shlex.split(added)[1:])
    made = follow(*shlex.split(exported)[1:], "--key-file", "k")
    assert run([*shlex.split(made)[1:]]) == 0
    key = capsys.readouterr().out.splitlines()[0].removeprefix("Host key: ")
    assert run(["host", "request", "--publisher", "publisher.json", "--key", key, "--out", "host.request", *home]) == 0
    assert run(["publisher", "certify", "host.request", "--out", "host.answer", *home, "--key-file", "k"]) == 0
    capsys.readouterr()
    exported = follow("publisher", "revoke", "1", *home, "--key-file", "k")
    assert exported == "kms-fast publisher export --home 'home of keys' --key-file k"
    follow(*shlex.split(exported)[1:])
    # What the environment says holds for the next command too.
    monkeypatch.setenv("KMS_FAST_HOME", home[1])
    assert "--home" not in follow("publisher", "export", "--key-file", "k")


def test_the_commands_of_the_publishers_page_work_in_their_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KMS_FAST_PASSPHRASE")
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) >= 10
    key = ""
    for line in lines:
        program, *args = shlex.split(line.replace("HOSTKEY", key))
        assert program == "kms-fast"
        code, output = run(args), capsys.readouterr()
        assert code == 0, f"{line}: {output.err}"
        found = re.match(r"Host key: (\S+)", output.out)
        key = found[1] if found else key


def test_a_revoked_certificate_is_exported(succeed: Command, host_key: str) -> None:
    succeed("host", "request", "--publisher", "publisher.json", "--key", host_key, "--out", "host.request")
    certified = succeed("publisher", "certify", "host.request", "--out", "host.answer", "--days", "10")
    assert (certified["serial"], certified["renewal"], certified["keys"][0]["hosts"]) == (1, False, 1)
    assert succeed("host", "apply", "host.answer")["families"] == {"desktop": 1}
    shown = succeed("host", "status")
    assert (shown["serial"], shown["days_left"], shown["host_keys"]) == (1, 9, [f"…{host_key[-5:]}"])
    assert shown["families"] == {"desktop": {"generation": 1, "count": 0, "threshold": 25, "cap": 50}}
    assert succeed("publisher", "revoke", "1")["revoked"] == [1]
    assert succeed("publisher", "export", "--out", "publisher.json")["revocations"] == 1
    assert succeed("host", "request", "--out", "host.request")["keys"] == [host_key[-5:]]


@pytest.mark.usefixtures("host_key")
def test_a_product_that_is_given_up_is_named_once(succeed: Command, home: Path) -> None:
    succeed("publisher", "add-product", "Desktop 2", "--family", "desktop")
    assert succeed("publisher", "export")["given_up"] == []
    catalog = home / "publisher" / "catalog.toml"
    text = catalog.read_text()
    second = text.rindex("[[sku]]")
    assert "Desktop 2" in text[second:]
    catalog.write_text(text[:second])
    assert succeed("publisher", "export")["given_up"] == ["Desktop 2"]
    assert succeed("publisher", "export")["given_up"] == []


async def count_machines(path: Path, machines: int, now_ms: int) -> None:
    counts = SqliteCounts(path)
    await counts.record(1, [bytes([n + 1]) * 16 for n in range(machines)], now_ms, cap=50, retention_ms=10**9)
    await counts.close()


def test_the_status_of_a_host_shows_counts_and_warns(
    succeed: Command, fail: Command, host_key: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail("host", "status")["name"] == "HOST_NOT_ACTIVATED"
    succeed("host", "request", "--publisher", "publisher.json", "--key", host_key, "--out", "host.request")
    assert fail("host", "status")["name"] == "HOST_NOT_ACTIVATED"
    succeed("publisher", "certify", "host.request", "--out", "host.answer", "--days", "59")
    succeed("host", "apply", "host.answer")
    now_ms = time.time_ns() // 1_000_000
    asyncio.run(count_machines(home / "host" / "counts.db", 3, now_ms))
    assert run(["host", "status"]) == 0
    shown = capsys.readouterr()
    assert "The certificate ends in 58 days" in shown.err
    assert re.search(r"count\s+3\b", shown.out)


def test_a_host_whose_certificate_ended_says_so(
    succeed: Command, fail: Command, host_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeed("host", "request", "--publisher", "publisher.json", "--key", host_key, "--out", "host.request")
    succeed("publisher", "certify", "host.request", "--out", "host.answer", "--days", "1")
    succeed("host", "apply", "host.answer")
    in_two_days_ms = time.time_ns() // 1_000_000 + 2 * 86_400_000
    monkeypatch.setattr("kms_fast.cli.host_online.wall_clock_ms", lambda: in_two_days_ms)
    monkeypatch.setattr("kms_fast.cli.host_status.wall_clock_ms", lambda: in_two_days_ms)
    assert fail("host", "status")["name"] == "HOST_CERTIFICATE_DATES"
    assert fail("host", "apply", "host.answer")["name"] == "CERTIFICATE_DATES"


def test_a_setup_key_is_printed_again(succeed: Command, host_key: str) -> None:
    added = succeed("publisher", "add-product", "Runner", "--family", "ci", "--threshold", "1", "--validity", "2h")
    assert (added["validity_min"], added["threshold"], added["family"]) == (120, 1, "ci")
    shown = succeed("publisher", "client-key", "Runner")
    assert (shown["setup_key"], shown["sku"]) == (added["setup_key"], added["id"])


def test_failures_are_told_apart(succeed: Command, fail: Command, host_key: str, home: Path) -> None:
    setup_key = succeed("publisher", "client-key", "Desktop 1")["setup_key"]
    ask = ("host", "request", "--publisher", "publisher.json", "--out", "host.request", "--key")
    assert fail(*ask, setup_key)["name"] == "KEY_INVALID"
    assert "character" in fail(*ask, host_key[:-1] + ("0" if host_key[-1] != "0" else "1"))["message"]
    assert fail("host", "apply", "missing")["name"] == "STORAGE_FAILED"
    succeed(*ask, host_key)
    assert fail("host", "apply", "host.request")["name"] == "OFFLINE_DATA_MALFORMED"
    assert fail("publisher", "certify", "publisher.json", "--out", "x")["name"] == "OFFLINE_DATA_MALFORMED"
    assert fail("publisher", "init", "Example")["name"] == "CONFIGURATION_INVALID"
    Path("wrong").write_text("wrong passphrase\n")
    locked = fail("publisher", "certify", "host.request", "--out", "x", "--passphrase-file", "wrong")
    assert locked["name"] == "KEY_FILE_LOCKED"
    (home / "publisher" / "catalog.toml").write_text("= 1\n")
    assert "line" in fail("publisher", "host-key")["message"]


def test_a_mistake_says_what_to_do_and_nothing_else(succeed: Command, fail: Command, host_key: str) -> None:
    for args, said in (
        (("publisher", "revoke", "7"), "see kms-fast publisher customers"),
        (("publisher", "change-passphrase", "--home", "none"), "name its home with --home"),
        (("client", "install-key", "X"), "give the publisher's publisher.json (--publisher)"),
    ):
        failure = fail(*args)
        assert (failure["name"], said in failure["message"]) == ("CONFIGURATION_INVALID", True)
        # One cure stands for all of these: it points to none of them in particular.
        assert "kms-fast" not in failure["meaning"] + failure["cure"]


def test_status_shows_the_publisher_file_that_is_there(
    capsys: pytest.CaptureFixture[str], succeed: Command, host_key: str, home: Path
) -> None:
    succeed("publisher", "add-product", "Desktop 2", "--family", "desktop")
    assert run(["publisher", "status"]) == 0
    warning = capsys.readouterr().err
    assert "since publisher.json was exported: run kms-fast publisher export." in warning
    assert "this command again" not in warning
    status = succeed("publisher", "status")
    assert (status["publisher_file"], status["export_due"]) == (1, True)
    (home / "publisher" / "publisher.json").write_bytes(b"{")
    status = succeed("publisher", "status")
    assert (status["publisher_file"], status["export_due"]) == (None, True)


def test_nothing_is_asked_or_made_for_a_publisher_that_is_there(fail: Command, host_key: str) -> None:
    assert "already holds a publisher" in fail("publisher", "init", "Example", "--key-file", "new.pass")["message"]
    assert not Path("new.pass").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["X", "--activation-url", "no url"], "'activation_url' cannot be used: 'no url' is not the address"),
        (["X", "--srv-name", "no name"], "'srv_name' cannot be used: 'no name' is no name in DNS"),
        ([" "], "field 'name' is empty"),
        (["X", "--product", "Runner", "--family", "ci"], "say it with --threshold"),
        (["X", "--product", ""], "has no name"),
        (["X", "--product", "Runner", "--threshold", "100001"], "from 1 to 100000"),
        (["X", "--product", "Runner", "--out", "none/publisher.json"], "there is no folder none"),
    ],
)
def test_nothing_is_asked_or_made_for_a_wrong_value(
    args: list[str], said: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["publisher", "init", *args, "--key-file", "new.pass"]) == 2
    assert said in capsys.readouterr().err
    assert (Path("new.pass").exists(), home.exists()) == (False, False)


def test_a_used_up_key_says_how_much_of_it_is_used(
    succeed: Command, fail: Command, host_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = succeed("publisher", "host-key", "--hosts", "1", "--activations", "1")["host_key"]
    monkeypatch.setattr("kms_fast.host.enrolment.find_installation_id", lambda publisher_id: bytes(16))
    publisher_home = str(tmp_path / "home")
    for number in (1, 2):
        host_home = str(tmp_path / f"host {number}")
        args = ("--publisher", "publisher.json", "--key", key, "--out", f"{number}.request", "--home", host_home)
        succeed("host", "request", *args)
    succeed("publisher", "certify", "1.request", "--out", "1.answer", "--home", publisher_home)
    failure = fail("publisher", "certify", "2.request", "--out", "2.answer", "--home", publisher_home)
    assert (failure["code"], failure["details"]["activations_of_host"]) == ("0xC004C008", 1)
    assert not Path("2.answer").exists()


def test_a_folder_without_rights_is_named(fail: Command, tmp_path: Path) -> None:
    # Root may write everywhere but where the kernel itself says no.
    folder = Path("/sys") if os.geteuid() == 0 else tmp_path / "folder"
    if os.geteuid() != 0:
        folder.mkdir(0o500)
    assert fail("publisher", "init", "Example", "--home", str(folder / "home"))["name"] == "NOT_ALLOWED"


def test_a_folder_that_cannot_be_made_is_named(fail: Command, host_key: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert fail("publisher", "init", "Example", "--home", "file/home")["name"] == "STORAGE_FAILED"
    assert fail("publisher", "export", "--out", "none/publisher.json")["name"] == "STORAGE_FAILED"
    ask = ("host", "request", "--publisher", "publisher.json", "--key", host_key)
    assert fail(*ask, "--home", "file/home", "--out", "x")["name"] == "STORAGE_FAILED"


@pytest.mark.parametrize(
    "args",
    [
        ["publisher", "add-product", "X", "--family", "desktop", "--validity", "5x"],
        ["publisher", "add-product", "X"],
        ["publisher", "host-key", "--family", "desktop:0"],
        ["publisher", "host-key", "--hosts", "0"],
        ["publisher", "host-key", "--hosts", "99999999999999999999"],
        ["publisher", "activation-key", "X", "--machines", "99999999999999999999"],
        ["publisher", "revoke", "99999999999999999999"],
        ["publisher", "log", "--limit", "99999999999999999999"],
        ["publisher", "export", "--key-file", "a", "--passphrase-file", "b"],
        ["publisher", "revoke", "zero"],
        ["publisher", "revoke"],
        ["publisher", "revoke", "1", "--key", "ABCDE"],
        ["publisher", "log", "--since", "yesterday"],
        ["host", "install-key"],
        ["publisher", "init", "Example", "--family", "desktop"],
        ["publisher", "certify", "x"],
        ["host", "request"],
    ],
)
def test_wrong_usage_exits_with_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(args) == 2
    assert "--help" in capsys.readouterr().err


def test_init_with_a_product_leaves_nothing_to_do(succeed: Command) -> None:
    options = ["--product", "Runner", "--family", "ci"]
    assert run(["publisher", "init", "Example", *options]) == 2
    made = succeed("publisher", "init", "Example", *options, "--threshold", "1", "--out", "publisher.json")
    assert made["setup_key"] == succeed("publisher", "client-key", "Runner")["setup_key"]
    succeed("host", "request", "--publisher", "publisher.json", "--key", made["host_key"], "--out", "host.request")
    succeed("publisher", "certify", "host.request", "--out", "host.answer")
    assert succeed("host", "apply", "host.answer")["families"] == {"ci": 1}
