"""What several processes do to one publisher at once: one after the other, and nothing is lost."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from kms_fast.errors import ConfigurationError
from kms_fast.files import write_atomically
from kms_fast.publisher import private_keys as private_keys_module
from kms_fast.publisher import publisher as publisher_module
from kms_fast.publisher.exporting import export_publisher_file
from kms_fast.publisher.making import check_unused
from kms_fast.publisher.publisher import Publisher
from tests.publishing import NOW_MS, PASSPHRASE

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


def test_renewed_issuers_are_one_after_the_other(publisher: Publisher) -> None:
    run_at_once(publisher.folder, lambda one, _: one.renew_issuer(PASSPHRASE, now_ms=NOW_MS))
    with closing(Publisher(publisher.folder)) as after:
        after.read_issuer_key(PASSPHRASE)
        assert after.issuer.serial == 1 + AT_ONCE


def test_another_passphrase_beside_a_renewal_opens_both_keys_or_the_renewal_fails(publisher: Publisher) -> None:
    new = b"the new passphrase"

    def act(one: Publisher, number: int) -> None:
        if number:
            one.change_passphrase(PASSPHRASE, new)
            return
        with suppress(ConfigurationError):  # it came second, with the old passphrase
            one.renew_issuer(PASSPHRASE, now_ms=NOW_MS)

    run_at_once(publisher.folder, act)
    with closing(Publisher(publisher.folder)) as after:
        after.read_issuer_key(new)
        export_publisher_file(after, new, now_ms=NOW_MS)


def test_one_of_several_makes_the_publisher_and_the_others_are_told(tmp_path: Path) -> None:
    """No other is told that it is not finished, neither before it makes one nor then."""
    folder = tmp_path / "publisher"
    folder.mkdir()  # as systemd-tmpfiles does

    def make(number: int) -> str:
        time.sleep(number * 0.05)
        try:
            check_unused(folder)
            Publisher.create(folder, f"Example {number}", PASSPHRASE, now_ms=NOW_MS).close()
        except ConfigurationError as error:
            return error.message
        return ""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = sorted(pool.map(make, range(AT_ONCE)))
    assert told == ["", *[f"{folder} already holds a publisher; a second one needs a folder of its own: --home."] * 3]
    with closing(Publisher(folder)) as made:
        made.read_issuer_key(PASSPHRASE)
        made.add_product("Desktop 1", "desktop")
        export_publisher_file(made, PASSPHRASE, now_ms=NOW_MS)
