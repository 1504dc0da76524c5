"""Keys, hosts, activation and licence states of an installation, over its whole life."""

import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kms_fast.client import Client, LicenceState, Refused, Status
from kms_fast.client.machine import Machine
from kms_fast.client.state import StateFile
from kms_fast.errors import ActivationError, ConfigurationError, KeyInvalid, KmsFastError, NoHost
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.revocation import RevocationList
from kms_fast.model.signing import public_bytes
from tests.client.world import (
    DAY_MS,
    HOUR_MS,
    MACHINE,
    MINUTE_MS,
    NOW_MS,
    SETUP_KEYS,
    FakeClock,
    ScriptedHost,
    activate,
    carry_out,
    make_client,
    make_revocations,
)
from tests.hosts import PUBLISHER_ID, SKUS, Realm, make_key
from tests.reference.request import SkuKeys, digest_hardware, open_request

DESKTOP = SKUS["desktop"]
STATES = LicenceState


def read_sent(host: ScriptedHost) -> Any:
    """The fields of the last request that a host got."""
    keys = SkuKeys.derive(DESKTOP.secret, PUBLISHER_ID, DESKTOP.id.bytes)
    return open_request(keys, host.requests[-1])


def reason(status: Status) -> str | None:
    return None if status.licence.reason is None else status.licence.reason.result.name


# ---- keys


def test_nothing_works_without_a_key(tmp_path: Path, realm: Realm, clock: FakeClock) -> None:
    client = make_client(tmp_path, realm, clock, key=None)
    for call in (client.status, client.begin, client.is_due, client.skus, client.rearm, client.clear_host):
        with pytest.raises(KmsFastError) as caught:
            call()
        assert caught.value.result.name == "NO_KEY_INSTALLED"


def test_a_key_begins_the_initial_grace(client: Client, clock: FakeClock) -> None:
    status = client.status()
    assert (status.state, status.minutes_left) == (STATES.INITIAL_GRACE, 30 * 1440)
    assert status.key_last_five == SETUP_KEYS["desktop"][-5:]
    clock.sleep(30 * DAY_MS)
    status = client.status()
    assert (status.state, reason(status)) == (STATES.NOTIFICATION, "GRACE_ENDED")


def test_the_same_key_again_changes_nothing(client: Client, clock: FakeClock, realm: Realm) -> None:
    activate(client, ScriptedHost(realm, clock))
    before = client.status().to_json()
    client.install_key(SETUP_KEYS["desktop"])
    assert client.status().to_json() == before


def test_another_key_of_the_same_product_begins_without_lease_but_not_grace_anew(
    client: Client, realm: Realm, clock: FakeClock
) -> None:
    activate(client, ScriptedHost(realm, clock))
    clock.sleep(DAY_MS)
    client.install_key(replace(DESKTOP, secret=b"other key.").setup_key(PUBLISHER_ID).text)
    status = client.status()
    assert (status.state, status.minutes_left, status.lease) == (STATES.INITIAL_GRACE, 29 * 1440, None)
    assert client.is_due()
    with pytest.raises(ActivationError):
        activate(client, ScriptedHost(realm, clock, unsigned=0xE04B0001))


@pytest.mark.parametrize("change", ["mistyped", "another publisher", "host key"])
def test_a_wrong_key_is_refused_and_changes_nothing(client: Client, change: str) -> None:
    before = client.status().to_json()
    other_publisher = bytes(16)
    texts = {
        "mistyped": "Z" + SETUP_KEYS["desktop"][1:],
        "another publisher": DESKTOP.setup_key(other_publisher).text,
        "host key": "81E00-00000-00000-00000-00000",
    }
    with pytest.raises(KeyInvalid):
        client.install_key(texts[change])
    assert client.status().to_json() == before


def test_uninstalling_forgets_the_lease_but_not_the_grace(client: Client, clock: FakeClock, realm: Realm) -> None:
    activate(client, ScriptedHost(realm, clock))
    clock.sleep(29 * DAY_MS)
    assert client.uninstall_key().name == "Desktop 3"
    with pytest.raises(KmsFastError, match="No client setup key"):
        client.status()
    client.install_key(SETUP_KEYS["desktop"])
    status = client.status()
    assert (status.state, status.minutes_left, status.lease) == (STATES.INITIAL_GRACE, 1440, None)


def test_with_several_keys_the_product_must_be_named(client: Client) -> None:
    client.install_key(SETUP_KEYS["server"])
    with pytest.raises(ConfigurationError, match=r"Desktop 3 .* Server 1"):
        client.status()
    assert client.status(SKUS["server"].id).sku.name == "Server 1"
    assert [sku.name for sku in client.skus()] == ["Desktop 3", "Server 1"]
    with pytest.raises(KmsFastError) as caught:
        client.status(uuid.UUID(int=1))
    assert caught.value.result.name == "NO_KEY_INSTALLED"


def test_the_publisher_file_is_kept_with_the_key(client: Client, tmp_path: Path, clock: FakeClock) -> None:
    later = Client(home=tmp_path, clock=clock, read_machine=lambda: MACHINE)
    assert later.status().sku.name == "Desktop 3"
    with pytest.raises(ConfigurationError, match=r"publisher\.json"):
        Client(home=tmp_path / "new").install_key(SETUP_KEYS["desktop"])


def make_publisher(realm: Realm, **changes: Any) -> bytes:
    file = PublisherFile.parse(realm.publisher_json.read_bytes())
    return replace(file, **changes).to_signed_json(realm.root_key)


def test_the_newer_publisher_file_counts(client: Client, tmp_path: Path, realm: Realm, clock: FakeClock) -> None:
    newer = make_publisher(realm, number=2, name="Renamed Ltd")
    Client(home=tmp_path, publisher=newer, clock=clock, read_machine=lambda: MACHINE).install_key(SETUP_KEYS["server"])
    client.install_key(SETUP_KEYS["desktop"])
    state = StateFile(tmp_path / "client").read()
    assert state is not None
    assert json.loads(state.publisher)["body"]["name"] == "Renamed Ltd"


def test_an_embedded_file_with_new_roots_replaces_an_older_one(
    client: Client, tmp_path: Path, realm: Realm, clock: FakeClock
) -> None:
    root = make_key("new root")
    file = PublisherFile.parse(realm.publisher_json.read_bytes())
    rotated = replace(file, number=2, roots=(public_bytes(root),)).to_signed_json(root)
    updated = Client(home=tmp_path, publisher=rotated, clock=clock, read_machine=lambda: MACHINE)
    assert updated.status().state == STATES.INITIAL_GRACE
    updated.install_key(SETUP_KEYS["desktop"])
    with pytest.raises(ConfigurationError) as caught:
        client.status()
    assert caught.value.result.name == "ROOT_UNKNOWN"


def test_one_home_serves_one_publisher(client: Client, tmp_path: Path, realm: Realm, clock: FakeClock) -> None:
    other = make_publisher(realm, publisher_id=bytes(16), name="Other Ltd")
    with pytest.raises(ConfigurationError, match="Other Ltd"):
        Client(home=tmp_path, publisher=other, clock=clock, read_machine=lambda: MACHINE).status()


# ---- hosts


def test_an_explicit_host_is_the_only_one(client: Client) -> None:
    client.set_host("KMS.example.com")
    assert carry_out(client.begin(), {"KMS.example.com:1688": "down"}) == ["KMS.example.com:1688"]
    client.clear_host()
    assert carry_out(client.begin(), {}) == ["lookup _kms-fast._tcp"]


def test_only_a_host_that_granted_is_cached(client: Client, realm: Realm, clock: FakeClock) -> None:
    refusing = ScriptedHost(realm, clock, count=1, threshold=9)
    round_ = client.begin()
    carry_out(round_, {"a:1688": refusing}, ["a"])
    with pytest.raises(Refused):
        client.finish(round_)
    assert client.status().cached_host is None
    round_ = client.begin()
    hosts = {"a:1688": refusing, "b:1688": ScriptedHost(realm, clock)}
    carry_out(round_, hosts, ["a", "b"])
    client.finish(round_)
    assert client.status().cached_host == "b:1688"
    assert carry_out(client.begin(), hosts) == ["b:1688"]


def test_a_bad_address_is_refused(client: Client) -> None:
    with pytest.raises(ConfigurationError, match="not a port"):
        client.set_host("kms:99999")


# ---- activation


def test_a_grant_licenses_for_its_validity(client: Client, realm: Realm, clock: FakeClock) -> None:
    lease = activate(client, ScriptedHost(realm, clock))
    assert lease.expires_ms == NOW_MS + 180 * DAY_MS
    status = client.status()
    assert (status.state, status.minutes_left, reason(status)) == (STATES.LICENSED, 180 * 1440, None)
    assert status.lease == lease
    clock.sleep(180 * DAY_MS - 1)
    assert client.status().state == STATES.LICENSED
    clock.sleep(1)
    status = client.status()
    assert (status.state, status.minutes_left) == (STATES.OUT_OF_TOLERANCE_GRACE, 30 * 1440)
    clock.sleep(30 * DAY_MS)
    status = client.status()
    assert (status.state, reason(status)) == (STATES.NOTIFICATION, "GRACE_ENDED")


def test_grace_is_not_longer_than_a_short_validity(client: Client, realm: Realm, clock: FakeClock) -> None:
    activate(client, ScriptedHost(realm, clock, leaf={"validity": 10}))
    clock.sleep(10 * MINUTE_MS)
    assert client.status().state == STATES.OUT_OF_TOLERANCE_GRACE
    clock.sleep(10 * MINUTE_MS)
    assert client.status().state == STATES.NOTIFICATION


def test_what_a_request_tells(client: Client, realm: Realm, clock: FakeClock) -> None:
    host = ScriptedHost(realm, clock)
    first = activate(client, host)
    fields = read_sent(host)
    assert fields.cmid == client.status().cmid.bytes
    assert fields.name == b"client-7"
    assert (fields.licence_state, fields.minutes_to_expiry) == (2, 30 * 1440)
    assert fields.client_time == NOW_MS
    assert fields.library_version == 1 << 16
    assert fields.predecessor == bytes(32)
    ids = b"machine-id\x000123456789abcdef\0"
    assert fields.hardware_digest == digest_hardware(fields.cmid, PUBLISHER_ID, ids)
    clock.sleep(DAY_MS)
    activate(client, host)
    fields = read_sent(host)
    assert (fields.licence_state, fields.minutes_to_expiry) == (1, 179 * 1440)
    assert fields.predecessor == first.leaf_hash


def test_a_request_without_answer_is_sent_again_for_an_hour(client: Client, realm: Realm, clock: FakeClock) -> None:
    host = ScriptedHost(realm, clock, unsigned=0xE04B0003)
    for wait_ms in (0, HOUR_MS - 1, 1):
        clock.sleep(wait_ms)
        with pytest.raises(ActivationError):
            activate(client, host)
    assert host.requests[0] == host.requests[1]
    assert host.requests[1] != host.requests[2]


def test_a_signed_answer_ends_a_request(client: Client, realm: Realm, clock: FakeClock) -> None:
    host = ScriptedHost(realm, clock, count=1, threshold=9)
    for _ in range(2):
        with pytest.raises(Refused):
            activate(client, host)
    assert host.requests[0] != host.requests[1]


def test_a_pending_request_of_an_earlier_cmid_is_not_sent(client: Client, realm: Realm, clock: FakeClock) -> None:
    host = ScriptedHost(realm, clock, unsigned=0xE04B0003)
    with pytest.raises(ActivationError):
        activate(client, host)
    client.rearm()
    with pytest.raises(ActivationError):
        activate(client, host)
    assert host.requests[0][20:36] != host.requests[1][20:36]


def test_a_failure_leaves_the_licence_as_it_was(client: Client, realm: Realm, clock: FakeClock) -> None:
    activate(client, ScriptedHost(realm, clock))
    for host in (
        ScriptedHost(realm, clock, count=1, threshold=9),
        ScriptedHost(realm, clock, unsigned=0xC004F041),
        ScriptedHost(realm, clock, leaf={"cmid": bytes(16)}),
    ):
        with pytest.raises(ActivationError) as caught:
            activate(client, host)
        status = client.status()
        assert status.state == STATES.LICENSED
        assert status.failure is not None
        assert status.failure.code == caught.value.result.code
    activate(client, ScriptedHost(realm, clock))
    assert client.status().failure is None


def test_a_key_changed_during_the_round_stores_nothing(client: Client, realm: Realm, clock: FakeClock) -> None:
    client.set_host("host")
    round_ = client.begin()
    carry_out(round_, {"host:1688": ScriptedHost(realm, clock)})
    client.rearm()
    with pytest.raises(ActivationError, match="activate again"):
        client.finish(round_)
    assert client.status().lease is None


def test_two_rounds_at_once_both_succeed(client: Client, realm: Realm, clock: FakeClock) -> None:
    client.set_host("host")
    rounds = [client.begin(), client.begin()]
    for round_ in rounds:
        carry_out(round_, {"host:1688": ScriptedHost(realm, clock)})
    assert [client.finish(round_).leaf.count for round_ in rounds] == [1, 1]


# ---- when to ask again


def test_renewal_is_due_after_the_interval_and_at_most_a_tenth_more(
    client: Client, realm: Realm, clock: FakeClock
) -> None:
    assert client.is_due()
    activate(client, ScriptedHost(realm, clock))
    clock.sleep(7 * DAY_MS - 1)
    assert not client.is_due()
    clock.sleep(7 * DAY_MS // 10 + 1)
    assert client.is_due()


def test_a_short_lease_is_renewed_at_half_its_validity(client: Client, realm: Realm, clock: FakeClock) -> None:
    activate(client, ScriptedHost(realm, clock, leaf={"validity": 60}))
    clock.sleep(30 * MINUTE_MS - 1)
    assert not client.is_due()
    clock.sleep(3 * MINUTE_MS + 1)
    assert client.is_due()


@pytest.mark.parametrize(("said", "minutes"), [(240, 240), (1, 15), (10**6, 43_200)])
def test_retries_follow_the_hosts_interval_within_bounds(
    client: Client, realm: Realm, clock: FakeClock, said: int, minutes: int
) -> None:
    with pytest.raises(Refused):
        activate(client, ScriptedHost(realm, clock, count=1, threshold=9, leaf={"activation_interval": said}))
    clock.sleep(minutes * MINUTE_MS - 1)
    assert not client.is_due()
    clock.sleep(minutes * MINUTE_MS // 10 + 1)
    assert client.is_due()


def test_a_new_host_is_asked_at_once(client: Client, realm: Realm, clock: FakeClock) -> None:
    with pytest.raises(ActivationError):
        activate(client, ScriptedHost(realm, clock, unsigned=0xE04B0003))
    assert not client.is_due()
    client.set_host("other")
    assert client.is_due()


def test_a_clock_that_was_ahead_does_not_stop_renewals(client: Client, realm: Realm, clock: FakeClock) -> None:
    activate(client, ScriptedHost(realm, clock))
    clock.wall_ms -= 60 * DAY_MS
    assert client.is_due()


# ---- clocks


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


# ---- rearm, hardware, revocation, tampering


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
    assert caught.value.result.name == "NOT_ALLOWED"


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
