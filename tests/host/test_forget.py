"""What a ledger holds of one machine outside its leaves is blanked; everything else stays and proves."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from kms_fast import _core
from kms_fast.errors import KmsFastError, LedgerError
from kms_fast.host import forget as forget_module
from kms_fast.host.export import export_entries
from kms_fast.host.forget import Forgotten, forget_machine, forget_recorded
from kms_fast.host.prune import prune_ledger
from kms_fast.host.segment import CMID_AT, ENTRIES_AT, ENTRY_SIZE
from kms_fast.store import Watermark
from tests.hosts import Realm
from tests.ledgers import Worker, change, mark, offsets, verify, write_segment
from tests.system.asker import Asker

pytestmark = pytest.mark.usefixtures("small_steps")


@pytest.fixture
def cmid() -> bytes:
    return bytes(range(16))


@pytest.fixture
def asked(realm: Realm, cmid: bytes) -> list[bytes]:
    """Requests of one machine and of seven others."""
    asker = Asker.of(realm, "desktop")
    return [asker.ask(cmid=cmid, name=b"secret").request] + [asker.ask(name=b"other").request for _ in range(7)]


def forget(realm: Realm, cmid: bytes) -> Forgotten:
    return forget_machine(realm.home / "host" / "ledger", cmid, lambda forgotten: None)


def entries(realm: Realm) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(export_entries(realm.home / "host" / "ledger")).splitlines()]


def test_name_and_address_go_and_nothing_else(realm: Realm, asked: list[bytes], cmid: bytes) -> None:
    for _ in range(2):
        write_segment(realm, asked, (3, 1))
    before = entries(realm)
    assert forget(realm, cmid) == Forgotten(4, 4, {1: offsets((3, 1))[1], 2: offsets((3, 1))[1]})
    blank = {"name": None, "address": None, "port": None}
    assert entries(realm) == [
        entry | blank if entry["cmid"] == str(uuid.UUID(bytes=cmid)) else entry for entry in before
    ]
    assert b"secret" not in b"".join(path.read_bytes() for path in realm.home.rglob("*.kfl"))
    assert verify(realm).batches == 4


def test_again_finds_nothing_to_blank(realm: Realm, asked: list[bytes], cmid: bytes) -> None:
    path = write_segment(realm, asked)
    forget(realm, cmid)
    content = path.read_bytes()
    assert (forget(realm, cmid).entries, forget(realm, cmid).blanked) == (3, 0)
    assert path.read_bytes() == content


def test_a_machine_that_never_asked(realm: Realm, asked: list[bytes]) -> None:
    path = write_segment(realm, asked)
    content = path.read_bytes()
    assert forget(realm, bytes(15) + b"x") == Forgotten()
    assert path.read_bytes() == content


def test_while_a_host_writes(realm: Realm, asked: list[bytes], cmid: bytes) -> None:
    worker = Worker(realm, asked)
    for turn in range(1, 4):
        worker.write(2)
        assert (forget(realm, cmid).entries, forget(realm, cmid).blanked) == (2 * turn, 0)
    worker.ledger.close()
    assert verify(realm).batches == 6
    assert [entry["name"] for entry in entries(realm)] == [None, "other"] * 6


def test_a_torn_tail_is_blanked_too(realm: Realm, asked: list[bytes], cmid: bytes) -> None:
    path = write_segment(realm, asked, end=False)
    change(path, offsets()[2] + ENTRIES_AT + 20)
    assert (forget(realm, cmid).entries, forget(realm, cmid).blanked) == (2, 0)
    assert b"secret" not in path.read_bytes()
    assert verify(realm).torn_tails == 1


def plant_in_grid(path: Path, record: int, first: int, cmid: bytes) -> None:
    """Puts a CMID into the record, where the grid of entries of the one that begins at ``first`` has one."""
    at = next(at for at in range(first + ENTRIES_AT, record + 10_000, ENTRY_SIZE) if at > record + ENTRIES_AT)
    change(path, at + CMID_AT, cmid)


def test_records_that_come_while_it_reads_are_left(
    realm: Realm, asked: list[bytes], cmid: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie behind the reader of a segment that is held; the grid of the first is not that of the second."""
    worker = Worker(realm, asked)
    worker.write(4)
    first, second = offsets((2, 2))[:2]
    plant_in_grid(worker.ledger.path, second, first, cmid)
    content = worker.ledger.path.read_bytes()

    class EarlyReader:
        """Looked before any of them was there."""

        def __init__(self, descriptor: int, offset: int, pruned: bool) -> None:
            self.offset = offset

        def find_entries(self, cmid: bytes) -> list[tuple[int, int]]:
            return []

    monkeypatch.setattr(_core, "RecordReader", EarlyReader)
    assert forget(realm, cmid) == Forgotten()
    assert worker.ledger.path.read_bytes() == content
    worker.ledger.close()


def test_behind_a_damaged_record_nothing_changes(realm: Realm, asked: list[bytes], cmid: bytes) -> None:
    path = write_segment(realm, asked, (3, 1, 4))
    _, second, third = offsets((3, 1, 4))[:3]
    change(path, second + ENTRIES_AT + 20)
    plant_in_grid(path, third, second, cmid)
    content = path.read_bytes()
    assert forget(realm, cmid).entries == 1
    assert path.read_bytes()[third:] == content[third:]


def test_a_frame_that_is_gone_hides_no_record_behind_it(realm: Realm, asked: list[bytes], cmid: bytes) -> None:
    path = write_segment(realm, asked, (3, 1, 4))
    _, second, third = offsets((3, 1, 4))[:3]
    change(path, second, bytes(8))
    plant_in_grid(path, third, second, cmid)
    content = path.read_bytes()
    with pytest.raises(LedgerError, match="behind batch 1 "):
        forget(realm, cmid)
    assert path.read_bytes() == content


def test_a_torn_tail_without_its_frame(realm: Realm, asked: list[bytes], cmid: bytes) -> None:
    path = write_segment(realm, asked, end=False)
    change(path, offsets()[2], bytes(8))
    assert forget(realm, cmid).entries == 2
    assert b"secret" not in path.read_bytes()


def test_a_pruned_segment_has_nothing(realm: Realm, asked: list[bytes], cmid: bytes) -> None:
    first = write_segment(realm, asked)
    write_segment(realm, asked)
    prune_ledger(first.parent, [mark(first)], before_ms=1 << 62)
    content = first.read_bytes()
    assert (forget(realm, cmid).entries, b"secret" in content) == (3, False)
    assert first.read_bytes() == content


def test_whether_an_inventory_has_taken_it_up(realm: Realm, asked: list[bytes], cmid: bytes) -> None:
    first, second = write_segment(realm, asked), write_segment(realm, asked)
    forgotten = forget(realm, cmid)
    at = offsets()[2]
    assert forgotten.last_records == {1: at, 2: at}

    def watermark(segment: int, offset: int) -> Watermark:
        return Watermark(segment, offset, 1, bytes(32), 0)

    assert forgotten.are_recorded([mark(first), mark(second)])
    assert not forgotten.are_recorded([])
    assert not forgotten.are_recorded([watermark(1, at)])
    assert not forgotten.are_recorded([watermark(1, at), watermark(2, at - 1)])
    assert Forgotten().are_recorded([])


def test_a_disk_that_fails(realm: Realm, asked: list[bytes], cmid: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    write_segment(realm, asked)

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(KmsFastError, match="Input/output error") as caught:
            forget(realm, cmid)
    assert caught.value.result.name == "STORAGE_FAILED"


def test_only_the_bytes_of_the_document_change(realm: Realm, asked: list[bytes], cmid: bytes) -> None:
    path = write_segment(realm, asked, (2,))
    before = path.read_bytes()
    forget(realm, cmid)
    after = path.read_bytes()
    entry = offsets()[0] + ENTRIES_AT
    changed = {at - entry for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new}
    assert changed <= {*range(118, 182), *range(244, 262)}
    assert after[entry + 118 : entry + 182] == bytes(64)
    assert after[entry + 244 : entry + 262] == bytes(18)
    assert after[entry + ENTRY_SIZE :] == before[entry + ENTRY_SIZE :]


class FakeInventory:
    """Stands in for an inventory whose recorder gets one step further each time it is looked at."""

    def __init__(self, steps: list[list[Watermark]], *, recorder_runs: bool = True) -> None:
        self.steps = steps
        self.recorder_runs = recorder_runs
        self.forgot_at: int | None = None
        self.looks = 0

    async def elect(self, host_id: bytes) -> bool:
        return not self.recorder_runs

    async def watermarks(self, host_id: bytes) -> list[Watermark]:
        self.looks += 1
        return self.steps[min(self.looks, len(self.steps)) - 1]

    async def forget(self, cmid: bytes) -> int:
        self.forgot_at = self.looks
        return 2


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget_module, "_WAIT_S", 0.0)
    monkeypatch.setattr(forget_module, "_WAITS", 5)


async def forget_in(inventory: FakeInventory, forgotten: Forgotten) -> int:
    return await forget_recorded(inventory, bytes(16), bytes(range(16)), forgotten)  # type: ignore[arg-type]


@pytest.mark.usefixtures("patient")
async def test_the_inventory_forgets_once_the_recorder_is_past_the_entries() -> None:
    def at(offset: int) -> list[Watermark]:
        return [Watermark(1, offset, 1, bytes(32), 0)]

    inventory = FakeInventory([[], at(4096), at(4999), at(5000), at(6000)])
    assert await forget_in(inventory, Forgotten(3, 3, {1: 5000})) == 2
    assert inventory.forgot_at == 4


@pytest.mark.usefixtures("patient")
async def test_without_a_recorder_the_inventory_forgets_at_once() -> None:
    inventory = FakeInventory([[]], recorder_runs=False)
    assert await forget_in(inventory, Forgotten(3, 3, {1: 5000})) == 2
    assert inventory.looks == 0


@pytest.mark.usefixtures("patient")
async def test_a_recorder_that_is_stuck() -> None:
    inventory = FakeInventory([[]])
    with pytest.raises(KmsFastError, match="too far behind") as caught:
        await forget_in(inventory, Forgotten(3, 3, {1: 5000}))
    assert caught.value.result.name == "RECORDER_BEHIND"
    assert inventory.forgot_at is None
