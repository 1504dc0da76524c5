"""docs/embedding.md: its examples run as they stand, against a real host that DNS would have named."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kms_fast.client import LicenceState, aio, blocking
from kms_fast.discovery.address import HostAddress
from kms_fast.discovery.srv import Service
from kms_fast.errors import KmsFastError
from tests.client.test_direct import KEY, answer
from tests.client.world import SETUP_KEYS, FakeClock, make_client, make_realm
from tests.hosts import RunningHost

PAGE = Path(__file__).parents[2] / "docs" / "embedding.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def dns(real_host: RunningHost, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets the lookup find the real host; gives the services asked for."""
    asked: list[str] = []

    def find(service: Service) -> list[HostAddress]:
        asked.append(service.name)
        return [HostAddress(*real_host.address)]

    async def find_async(service: Service) -> list[HostAddress]:
        return find(service)

    monkeypatch.setattr(blocking, "find_hosts", find)
    monkeypatch.setattr(aio, "find_hosts_async", find_async)
    return asked


@pytest.mark.parametrize("example", EXAMPLES[:2], ids=["blocking", "asyncio"])
def test_an_example_activates(
    example: str, dns: list[str], tmp_path: Path, real_host: RunningHost, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {
        "PUBLISHER_JSON": real_host.realm.publisher_json.read_bytes(),
        "STATE_FOLDER": tmp_path,
        "SETUP_KEY": SETUP_KEYS["desktop"],
    }
    exec(compile(example, str(PAGE), "exec"), names)
    assert names["licensed"] is True
    assert capsys.readouterr().out == ""
    assert dns == ["_kms-fast._tcp"]
    # The lease is there: the same lines ask nobody now.
    exec(compile(example, str(PAGE), "exec"), names)
    assert dns == ["_kms-fast._tcp"]


def test_the_example_without_a_host_activates(clock: FakeClock, tmp_path: Path) -> None:
    realm = make_realm(tmp_path, activation_url="https://activation.example")
    client = make_client(tmp_path, realm, clock, key=None)

    refusal = KmsFastError("No.", name="MULTIPLE_ACTIVATION_KEY_USED_UP").to_json()
    replies = [(403, json.dumps(refusal).encode())]

    def post(url: str, data: bytes) -> tuple[int, bytes]:
        assert url == "https://activation.example/v1/machine-requests"
        return replies.pop() if replies else (200, answer(realm, data, clock))

    for _ in range(2):
        exec(compile(EXAMPLES[2], str(PAGE), "exec"), {"client": client, "KEY": KEY.text, "post": post})
    assert client.status().state is LicenceState.LICENSED
    ((_, attempts),) = client.history()
    assert [(attempt.code, attempt.message) for attempt in attempts] == [
        (0xC004C020, "The publisher says: No."),
        (0, "The machine is activated."),
    ]


def test_the_first_example_has_ten_lines() -> None:
    assert len([line for line in EXAMPLES[0].splitlines() if line]) <= 10
