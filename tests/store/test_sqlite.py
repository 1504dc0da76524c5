"""Opening SQLite files: migrations, files of newer programs, files that are none."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import apsw
import pytest

from kms_fast.errors import KmsFastError
from kms_fast.store.sqlite import SqliteFile
from tests.conftest import ROOT
from tests.faked import protect

FIRST = "CREATE TABLE fruit (name TEXT) STRICT; INSERT INTO fruit VALUES ('apple');"
SECOND = "ALTER TABLE fruit ADD COLUMN colour TEXT DEFAULT 'red';"


def open_file(path: Path, migrations: Sequence[str]) -> SqliteFile:
    return SqliteFile(path, "fruit", migrations, without_it="it grows again")


async def read_fruit(path: Path, *migrations: str) -> list[tuple[str, ...]]:
    file = open_file(path, migrations)
    rows = await file.in_thread(lambda: file.db.execute("SELECT * FROM fruit").fetchall())
    await file.close()
    return rows


async def test_a_file_is_made_and_migrated_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "fruit.db"
    assert await read_fruit(path, FIRST) == [("apple",)]
    assert await read_fruit(path, FIRST, SECOND) == [("apple", "red")]
    assert await read_fruit(path, FIRST, SECOND) == [("apple", "red")]


async def test_only_its_owner_reads_a_new_file(tmp_path: Path) -> None:
    file = open_file(tmp_path / "fruit.db", [FIRST])
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "fruit.db": 0o600,
        "fruit.db-wal": 0o600,
        "fruit.db-shm": 0o600,
    }
    await file.close()


async def test_a_file_that_is_there_keeps_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "fruit.db"
    await read_fruit(path, FIRST)
    path.chmod(0o640)
    await read_fruit(path, FIRST)
    assert path.stat().st_mode & 0o777 == 0o640


async def test_a_new_file_gets_all_migrations(tmp_path: Path) -> None:
    assert await read_fruit(tmp_path / "fruit.db", FIRST, SECOND) == [("apple", "red")]


async def test_a_file_of_a_newer_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "fruit.db"
    await read_fruit(path, FIRST, SECOND)
    with pytest.raises(KmsFastError, match=r"version 2; this program knows 1") as caught:
        open_file(path, [FIRST])
    assert caught.value.result.name == "STORE_VERSION"
    assert await read_fruit(path, FIRST, SECOND) == [("apple", "red")]


async def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "fruit.db"
    await read_fruit(path, FIRST)
    with pytest.raises(KmsFastError, match="cannot be used") as caught:
        open_file(path, [FIRST, f"{SECOND} INSERT INTO nowhere VALUES (1);"])
    assert caught.value.result.name == "STORAGE_FAILED"
    assert await read_fruit(path, FIRST) == [("apple",)]


async def test_an_error_undoes_a_transaction(tmp_path: Path) -> None:
    file = open_file(tmp_path / "fruit.db", [FIRST])

    def fail() -> None:
        with file.transaction():
            file.db.execute("DELETE FROM fruit")
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        await file.in_thread(fail)
    assert file.db.execute("SELECT * FROM fruit").fetchall() == [("apple",)]
    await file.close()


def test_commits_are_synced(tmp_path: Path) -> None:
    file = open_file(tmp_path / "fruit.db", [FIRST])
    assert file.db.pragma("journal_mode") == "wal"
    assert file.db.pragma("synchronous") == 2


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fruit.db"
    path.write_bytes(content)
    with pytest.raises(KmsFastError, match=r"The fruit in .*fruit\.db cannot be used: .* it grows again\.") as caught:
        open_file(path, [FIRST])
    assert caught.value.result.name == "STORE_DAMAGED"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KmsFastError, match=r"fruit\.db cannot be used: No such file or directory") as caught:
        open_file(tmp_path / "missing" / "fruit.db", [FIRST])
    assert caught.value.result.name == "STORAGE_FAILED"


def test_a_new_file_that_two_open_at_once_is_migrated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fruit.db"
    versions = iter([0])

    def look_before_the_other_is_done(self: SqliteFile) -> int:
        return next(versions, None) or int(self.db.pragma("user_version"))

    open_file(path, [FIRST])
    monkeypatch.setattr(SqliteFile, "_version", look_before_the_other_is_done)
    open_file(path, [FIRST])
    assert apsw.Connection(str(path)).execute("SELECT count(*) FROM fruit").fetchone() == (1,)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(KmsFastError, match="must be able to read the file") as caught:
        SqliteFile(tmp_path, "counts", [], without_it="")
    assert caught.value.result.name == "STORAGE_FAILED"


_COPY_AND_CHECK = """
import sys
from pathlib import Path
from kms_fast.sqlite import copy_database
from kms_fast.store.check import check_sqlite_file

copy_database(Path(sys.argv[1]), Path(sys.argv[2]))
print(list(check_sqlite_file(Path(sys.argv[1]))))
"""


async def test_a_file_that_cannot_be_written_is_copied_and_checked(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, unavailable: Callable[[str], NoReturn]
) -> None:
    source, copy = tmp_path / "fruit.db", tmp_path_factory.mktemp("copy") / "copy.db"
    await read_fruit(source, FIRST)
    program = [*protect(tmp_path, unavailable), sys.executable, "-c", _COPY_AND_CHECK, str(source), str(copy)]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
    assert await read_fruit(copy, FIRST) == [("apple",)]
    # With a log beside it the file alone is not all.
    copy.unlink()
    Path(f"{source}-wal").write_bytes(b"")
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "while it is in use to write to it" in done.stderr
