"""A host that was told no address, on a machine with a network of its own: port 1688 of IPv4 and IPv6."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.world import make_client_home
from tests.hosts import make_realm, run_cli, serve
from tests.machine import Machine


@pytest.mark.parametrize("workers", ["1", "2"])
def test_clients_of_both_are_served(start_machine: Callable[..., Machine], tmp_path: Path, workers: str) -> None:
    machine, realm = start_machine("kms.example.com"), make_realm(tmp_path)
    checks = run_cli("doctor", home=realm.home, prefix=machine.prefix)[1]["checks"]
    assert [check["what"] for check in checks if check["check"] == "port"] == [
        "No host runs in this home; 0.0.0.0:1688, [::]:1688 is free."
    ]
    with serve(realm, "--workers", workers, listen=None, prefix=machine.prefix) as host:
        assert host.address == ("0.0.0.0", 1688)
        for address in ("127.0.0.1", "[::1]"):
            home = make_client_home(tmp_path / f"client at {address}", realm)
            code, told, _ = run_cli("client", "activate", "--host", address, home=home, prefix=machine.prefix)
            assert (code, told["cached_host"]) == (0, f"{address}:1688")
