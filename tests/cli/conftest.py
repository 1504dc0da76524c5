"""Homes and a port for the tests of ``kms-fast doctor``."""

from pathlib import Path

import pytest

from tests.client.world import make_client_home
from tests.hosts import Realm, make_realm
from tests.ports import find_free_port


@pytest.fixture
def free_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Where hosts of these tests are set to listen; nobody does."""
    port = find_free_port()
    monkeypatch.setenv("KMS_FAST_LISTEN", f"127.0.0.1:{port}")
    return port


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return make_realm(tmp_path)


@pytest.fixture
def client_home(tmp_path: Path, realm: Realm) -> Path:
    """The home of a client with a setup key."""
    return make_client_home(tmp_path / "client-home", realm)
