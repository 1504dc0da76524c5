"""The commands of docs/lost-keys.md, each section on a publisher with an activation service and a host of its own."""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from kms_fast.results import BY_NAME
from tests.activation_services import PASSPHRASE, Example, make_example
from tests.hosts import make_realm, run_cli, serve
from tests.ports import find_free_port

PAGE = (Path(__file__).parents[2] / "docs" / "lost-keys.md").read_text(encoding="utf-8")
SECTIONS = {
    match[1]: re.findall(r"```console\n(.*?)```", match[2], re.DOTALL)
    for match in re.finditer(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}
KEY = re.compile(r"\b[0-9A-Z]{5}(?:-[0-9A-Z]{5}){4}\b")
ROOT = Path(__file__).parents[2]


class Reader:
    """Somebody who types what a section says, on the machine of publisher and host."""

    def __init__(self, folder: Path, home: Path, words: dict[str, str]) -> None:
        self._folder = folder
        self._words = words
        self._environment = {**os.environ, "KMS_FAST_HOME": str(home), "PYTHONPATH": str(ROOT)}

    def type(self, line: str) -> None:
        """Run a line in a shell; a key that it shows is used from then on."""
        for word, value in self._words.items():
            line = line.replace(word, value)
        script = f'kms-fast() {{ "{sys.executable}" -m kms_fast "$@"; }}\n{line}'
        done = subprocess.run(
            ["bash", "-c", script], cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        if "publisher host-key" in line and (found := KEY.search(done.stdout)):
            self._words["HOSTKEY"] = found[0]


def test_every_section_has_commands() -> None:
    assert [name for name, blocks in SECTIONS.items() if not blocks] == []
    assert len(SECTIONS) == 10


@pytest.mark.parametrize("section", SECTIONS)
def test_the_commands_of_a_section(section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMS_FAST_PASSPHRASE", PASSPHRASE)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    listen = f"127.0.0.1:{find_free_port()}"
    example = make_example(tmp_path, activation_url=f"http://{listen}")
    key = example.make_key()
    with example.serve(tls=False, listen=listen):
        given = ("--publisher", example.publisher_json, "--key", key)
        code, told, _ = run_cli("host", "activate", *given, home=example.home)
        assert code == 0, told
        example.publisher("export", "--out", tmp_path / "publisher.json")
        run_host(example)
        words = {"HOSTKEY": key, "LAST5": key[-5:], "HOSTID": told["host_id"], "PRODUCT": "Example Runner"}
        if section == "A multiple-activation key is stolen":
            made = example.publisher("activation-key", "Example Runner", "--machines", "5")
            words["LAST5"] = str(made["activation_key"])[-5:]
        reader = Reader(tmp_path, example.home, words)
        for block in SECTIONS[section]:
            for line in block.splitlines():
                reader.type(line.removeprefix("$ "))
    check(section, example, told["host_id"])


def run_host(example: Example) -> None:
    """Let the host begin a segment of its ledger."""
    realm = replace(make_realm(Path(tempfile.mkdtemp(dir=example.folder))), home=example.home)
    with serve(realm) as host:
        assert host.stop() == 0


def check(section: str, example: Example, host: str) -> None:
    """That it was of use: what a section promises has come about."""
    states = {row["state"] for one in customers(example) for row in one["certificates"] if row["host_id"] == host}
    assert states == ({"revoked"} if section in ("A host key is stolen", "A host is stolen") else {"valid"})
    disabled = [key["disabled"] is not None for key in example.publisher("keys")["keys"]]
    assert disabled[0] == (section in ("A host key is lost", "A host key is stolen", "A host is stolen"))
    if section == "A multiple-activation key is stolen":
        keys = example.publisher("keys")["activation_keys"]
        assert [key["disabled"] is not None for key in keys] == [True, False]
    code, told, _ = run_cli("host", "status", home=example.home)
    assert (code, told.get("name")) == ((0, None))
    if section == "A host key is stolen":
        assert told["host_id"] != host
        run_host(example)
        assert run_cli("ledger", "verify", home=example.home)[1]["segments"] == 1
    if section == "The issuer key is lost":
        assert (example.home / "publisher" / "issuer.key").exists()
    if section == "The passphrase is stolen":
        code, told, _ = run_cli("publisher", "export", home=example.home)
        assert (code, told["name"]) == (1, BY_NAME["KEY_FILE_LOCKED"].name)


def customers(example: Example) -> list[dict[str, list[dict[str, str]]]]:
    listed: list[dict[str, list[dict[str, str]]]] = example.publisher("customers")["customers"]
    return listed
