"""A publisher's backup: what is in it, that it fits together, and a publisher made from it."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kms_fast.model.publisher_file import PublisherFile
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.records import SKIPPED_NUMBERS
from tests.activation_services import PASSPHRASE, Example, make_example
from tests.hosts import run_cli


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    monkeypatch.setenv("KMS_FAST_PASSPHRASE", PASSPHRASE)
    return make_example(tmp_path)


def test_a_publisher_whose_service_runs_is_backed_up_and_restored(example: Example) -> None:
    key = example.make_key()
    target = example.folder / "publisher.tar"
    with example.serve() as service:
        assert example.activate("host", service.url, key)[0] == 0
        told = example.publisher("backup", target)
        assert (told["files"], told["root_key"]) == (6, True)
        # What is certified after it is not in it.
        assert example.activate("host", service.url)[1]["serial"] == 2
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert b"BEGIN PRIVATE KEY" not in target.read_bytes()
    new = example.folder / "new"
    code, told, _ = run_cli("publisher", "restore", target, home=new)
    assert (code, told["folder"], told["files"]) == (0, str(new / "publisher"), 6)
    status = run_cli("publisher", "status", home=new)[1]
    assert (status["certificates"], status["host_keys"], status["export_due"]) == (1, 1, False)
    assert run_cli("publisher", "export", home=new)[1]["number"] == SKIPPED_NUMBERS + 2
    args = ("publisher", "certify", example.folder / "host.request", "--out", example.folder / "host.answer")
    code, _, _ = run_cli("host", "request", "--out", example.folder / "host.request", home=example.folder / "host")
    assert code == 0
    code, told, _ = run_cli(*args, home=new)
    # The host has serial 2 of the old publisher: the next one is above whatever that has given out.
    assert (code, told["serial"], told["renewal"]) == (0, SKIPPED_NUMBERS + 2, True)
    code, told, _ = run_cli("host", "apply", example.folder / "host.answer", home=example.folder / "host")
    assert (code, told["serial"]) == (0, SKIPPED_NUMBERS + 2)


def test_without_the_root_key_it_says_so(example: Example) -> None:
    (example.home / "publisher" / "root.key").unlink()
    code, told, warned = run_cli("publisher", "backup", example.folder / "x.tar", home=example.home)
    assert (code, told["root_key"], "root key is not in the folder" in warned) == (0, False, True)


def test_a_home_that_is_not_empty_and_a_backup_that_is_not_whole(example: Example) -> None:
    target = example.folder / "publisher.tar"
    example.publisher("backup", target)
    code, told, _ = run_cli("publisher", "restore", target, home=example.home)
    assert (code, "is not empty" in told["message"]) == (1, True)
    whole = target.read_bytes()
    new = example.folder / "new"
    for data in (whole[:-20_000], whole.replace(b"Example Runner", b"Example Rammer", 1), b"", b"x" * 10_240):
        target.write_bytes(data)
        code, told, _ = run_cli("publisher", "restore", target, home=new)
        assert (code, told["name"]) == (1, "BACKUP_DAMAGED")
        assert not new.exists()
    target.write_bytes(whole)
    code, told, _ = run_cli("host", "restore", target, home=new)
    assert (code, told["name"]) == (1, "BACKUP_DAMAGED")


def test_files_and_records_of_a_backup_belong_together(example: Example) -> None:
    """While exports go on: the number of its publisher.json is the one that its records gave out last."""
    example.make_key()
    busy = subprocess.Popen(
        [sys.executable, "-c", EXPORTS, str(example.home / "publisher"), PASSPHRASE], stdin=subprocess.PIPE
    )
    try:
        for number in range(10):
            target = example.folder / f"{number}.tar"
            example.publisher("backup", target)
            assert run_cli("publisher", "restore", target, home=example.folder / str(number))[0] == 0
            publisher = Publisher(example.folder / str(number) / "publisher")
            exported = PublisherFile.parse((publisher.folder / "publisher.json").read_bytes()).number
            given = publisher.records._integer("SELECT number FROM numbers WHERE kind = 'publisher'")
            publisher.close()
            assert given == exported + SKIPPED_NUMBERS
    finally:
        busy.kill()
        busy.wait(30)
    assert exported > 1


EXPORTS = """
import sys
from pathlib import Path
from kms_fast.publisher.exporting import export_publisher_file
from kms_fast.publisher.publisher import Publisher

publisher = Publisher(Path(sys.argv[1]))
catalog = publisher.folder / "catalog.toml"
text = catalog.read_text()
for number in range(10**6):
    catalog.write_text(text.replace("Example Runner", f"Example Runner {number}"))
    export_publisher_file(publisher, sys.argv[2].encode(), now_ms=1_800_000_000_000)
"""
