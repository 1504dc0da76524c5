"""A PostgreSQL database with the store's tables."""

import pytest

from tests.postgres import migrate_database


@pytest.fixture
async def migrated_url(postgres_url: str) -> str:
    """URL of a database that is migrated and empty."""
    await migrate_database(postgres_url)
    return postgres_url
