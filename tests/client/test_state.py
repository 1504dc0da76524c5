"""The state file: whole or not at all, for its owner only, one writer at a time, never lost."""

import json
import multiprocessing
import os
import uuid
from pathlib import Path

import pytest

from kms_fast.client import Attempt, Client
from kms_fast.client import state as state_module
from kms_fast.client.state import FORMAT, HISTORY_SIZE, MESSAGE_SIZE, Product, State, StateFile, StoredLease
from kms_fast.errors import ConfigurationError
from tests.client.world import DAY_MS, MACHINE, FakeClock

HEAD = b'"format": "kms_fast client state 3", "publisher": "", "cmid": "%s", "hardware_sources": []' % (b"0" * 32)
BAD_SKU = b'{%s, "products": {"no UUID": {}}}' % HEAD


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


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff" * 50, b'{"publisher": 1}', b'{%s, "unknown": 1}' % HEAD, BAD_SKU]
)
def test_a_damaged_file_is_kept_aside(file: StateFile, data: bytes) -> None:
    file.path.write_bytes(data)
    with pytest.raises(ConfigurationError, match="damaged") as caught:
        file.read()
    assert Path(caught.value.details["kept"]).read_bytes() == data
    assert file.read() is None


def test_a_damaged_file_is_kept_aside_with_the_lock_held(file: StateFile) -> None:
    with file.locked():
        file.path.write_bytes(b"{")
        with pytest.raises(ConfigurationError, match="it was kept as"):
            file.read()
        assert not file.path.exists()


def test_a_damaged_file_that_is_only_looked_at_stays(file: StateFile) -> None:
    file.path.write_bytes(b"{")
    with pytest.raises(ConfigurationError, match="left as it is"):
        file.look()
    assert file.path.read_bytes() == b"{"


def test_a_file_that_was_put_right_meanwhile_stays(file: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes it while this one waits for the lock."""
    good = file.path.read_bytes()
    file.path.write_bytes(b"{")
    monkeypatch.setattr(state_module, "_lock", lambda _: file.path.write_bytes(good))
    assert file.read() is not None
    assert sorted(path.name for path in file.path.parent.iterdir()) == ["state.json", "state.lock"]


def test_a_file_of_a_later_format_stays_where_it_is(file: StateFile) -> None:
    file.path.write_text(json.dumps({"format": "kms_fast client state 4", "what": "this version does not know"}))
    with pytest.raises(ConfigurationError, match="client state 4"):
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


@pytest.mark.parametrize("number", [1, 2])
def test_a_file_of_an_earlier_format_is_read_and_becomes_one_of_this(
    tmp_path: Path, clock: FakeClock, number: int
) -> None:
    """``state-N.json`` was written by the last version with that format: one lease, one failure, two products."""
    file = StateFile(tmp_path / "client")
    file.path.parent.mkdir()
    file.path.write_bytes(Path(__file__).with_name(f"state-{number}.json").read_bytes())
    clock.sleep(DAY_MS)
    client = Client(home=tmp_path, clock=clock, read_machine=lambda: MACHINE)
    desktop, server = (client.status(sku.id) for sku in client.skus())
    assert (desktop.state, desktop.host, desktop.domain, desktop.host_cache) == (1, "host:1688", None, True)
    assert desktop.failure is not None
    assert (server.state, server.minutes_left) == (2, 29 * 1440)
    assert [attempts for _, attempts in client.history()] == [[], []]
    client.set_domain("lab.example", desktop.sku.id)
    assert json.loads(file.path.read_bytes())["format"] == FORMAT
    assert client.status(desktop.sku.id).domain == "lab.example"


def attempt(code: int, time_ms: int, host: str = "a:1688") -> Attempt:
    return Attempt(time_ms, time_ms, code, f"at {time_ms}", host)


def test_failures_alike_in_a_row_are_one_line_of_the_history() -> None:
    product = Product("key", 1)
    for made in (
        attempt(5, 1),
        attempt(5, 2),
        attempt(5, 3, "b:1688"),
        attempt(6, 4, "b:1688"),
        attempt(6, 5, "b:1688"),
    ):
        product.note(made)
    assert [(a.code, a.time_ms, a.last_ms, a.times, a.message) for a in product.history] == [
        (5, 1, 2, 2, "at 2"),
        (5, 3, 3, 1, "at 3"),
        (6, 4, 5, 2, "at 5"),
    ]


def test_the_history_keeps_the_newest_and_every_grant() -> None:
    product = Product("key", 1)
    for time_ms in range(HISTORY_SIZE + 5):
        product.note(attempt(0, time_ms))
    assert [a.time_ms for a in product.history] == list(range(5, HISTORY_SIZE + 5))


def test_a_long_message_is_cut_in_the_history() -> None:
    product = Product("key", 1)
    product.note(Attempt(1, 1, 5, "x" * 10_000))
    assert len(product.history[0].message) == MESSAGE_SIZE
