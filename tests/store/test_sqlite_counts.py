"""The contract of counts over SQLite, and what is SQLite's own."""

from pathlib import Path

import apsw
import pytest

from kms_fast.errors import KmsFastError
from kms_fast.store import Counts, sqlite
from kms_fast.store.sqlite_counts import SqliteCounts
from tests.store.contract import CountsContract, OpenCounts, load, record


class TestSqliteCounts(CountsContract):
    @pytest.fixture
    def open_counts(self, tmp_path: Path) -> OpenCounts:
        async def open_counts() -> Counts:
            return SqliteCounts(tmp_path / "counts.db")

        return open_counts


async def test_a_locked_file_is_told_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "WAIT_S", 0.01)
    counts, other = SqliteCounts(tmp_path / "counts.db"), apsw.Connection(str(tmp_path / "counts.db"))
    await record(counts, [1])
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(KmsFastError, match=r"writes to the counts in .*counts\.db, and did not end in time") as caught:
        await record(counts, [2])
    assert caught.value.result.name == "STORE_IN_USE"
    assert len(await load(counts)) == 1
    other.execute("ROLLBACK")
    await record(counts, [2])
    assert len(await load(counts)) == 2
