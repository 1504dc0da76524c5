"""A publisher, a clock and a client for each test of the client."""

from pathlib import Path

import pytest

from kms_fast.client import Client
from tests.client.world import FakeClock, make_client, make_realm
from tests.hosts import Realm


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return make_realm(tmp_path)


@pytest.fixture
def client(tmp_path: Path, realm: Realm, clock: FakeClock) -> Client:
    """A client with the desktop product's key."""
    return make_client(tmp_path, realm, clock)
