"""A stock DCE/RPC client carries the reference's requests to a real host, and a stock server is told from a host."""

import json
import subprocess
from pathlib import Path
from typing import Any

from kms_fast.cli.dns_records import make_look
from kms_fast.discovery.address import HostAddress
from kms_fast.discovery.audit import Condition
from kms_fast.discovery.zone import Access
from kms_fast.host.enrolment import read_installation
from tests.hosts import RunningHost
from tests.system.asker import Asker


def activate(python: str, host: RunningHost, request: bytes) -> dict[str, Any]:
    script = Path(__file__).with_name("impacket_activate.py")
    command = [python, str(script), str(host.address[1]), request.hex()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_lease_comes_through_impacket(impacket_python: str, real_host: RunningHost) -> None:
    asker = Asker.of(real_host.realm, "desktop")
    asked = asker.ask()
    found = activate(impacket_python, real_host, asked.request)
    assert found["result"] == 0
    assert asker.check(asked, bytes.fromhex(found["answer"])).leaf.result == 0


def test_an_unsigned_result_comes_through_impacket(impacket_python: str, real_host: RunningHost) -> None:
    request = Asker.of(real_host.realm, "desktop", secret=b"not-secret").ask().request
    assert activate(impacket_python, real_host, request) == {"answer": None, "result": 0xE04B0001}


async def test_a_stock_server_is_foreign(stock_server: HostAddress, real_host: RunningHost) -> None:
    look = make_look(read_installation(real_host.realm.home / "host"), Access())
    sight = await look(stock_server)
    assert (sight.condition, sight.text) == (
        Condition.FOREIGN,
        "another RPC service answers there, not a kms_fast host",
    )
    assert (await look(HostAddress(*real_host.address))).condition is Condition.OK
