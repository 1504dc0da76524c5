"""The state file: whole or not at all, for its owner only, one writer at a time, never lost."""

import multiprocessing
import os
import uuid
from pathlib import Path

import pytest

from kms_fast.client.state import Product, State, StateFile, StoredLease
from kms_fast.errors import ConfigurationError

BAD_SKU = b'{"publisher": "", "cmid": "%s", "hardware_sources": [], "products": {"no UUID": {}}}' % (b"0" * 32)


def make_state() -> State:
    lease = StoredLease(b"request", b"answer", 5, "boot", 6, 7)
    return State(
        "{}", uuid.uuid4(), ["machine-id"], products={uuid.UUID(int=1): Product("key", 1, lease=lease, pending=b"p")}
    )


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    file = StateFile(tmp_path / "home" / "client")
    with file.locked():
        file.write(make_state())
    return file


def test_what_was_written_is_read(file: StateFile) -> None:
    state = make_state()
    with file.locked():
        file.write(state)
    assert file.read() == state


def test_there_is_none_at_first(tmp_path: Path) -> None:
    assert StateFile(tmp_path).read() is None


def test_only_the_owner_may_read(file: StateFile) -> None:
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert file.path.with_suffix(".lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff" * 50, b'{"publisher": 1}', b'{"unknown": 1}', BAD_SKU])
def test_a_damaged_file_is_kept_aside(file: StateFile, data: bytes) -> None:
    file.path.write_bytes(data)
    with pytest.raises(ConfigurationError, match="damaged") as caught:
        file.read()
    assert Path(caught.value.details["kept"]).read_bytes() == data
    assert file.read() is None


def test_a_file_of_another_format_stays_where_it_is(file: StateFile) -> None:
    state = make_state()
    state.format = "kms_fast client state 2"
    file.write(state)
    with pytest.raises(ConfigurationError, match="client state 2"):
        file.read()
    assert file.path.exists()


def test_a_failed_write_leaves_the_old_file(file: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        file.write(make_state())
    assert file.path.read_bytes() == before
    assert sorted(path.name for path in file.path.parent.iterdir()) == ["state.json", "state.lock"]


def count_up(folder: Path, times: int) -> None:
    file = StateFile(folder)
    for _ in range(times):
        with file.locked():
            state = file.read()
            assert state is not None
            state.rearms += 1
            file.write(state)


def test_processes_do_not_lose_each_others_changes(file: StateFile) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=count_up, args=(file.path.parent, 20)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    state = file.read()
    assert state is not None
    assert state.rearms == 60


def test_a_setup_key_is_in_no_repr() -> None:
    state = State("{}", uuid.uuid4(), [], products={uuid.UUID(int=1): Product("AAAAA-BBBBB", 1)})
    assert "AAAAA" not in repr(state)
