"""A PostgreSQL database with the store's tables."""

import pytest

from kms_fast.store.postgres import migrate


@pytest.fixture
async def migrated_url(postgres_url: str) -> str:
    """URL of a database that is migrated and empty."""
    await migrate(postgres_url)
    return postgres_url
