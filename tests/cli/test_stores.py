"""Which store is opened for which settings."""

from pathlib import Path

import pytest

from kms_fast.cli.stores import open_counts
from kms_fast.errors import KmsFastError
from kms_fast.model.settings import HostSettings
from kms_fast.store.postgres import migrate
from tests.store.contract import load, record


async def test_counts_in_the_home(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    for expected in ([], [1]):
        counts = await open_counts(HostSettings(), tmp_path)
        assert await record(counts, [1]) == expected
        await counts.close()
    assert (tmp_path / "host" / "counts.db").exists()


async def test_counts_in_postgres(tmp_path: Path, postgres_url: str) -> None:
    settings = HostSettings(store=postgres_url)
    with pytest.raises(KmsFastError, match="has no tables of kms_fast yet"):
        await open_counts(settings, tmp_path)
    await migrate(postgres_url)
    counts = await open_counts(settings, tmp_path)
    await record(counts, [1])
    assert len(await load(counts)) == 1
    await counts.close()
    assert list(tmp_path.iterdir()) == []
