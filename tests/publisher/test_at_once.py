"""What several processes do to one publisher at once: one after the other, and nothing is lost."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from kms_fast.files import write_atomically
from kms_fast.publisher import private_keys as private_keys_module
from kms_fast.publisher import publisher as publisher_module
from kms_fast.publisher.publisher import Publisher

AT_ONCE = 4


def run_at_once(folder: Path, action: Callable[[Publisher, int], object]) -> None:
    """Call ``action`` from several threads, each with a publisher of its own, as processes have."""

    def run(number: int) -> None:
        with closing(Publisher(folder)) as publisher:
            action(publisher, number)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(run, range(AT_ONCE)))


@pytest.fixture(autouse=True)
def slow_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others get ahead before each file is written, if they may."""

    def write_late(path: Path, data: bytes, *, mode: int) -> None:
        time.sleep(0.1)
        write_atomically(path, data, mode=mode)

    for module in (private_keys_module, publisher_module):
        monkeypatch.setattr(module, "write_atomically", write_late)


def test_no_product_is_lost(publisher: Publisher) -> None:
    run_at_once(publisher.folder, lambda one, number: one.add_product(f"Added {number}", "desktop"))
    names = {sku.name for sku in publisher.read_catalog().skus}
    assert names == {"Desktop 1", "Server 2", *(f"Added {number}" for number in range(AT_ONCE))}
