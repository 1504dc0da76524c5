"""What PostgreSQL finds wrong with its own files; the rest of the checks is tried in tests/cli/test_store.py."""

from collections.abc import Callable

from kms_fast.store.check import check_postgres
from kms_fast.store.postgres import migrate
from kms_fast.store.postgres_inventory import PostgresInventory
from tests.postgres import PostgresServer
from tests.store.inventory_contract import HOST, granted

PAGE_BYTES = 8192


async def test_damaged_pages_are_found(start_postgres: Callable[..., PostgresServer]) -> None:
    server = start_postgres()
    await migrate(server.url())
    inventory = await PostgresInventory.open(server.url())
    assert await inventory.elect(HOST)
    await inventory.record(HOST, [granted(number) for number in range(500)], [], [])
    await inventory.close()
    assert [problem async for problem in check_postgres(server.url())] == []
    path = server.data / server.execute("SELECT pg_relation_filepath('kms_fast.clients')")
    server.stop()
    content = bytearray(path.read_bytes())
    content[PAGE_BYTES + 4000] ^= 1
    path.write_bytes(content)
    server.start()
    [problem] = [problem async for problem in check_postgres(server.url())]
    assert problem.startswith("The table clients cannot be read: invalid page in block 1")
