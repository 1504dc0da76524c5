"""PostgreSQL: a database with the store's tables, and a server that a module may break."""

import logging
from collections.abc import Callable, Iterator

import pytest

from kms_fast.store import postgres
from kms_fast.store.postgres import migrate
from tests.postgres import PASSWORD, PostgresServer


@pytest.fixture
async def migrated_url(postgres_url: str) -> str:
    """URL of a database that is migrated and empty."""
    await migrate(postgres_url)
    return postgres_url


@pytest.fixture(scope="module")
def server(start_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    """A server of this module's own, which it stops, kills and configures."""
    return start_postgres()


@pytest.fixture
async def url(server: PostgresServer) -> str:
    """URL of that server's database, with new tables."""
    server.execute("DROP SCHEMA IF EXISTS kms_fast CASCADE")
    await migrate(server.url())
    return server.url()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outages in short: a call that hangs keeps its connection for a moment only."""
    monkeypatch.setattr(postgres, "ABANDON_S", 0.2)
    monkeypatch.setattr(postgres, "CONNECT_LIMIT_S", 1.0)
    monkeypatch.setattr(postgres, "LONGEST_PAUSE_S", 0.2)


@pytest.fixture
def no_password_is_told(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails the test when its log has the password."""
    caplog.set_level(logging.DEBUG)
    yield
    assert PASSWORD not in caplog.text
