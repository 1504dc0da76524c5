"""Fixtures for ledgers in this process (tests/ledgers.py)."""

from pathlib import Path

import pytest

from kms_fast.host import ledger as ledger_module
from kms_fast.host import range_audit
from tests.hosts import Realm, make_realm
from tests.system.asker import Asker


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments grow by little, so that tests need no 64 MiB each."""
    monkeypatch.setattr(ledger_module, "PREALLOCATE_BYTES", 1 << 20)


@pytest.fixture(scope="session")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Requests of eight machines."""
    asker = Asker.of(make_realm(tmp_path_factory.mktemp("requests")), "desktop")
    return [asker.ask().request for _ in range(8)]


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    """A certified host that has signed nothing yet."""
    return make_realm(tmp_path)


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_audit, "RANGE_RECORDS", 3)
