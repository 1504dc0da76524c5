"""Events: numbers and fields in the order of the design, as lines and as JSON."""

from uuid import UUID

import pytest

from kms_fast.model.events import (
    SENT_AGAIN,
    SIGNED,
    ClientAnswer,
    ClientRequest,
    DnsFailed,
    DnsPublished,
    Event,
    HostRequest,
    StartFailed,
)

TIME_MS = 1_800_000_030_000
MACHINE = {"cmid": UUID(int=7), "client_time_ms": TIME_MS, "virtual": True, "licence_state": 2, "minutes_to_expiry": 9}
CMID, SKU = "00000000-0000-0000-0000-000000000007", "00000000-0000-0000-0000-0000000000d1"
SKU_ID = UUID(SKU)
COUNT_TOO_LOW = 0xC004F038


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            ClientRequest(result=0, flags=SENT_AGAIN, host="[2001:db8::7]:1688", sku=SKU_ID, threshold=25, **MACHINE),
            f"12288 0x00000000,0x00000001,[2001:db8::7]:1688,{CMID},2027/01/15 08:00,1,2,9,{SKU},25",
        ),
        (
            ClientAnswer(
                result=COUNT_TOO_LOW,
                flags=SIGNED,
                activated=False,
                count=24,
                activation_interval_min=120,
                renewal_interval_min=10_080,
                client_time_ms=TIME_MS,
            ),
            "12289 0xC004F038,0x00000001,0,0,24,120,10080,2027/01/15 08:00",
        ),
        (
            HostRequest(result=0, threshold=25, name="desk-7", sku=SKU_ID, **MACHINE),
            f"12290 0x00000000,25,desk-7,{CMID},2027/01/15 08:00,1,2,9,{SKU}",
        ),
        (StartFailed(result=0xC004F041), "12291 0xC004F041"),
        (DnsFailed(result=0x80070005, domain="corp.example"), "12293 0x80070005,corp.example"),
        (DnsPublished(domain="corp.example"), "12294 corp.example"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Event) else "",
)
def test_the_fields_of_a_line(event: Event, line: str) -> None:
    assert event.line == line


def test_json_has_the_fields_by_name() -> None:
    event = HostRequest(result=COUNT_TOO_LOW, threshold=25, name="a,b", sku=SKU_ID, **MACHINE)
    assert event.to_json() == {
        "id": 12290,
        "result": "0xC004F038",
        "threshold": 25,
        "name": "a,b",
        "cmid": CMID,
        "client_time_ms": TIME_MS,
        "virtual": True,
        "licence_state": 2,
        "minutes_to_expiry": 9,
        "sku": SKU,
    }


@pytest.mark.parametrize("name", ["a,0,b", "a\n12290 0x00000000", "a\x1b[2J", "a\x85b"])
def test_a_name_makes_no_field_and_no_line(name: str) -> None:
    line = HostRequest(result=0, threshold=1, name=name, sku=SKU_ID, **MACHINE).line
    assert line.isprintable()
    assert line.count(",") == 8


def test_a_time_beyond_the_calendar_is_its_number() -> None:
    assert ClientAnswer(result=0, flags=0, activated=False, client_time_ms=1 << 62).line.endswith(f",{1 << 62}")
