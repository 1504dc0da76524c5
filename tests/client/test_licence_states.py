"""Licence states over the life of an installation: clocks, rearm, other hardware, revocation, tampering."""

from pathlib import Path

import pytest

from kms_fast.client import Client, LicenceState
from kms_fast.client.machine import Machine
from kms_fast.client.state import StateFile
from kms_fast.errors import ActivationError, KmsFastError, NoHost
from kms_fast.model.revocation import RevocationList
from tests.client.world import (
    DAY_MS,
    HOUR_MS,
    MACHINE,
    FakeClock,
    ScriptedHost,
    activate,
    carry_out,
    make_client,
    make_publisher,
    make_revocations,
    read_sent,
    reason,
)
from tests.hosts import SKUS, Realm

DESKTOP = SKUS["desktop"]
STATES = LicenceState


def test_validity_runs_on_the_clock_since_boot(client: Client, realm: Realm, clock: FakeClock) -> None:
    activate(client, ScriptedHost(realm, clock))
    clock.wall_ms -= 100 * DAY_MS
    clock.boot_ms += DAY_MS
    assert client.status().minutes_left == 179 * 1440


@pytest.mark.parametrize("boot", ["boot-2", None])
def test_after_a_reboot_validity_runs_on_the_wall_clock(
    client: Client, realm: Realm, clock: FakeClock, boot: str | None
) -> None:
    activate(client, ScriptedHost(realm, clock))
    clock.boot, clock.boot_ms = boot, 0
    clock.wall_ms += 10 * DAY_MS
    assert client.status().minutes_left == 170 * 1440


def test_a_wall_clock_set_back_behind_a_signed_time_is_told(client: Client, realm: Realm, clock: FakeClock) -> None:
    activate(client, ScriptedHost(realm, clock))
    clock.boot = "boot-2"
    clock.wall_ms -= 8 * HOUR_MS
    assert client.status().state == STATES.LICENSED
    clock.wall_ms -= 1
    status = client.status()
    assert (status.state, reason(status)) == (STATES.NOTIFICATION, "CLOCK_SET_BACK")


def test_only_grants_raise_the_mark_and_a_rearm_clears_it(client: Client, realm: Realm, clock: FakeClock) -> None:
    clock.wall_ms += 300 * DAY_MS
    activate(client, ScriptedHost(realm, clock))
    clock.wall_ms -= 300 * DAY_MS
    with pytest.raises(ActivationError) as caught:
        activate(client, ScriptedHost(realm, clock))
    assert caught.value.result.name == "CLOCK_SET_BACK"
    assert caught.value.details["earlier_time"] == "2027-11-11 08:00:00 UTC"
    client.rearm()
    assert activate(client, ScriptedHost(realm, clock)).leaf.result == 0


def test_a_rearm_makes_a_new_machine_at_most_five_times(client: Client, realm: Realm, clock: FakeClock) -> None:
    activate(client, ScriptedHost(realm, clock))
    old = client.status().cmid
    clock.sleep(20 * DAY_MS)
    assert [client.rearm() for _ in range(5)] == [4, 3, 2, 1, 0]
    status = client.status()
    assert (status.state, status.minutes_left, status.lease) == (STATES.INITIAL_GRACE, 30 * 1440, None)
    assert status.cmid != old
    with pytest.raises(KmsFastError) as caught:
        client.rearm()
    assert caught.value.result.name == "REARMS_USED_UP"


def test_a_rearmed_machine_tells_its_previous_cmid(client: Client, realm: Realm, clock: FakeClock) -> None:
    before = client.status().cmid.bytes
    client.rearm()
    host = ScriptedHost(realm, clock)
    activate(client, host)
    fields = read_sent(host)
    assert (fields.previous_cmid, fields.cmid == before) == (before, False)


def test_other_hardware_is_out_of_tolerance_from_the_receipt(
    client: Client, tmp_path: Path, realm: Realm, clock: FakeClock
) -> None:
    activate(client, ScriptedHost(realm, clock))
    clock.sleep(5 * DAY_MS)
    moved = make_client(
        tmp_path, realm, clock, key=None, machine=Machine("client-8", False, {"machine-id": b"another"})
    )
    status = moved.status()
    assert (status.state, status.minutes_left) == (STATES.OUT_OF_TOLERANCE_GRACE, 25 * 1440)
    assert reason(status) == "HARDWARE_CHANGED"
    assert client.status().state == STATES.LICENSED
    assert (moved.is_due(), client.is_due()) == (True, False)
    with pytest.raises(ActivationError):
        activate(moved, ScriptedHost(realm, clock, unsigned=0xE04B0003))
    assert not moved.is_due()
    activate(moved, ScriptedHost(realm, clock))
    assert moved.status().state == STATES.LICENSED


def test_an_unreadable_hardware_id_is_not_other_hardware(
    client: Client, tmp_path: Path, realm: Realm, clock: FakeClock
) -> None:
    blind = make_client(tmp_path, realm, clock, key=None, machine=Machine("client-7", False, {}))
    with pytest.raises(KmsFastError) as caught:
        blind.status()
    assert caught.value.result.name == "NOT_ALLOWED"
    assert "machine-id" in caught.value.message


def test_an_id_that_became_readable_later_changes_nothing(
    client: Client, tmp_path: Path, realm: Realm, clock: FakeClock
) -> None:
    activate(client, ScriptedHost(realm, clock))
    machine = Machine("client-7", False, dict(MACHINE.hardware_ids) | {"product-uuid": b"x"})
    as_root = make_client(tmp_path, realm, clock, key=None, machine=machine)
    assert as_root.status().state == STATES.LICENSED


def test_a_revoked_host_ends_the_lease_when_the_client_learns_of_it(
    client: Client, tmp_path: Path, realm: Realm, clock: FakeClock
) -> None:
    activate(client, ScriptedHost(realm, clock))
    clock.sleep(50 * DAY_MS)
    revocations = RevocationList.parse(make_revocations(realm, [1]))
    newer = make_publisher(realm, number=2, revocations=revocations)
    updated = Client(home=tmp_path, publisher=newer, clock=clock, read_machine=lambda: MACHINE)
    status = updated.status()
    assert (status.state, status.minutes_left) == (STATES.OUT_OF_TOLERANCE_GRACE, 30 * 1440)
    assert reason(status) == "CERTIFICATE_REVOKED"
    clock.sleep(30 * DAY_MS)
    assert updated.status().state == STATES.NOTIFICATION


def test_who_may_only_read_is_told_of_a_revoked_host_too(
    client: Client, tmp_path: Path, realm: Realm, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(client, ScriptedHost(realm, clock))
    newer = make_publisher(realm, number=2, revocations=RevocationList.parse(make_revocations(realm, [1])))
    file = tmp_path / "client" / "state.json"
    before = file.read_bytes()
    monkeypatch.setattr(StateFile, "is_writable", False)
    status = Client(home=tmp_path, publisher=newer, clock=clock, read_machine=lambda: MACHINE).status()
    assert (reason(status), file.read_bytes() == before) == ("CERTIFICATE_REVOKED", True)


def test_a_list_from_a_host_is_kept(client: Client, tmp_path: Path, realm: Realm, clock: FakeClock) -> None:
    host = ScriptedHost(realm, clock, header={"revocation_list": 2}, revocations=make_revocations(realm, [1], 2))
    with pytest.raises(ActivationError) as caught:
        activate(client, host)
    assert caught.value.result.name == "CERTIFICATE_REVOKED"
    with pytest.raises(ActivationError) as caught:
        activate(client, ScriptedHost(realm, clock))
    assert caught.value.result.name == "CERTIFICATE_REVOKED"
    unreachable = client.begin()
    carry_out(unreachable, {"host:1688": "down"})
    with pytest.raises(NoHost):
        client.finish(unreachable)


@pytest.mark.parametrize("place", [6, 40, 300, 700])
def test_a_changed_lease_is_worth_nothing(
    client: Client, tmp_path: Path, realm: Realm, clock: FakeClock, place: int
) -> None:
    activate(client, ScriptedHost(realm, clock))
    file = StateFile(tmp_path / "client")
    state = file.read()
    assert state is not None
    stored = state.products[DESKTOP.id].lease
    assert stored is not None
    answer = bytearray(stored.answer)
    answer[place % len(answer)] ^= 1
    stored.answer = bytes(answer)
    file.write(state)
    status = client.status()
    assert status.state == STATES.INITIAL_GRACE
    assert status.lease is None
    assert reason(status) is not None


def test_the_lease_is_verified_again_long_after(client: Client, realm: Realm, clock: FakeClock) -> None:
    lease = activate(client, ScriptedHost(realm, clock))
    clock.sleep(1000 * DAY_MS)
    status = client.status()
    assert status.state == STATES.NOTIFICATION
    assert status.lease == lease


def test_a_pinned_customer_must_be_the_hosts(tmp_path: Path, realm: Realm, clock: FakeClock) -> None:
    pinned = make_client(tmp_path, realm, clock, customer_id=77)
    with pytest.raises(ActivationError) as caught:
        activate(pinned, ScriptedHost(realm, clock))
    assert caught.value.result.name == "CERTIFICATE_KIND"
