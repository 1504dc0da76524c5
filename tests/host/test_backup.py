"""Backups of hosts that run, and hosts made from them: whole or not at all."""

import io
import json
import os
import tarfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from kms_fast.errors import ConfigurationError, KmsFastError, LedgerError
from kms_fast.host.backup import Contents, restore_backup, write_backup
from kms_fast.host.enrolment import read_installation
from kms_fast.host.prune import prune_ledger
from kms_fast.host.rollback import check_rollback
from kms_fast.host.segment import list_segments
from kms_fast.store import Watermark
from tests.batches import BatchMaker
from tests.hosts import PUBLISHER_ID, Realm
from tests.ledgers import Worker, change, mark, offsets, verify, write_segment
from tests.reference.ledger import check_ledger

pytestmark = pytest.mark.usefixtures("small_steps")

CREATED_MS = 1_700_000_000_000


def raise_it(error: LedgerError) -> None:
    raise error


def back_up(
    realm: Realm,
    target: Path,
    marks: Sequence[Watermark] = (),
    *,
    with_databases: bool = True,
    on_damage: Callable[[LedgerError], None] = raise_it,
) -> Path:
    write_backup(
        realm.home / "host",
        target,
        with_databases=with_databases,
        read_watermarks=lambda: marks,
        created_ms=CREATED_MS,
        on_progress=lambda copied: None,
        on_damage=on_damage,
    )
    return target


def restore(archive: Path, home: Path) -> Contents:
    return restore_backup(archive, home, lambda copied: None)


@pytest.fixture
def archive(realm: Realm, requests: list[bytes], tmp_path: Path) -> Path:
    write_segment(realm, requests)
    write_segment(realm, requests)
    return back_up(realm, tmp_path / "backup.tar")


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_restored_host_is_the_one_that_was_backed_up(realm: Realm, archive: Path, tmp_path: Path) -> None:
    contents = restore(archive, tmp_path / "new")
    restored = read_all(tmp_path / "new" / "host")
    assert json.loads(restored.pop("ledger/restored.json")) == {"backup_created_ms": CREATED_MS}
    assert restored == read_all(realm.home / "host")
    assert contents.files.keys() == restored.keys()
    assert contents.created_ms == CREATED_MS
    installation = read_installation(tmp_path / "new" / "host")
    assert installation.certificate == read_installation(realm.home / "host").certificate


def test_only_the_owner_reads_any_of_it(archive: Path, tmp_path: Path) -> None:
    restore(archive, tmp_path / "new")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert archive.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new" / "host" / "ledger").stat().st_mode & 0o777 == 0o700


def test_databases_are_copied_as_of_one_moment(realm: Realm, tmp_path: Path) -> None:
    """What is only in the write-ahead log is in the copy, which needs none."""
    db = apsw.Connection(str(realm.home / "host" / "counts.db"))
    db.pragma("journal_mode", "wal")
    db.execute("CREATE TABLE t (x); INSERT INTO t VALUES (7)")
    db.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES (8)")
    restore(back_up(realm, tmp_path / "backup.tar"), tmp_path / "new")
    db.execute("COMMIT")
    folder = tmp_path / "new" / "host"
    assert sorted(path.name for path in folder.glob("counts*")) == ["counts.db"]
    assert apsw.Connection(str(folder / "counts.db")).execute("SELECT x FROM t").fetchall() == [(7,)]
    assert sorted(path.name for path in tmp_path.iterdir() if "backup" in path.name) == ["backup.tar"]


def test_a_file_that_another_puts_in_the_place_of_the_copy(
    realm: Realm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written to what its name leads to."""
    apsw.Connection(str(realm.home / "host" / "counts.db")).execute("CREATE TABLE t (x)")
    theirs = tmp_path / "theirs"
    theirs.touch()
    unlink = Path.unlink

    def unlink_and_plant(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        if path.name.endswith(".database"):
            path.symlink_to(theirs)

    monkeypatch.setattr(Path, "unlink", unlink_and_plant)
    with pytest.raises(FileExistsError):
        back_up(realm, tmp_path / "backup.tar")
    assert theirs.read_bytes() == b""


def test_of_hosts_that_write_and_open_segments(realm: Realm, requests: list[bytes], tmp_path: Path) -> None:
    """Every backup that is taken meanwhile verifies: whatever a block continues is there."""
    workers = [Worker(realm, requests) for _ in range(2)]
    done = threading.Event()

    def write() -> None:
        for turn in range(60):
            workers[turn % 2].write()
            if turn % 5 == 0:
                workers[turn % 2].rotate()
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    backups = 0
    while not done.is_set() or backups < 3:
        home = tmp_path / f"new-{backups}"
        restore(back_up(realm, tmp_path / "backup.tar"), home)
        check_ledger(home / "host" / "ledger", [realm.root], PUBLISHER_ID)
        assert verify(replace(realm, home=home)).torn_tails == 0
        backups += 1
    thread.join()


def test_copying_earlier_segments_first_would_not_do(realm: Realm, requests: list[bytes], tmp_path: Path) -> None:
    """The negative control: the other order finds a block that continues what was not copied."""
    worker = Worker(realm, requests)
    copy = worker.ledger.path.read_bytes()
    worker.write()
    Worker(realm, requests)
    home = tmp_path / "new"
    (home / "host").mkdir(parents=True)
    ledger = home / "host" / "ledger"
    ledger.mkdir()
    for path in list_segments(worker.maker.folder):
        (ledger / path.name).write_bytes(path.read_bytes())
    (ledger / worker.ledger.path.name).write_bytes(copy)
    with pytest.raises(LedgerError, match="at a batch that is not there"):
        verify(replace(realm, home=home))


def test_a_tail_that_was_cut_short_stays_behind(realm: Realm, requests: list[bytes], tmp_path: Path) -> None:
    path = write_segment(realm, requests, end=False)
    os.truncate(path, offsets()[3] - 10)
    restore(back_up(realm, tmp_path / "backup.tar"), tmp_path / "new")
    copy = tmp_path / "new" / "host" / "ledger" / path.name
    assert copy.read_bytes() == path.read_bytes()[: offsets()[2]]


def test_of_a_damaged_ledger_there_is_none(realm: Realm, requests: list[bytes], tmp_path: Path) -> None:
    change(write_segment(realm, requests), offsets()[1] + 200)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(LedgerError, match="behind batch 1"):
        back_up(realm, tmp_path / "backup.tar")
    assert sorted(tmp_path.iterdir()) == before


def refuse(realm: Realm, target: Path, marks: Sequence[Watermark] = ()) -> LedgerError:
    before = sorted(target.parent.iterdir())
    with pytest.raises(LedgerError) as caught:
        back_up(realm, target, marks)
    assert caught.value.result.name == "LEDGER_DAMAGED"
    assert sorted(target.parent.iterdir()) == before
    return caught.value


@pytest.mark.parametrize("end", [True, False], ids=["ended", "killed"])
def test_a_damaged_last_record_that_a_later_segment_continues(
    realm: Realm, requests: list[bytes], tmp_path: Path, end: bool
) -> None:
    """By itself it looks like one that was cut short."""
    path = write_segment(realm, requests, end=end)
    write_segment(realm, requests)
    change(path, offsets()[2] + 200)
    error = refuse(realm, tmp_path / "backup.tar")
    assert (error.details["file"], error.details["offset"]) == (str(path), offsets()[2])


def test_a_damaged_last_record_of_a_segment_that_was_written_to_when_it_was_continued(
    realm: Realm, requests: list[bytes], tmp_path: Path
) -> None:
    worker = Worker(realm, requests)
    worker.write(3)
    write_segment(realm, requests)
    back_up(realm, tmp_path / "backup.tar")
    worker.write()
    back_up(realm, tmp_path / "backup.tar")
    third, fourth = offsets((2, 2, 2, 2))[2:4]
    change(worker.ledger.path, fourth + 200)
    back_up(realm, tmp_path / "backup.tar")
    change(worker.ledger.path, third + 200)
    refuse(realm, tmp_path / "backup.tar")


def test_a_damaged_last_record_that_the_inventory_has(realm: Realm, requests: list[bytes], tmp_path: Path) -> None:
    path = write_segment(realm, requests)
    marks = [mark(path, 2), mark(path)]
    change(path, offsets()[2] + 200)
    back_up(realm, tmp_path / "backup.tar", marks[:1])
    assert refuse(realm, tmp_path / "backup.tar", marks[1:]).details["segment"] == 1


def test_a_segment_that_is_gone(realm: Realm, requests: list[bytes], tmp_path: Path) -> None:
    first, second = write_segment(realm, requests), write_segment(realm, requests)
    marks = [mark(second)]
    first.unlink()
    assert refuse(realm, tmp_path / "backup.tar").details["segment"] == 1
    second.unlink()
    assert refuse(realm, tmp_path / "backup.tar", marks).details["segment"] == 2


def test_what_is_damaged_is_copied_as_it_lies(realm: Realm, requests: list[bytes], tmp_path: Path) -> None:
    paths = [write_segment(realm, requests) for _ in range(4)]
    change(paths[0], 100)
    change(paths[1], offsets()[1] + 200)
    paths[2].unlink()
    found: list[LedgerError] = []
    restore(back_up(realm, tmp_path / "backup.tar", on_damage=found.append), tmp_path / "new")
    complaints = ["behind batch 1", "first block", "lacks segment 3"]
    assert [complaint in error.message for complaint, error in zip(complaints, found, strict=True)] == [True] * 3
    copies = {path.name: path.read_bytes() for path in (tmp_path / "new" / "host" / "ledger").glob("*.kfl")}
    assert copies == {path.name: path.read_bytes() for path in (paths[0], paths[1], paths[3])}


def test_what_is_known_to_be_lost_holds_no_backup_up(realm: Realm, requests: list[bytes], tmp_path: Path) -> None:
    first, second = write_segment(realm, requests), write_segment(realm, requests)
    marks = [mark(first), mark(second)]
    first.unlink()
    change(second, offsets()[2] + 200)
    installation = read_installation(realm.home / "host")
    check_rollback(
        realm.home / "host" / "ledger",
        marks,
        host_id=installation.certificate.host_id,
        certificates=installation.chain_data,
        accept=True,
    )
    write_segment(realm, requests)
    restore(back_up(realm, tmp_path / "backup.tar", marks), tmp_path / "new")
    assert verify(replace(realm, home=tmp_path / "new")).lost_heads == 2


def test_pruned_and_empty_segments_are_whole(realm: Realm, requests: list[bytes], tmp_path: Path) -> None:
    first = write_segment(realm, requests)
    marks = [mark(first)]
    for sizes in ((), (), (1,)):
        write_segment(realm, requests, sizes)
    prune_ledger(first.parent, marks, before_ms=1 << 62)
    restore(back_up(realm, tmp_path / "backup.tar", marks), tmp_path / "new")
    assert verify(replace(realm, home=tmp_path / "new")).pruned_segments == 1


def test_files_of_an_earlier_store_stay_behind(realm: Realm, tmp_path: Path) -> None:
    for name in ("counts.db", "inventory.db"):
        apsw.Connection(str(realm.home / "host" / name)).execute("CREATE TABLE t (x)")
    contents = restore(back_up(realm, tmp_path / "backup.tar", with_databases=False), tmp_path / "new")
    assert not [name for name in contents.files if name.endswith(".db")]


def test_an_earlier_backup_is_replaced_whole(realm: Realm, archive: Path, requests: list[bytes]) -> None:
    before = archive.read_bytes()
    change(write_segment(realm, requests), offsets()[1] + 200)
    with pytest.raises(LedgerError):
        back_up(realm, archive)
    assert archive.read_bytes() == before


@pytest.mark.parametrize("name", ["host", "host/.hidden", "host/file"])
def test_a_folder_that_is_not_empty(archive: Path, tmp_path: Path, name: str) -> None:
    home = tmp_path / "new"
    (home / name).parent.mkdir(parents=True)
    (home / name).touch()
    with pytest.raises(ConfigurationError, match="host is not empty"):
        restore(archive, home)
    assert [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()] == [name]


def test_a_machine_s_folders(archive: Path, tmp_path: Path) -> None:
    """As systemd-tmpfiles makes them: a client's beside the host's, which is empty and another user's."""
    home = tmp_path / "new"
    for name in ("host", "client"):
        (home / name).mkdir(parents=True)
    (home / "client" / "state.json").touch()
    owner = 4711 if os.geteuid() == 0 else os.geteuid()
    os.chown(home / "host", owner, -1)
    restore(archive, home)
    assert {path.stat().st_uid for path in (home / "host", *(home / "host").rglob("*"))} == {owner}
    assert (home / "client" / "state.json").exists()


def test_a_restoration_that_was_killed_can_be_repeated(archive: Path, tmp_path: Path) -> None:
    home = tmp_path / "new"
    (home / ".restoring" / "ledger").mkdir(parents=True)
    (home / ".restoring" / "host.key").write_bytes(b"half")
    restore(archive, home)
    assert [path.name for path in home.iterdir()] == ["host"]


def damage_nothing_but(archive: Path, home: Path, complaint: str) -> None:
    with pytest.raises(KmsFastError, match=complaint) as caught:
        restore(archive, home)
    assert caught.value.result.name == "BACKUP_DAMAGED"
    assert not home.exists()


def test_a_failed_restoration_removes_the_folders_it_made(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(b"")
    (tmp_path / "mine").mkdir()
    damage_nothing_but(archive, tmp_path / "mine" / "new" / "home", "is not a whole backup")
    assert list((tmp_path / "mine").iterdir()) == []
    with pytest.raises(KmsFastError, match="is not a whole backup"):
        restore(archive, tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_cut_archive_restores_nothing(archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    with tarfile.open(archive) as opened:
        end = opened.getmember("backup.json").offset_data
    for size in (0, 100, 512, 700, 5_000, 20_000, end - 512, end, end + 10):
        archive.write_bytes(data[:size])
        damage_nothing_but(archive, tmp_path / "new", "is not a whole backup")


def test_any_changed_file_restores_nothing(archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    with tarfile.open(archive) as opened:
        members = [(member.name, member.offset_data, member.size) for member in opened]
    for name, offset, size in members:
        for at in (offset, offset + size - 1):
            changed = bytearray(data)
            changed[at] ^= 1
            archive.write_bytes(changed)
            damage_nothing_but(archive, tmp_path / "new", "is not a whole backup" if name == "backup.json" else name)


def rewrite(archive: Path, edit: Callable[[dict[str, bytes]], None]) -> None:
    with tarfile.open(archive) as opened:
        files = {member.name: opened.extractfile(member).read() for member in opened}  # type: ignore[union-attr]
    edit(files)
    with tarfile.open(archive, "w") as written:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            written.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "ledger/../../escape", "other", "ledger/x.kfl"])
def test_what_does_not_belong_there(archive: Path, tmp_path: Path, name: str) -> None:
    def edit(files: dict[str, bytes]) -> None:
        contents = files.pop("backup.json")
        files[name] = b"content"
        files["backup.json"] = contents

    rewrite(archive, edit)
    damage_nothing_but(archive, tmp_path / "new", "does not belong there")
    assert not (tmp_path / "escape").exists()


def test_a_missing_file(archive: Path, tmp_path: Path) -> None:
    rewrite(archive, lambda files: files.pop("host.key") and None)
    damage_nothing_but(archive, tmp_path / "new", "host.key is not what was backed up")


def test_links_are_not_followed(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive, "w") as written:
        entry = tarfile.TarInfo("host.key")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        written.addfile(entry)
    damage_nothing_but(archive, tmp_path / "new", "does not belong there")


def test_an_archive_of_a_later_format(archive: Path, tmp_path: Path) -> None:
    def edit(files: dict[str, bytes]) -> None:
        files["backup.json"] = files["backup.json"].replace(b"kms_fast backup 1", b"kms_fast backup 2")

    rewrite(archive, edit)
    damage_nothing_but(archive, tmp_path / "new", "its format is 'kms_fast backup 2'")


def test_a_host_goes_on_after_a_restoration(realm: Realm, archive: Path, requests: list[bytes], tmp_path: Path) -> None:
    restore(archive, tmp_path / "new")
    restored = replace(realm, home=tmp_path / "new")
    write_segment(restored, requests)
    assert verify(restored).segments == 3
    assert BatchMaker(restored).folder.exists()
