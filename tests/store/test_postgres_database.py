"""Databases of a lab's own."""

import pytest

from kms_fast.errors import KmsFastError
from kms_fast.store import postgres_database
from kms_fast.store.postgres_database import create_database
from tests.postgres import PostgresServer


async def test_a_database_that_cannot_be_migrated_is_removed(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[str]()

    async def fail(url: str) -> int:
        made.extend(postgres_server.execute("SELECT datname FROM pg_database").split())
        raise KmsFastError("no", name="STORE_UNAVAILABLE")

    before = postgres_server.execute("SELECT datname FROM pg_database").split()
    monkeypatch.setattr(postgres_database, "migrate", fail)
    with pytest.raises(KmsFastError, match="no"):
        await create_database(postgres_server.url())
    assert len(made) == len(before) + 1
    assert sorted(postgres_server.execute("SELECT datname FROM pg_database").split()) == sorted(before)
