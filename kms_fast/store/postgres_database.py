"""A PostgreSQL database of one's own, made beside the one that a URL names and removed again: for labs."""

import secrets
from urllib.parse import urlsplit

from kms_fast.errors import KmsFastError
from kms_fast.store.postgres import POSTGRES_ERRORS, close, connect, describe, migrate


async def create_database(url: str) -> str:
    """Make a database with the store's tables on the server of ``url``; its URL.

    Raises `KmsFastError` (STORE_UNAVAILABLE), also when the role may not create databases.
    """
    name = f"kms_fast_{secrets.token_hex(6)}"
    await _execute(url, f"CREATE DATABASE {name}")
    created = urlsplit(url)._replace(path=f"/{name}").geturl()
    try:
        await migrate(created)
    except BaseException:
        await drop_database(url, created)
        raise
    return created


async def drop_database(url: str, created: str) -> None:
    """Remove what `create_database` made. Raises `KmsFastError` (STORE_UNAVAILABLE)."""
    await _execute(url, f"DROP DATABASE IF EXISTS {urlsplit(created).path[1:]} WITH (FORCE)")


async def _execute(url: str, statement: str) -> None:
    connection = await connect(url)
    try:
        await connection.execute(statement)
    except POSTGRES_ERRORS as error:
        raise KmsFastError(f"{statement}: {describe(error)}.", name="STORE_UNAVAILABLE") from error
    finally:
        await close(connection)
