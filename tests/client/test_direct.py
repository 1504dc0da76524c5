"""Activation by the publisher itself: what it is worth, on which machine, and beside hosts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kms_fast.client import Client, LicenceState
from kms_fast.client.machine import Machine
from kms_fast.client.state import StateFile
from kms_fast.errors import ConfigurationError, KeyInvalid, KmsFastError
from kms_fast.model.keys import KeyKind, ProductKey, publisher_tag
from kms_fast.model.machine_activation import ActivationKeySecrets, MachineRequest, issue_machine_activation
from tests.client.world import DAY_MS, NOW_MS, SETUP_KEYS, FakeClock, ScriptedHost, activate, make_client, reason
from tests.hosts import PUBLISHER_ID, SKUS, Realm, make_realm
from tests.model.test_catalog import edit

DESKTOP = SKUS["desktop"]
KEY = ProductKey(KeyKind.MULTIPLE_ACTIVATION, publisher_tag(PUBLISHER_ID), DESKTOP.reference, b"multiple-1")
OTHER_HARDWARE = Machine("client-8", False, {"machine-id": b"another one"})


def answer(realm: Realm, data: bytes, clock: FakeClock, customer_id: int = 0) -> bytes:
    """What the publisher answers to a request."""
    request = MachineRequest.parse(data)
    request.check_mac(ActivationKeySecrets.derive(KEY, PUBLISHER_ID))
    activation = issue_machine_activation(
        realm.issuer_key,
        realm.issuer,
        request,
        key_last_five=KEY.last_five,
        customer_id=customer_id,
        issued_ms=clock.now_ms(),
    )
    return activation.to_json()


def activate_directly(client: Client, realm: Realm, clock: FakeClock) -> bytes:
    """The activation of a client, which is installed."""
    given = answer(realm, client.begin_direct(KEY.text).data, clock)
    client.finish_direct(given)
    return given


@pytest.fixture
def client(tmp_path: Path, realm: Realm, clock: FakeClock) -> Client:
    """A client without any key."""
    return make_client(tmp_path, realm, clock, key=None)


def test_it_needs_no_setup_key_and_has_no_end(client: Client, realm: Realm, clock: FakeClock) -> None:
    activate_directly(client, realm, clock)
    clock.sleep(3650 * DAY_MS)
    status = client.status()
    assert (status.state, status.minutes_left, reason(status)) == (LicenceState.LICENSED, 0, None)
    assert status.to_json()["direct"] == {
        "key_last_five": KEY.last_five,
        "cmid": str(status.cmid),
        "issued": "2027-01-15 08:00:00 UTC",
        "received": "2027-01-15 08:00:00 UTC",
    }
    assert [sku.name for sku in client.skus()] == ["Desktop 3"]
    assert (client.removed(), client.is_due(), client.note_expiry_warning()) == ([], False, None)
    ((_, (attempt,)),) = client.history()
    assert (attempt.host, attempt.code) == ("publisher", 0)


def test_the_key_itself_is_not_kept(client: Client, realm: Realm, clock: FakeClock, tmp_path: Path) -> None:
    activate_directly(client, realm, clock)
    assert KEY.text not in (tmp_path / "client" / "state.json").read_text()


def test_a_machine_is_the_same_one_whenever_it_asks(client: Client) -> None:
    first, again = (MachineRequest.parse(client.begin_direct(KEY.text).data) for _ in range(2))
    assert (first.cmid, first.hardware_digest) == (again.cmid, again.hardware_digest)


def test_what_failed_stands_in_the_history_and_changes_nothing(client: Client, realm: Realm, clock: FakeClock) -> None:
    request = client.begin_direct(KEY.text)
    client.fail_direct(request, KmsFastError("No.", name="MULTIPLE_ACTIVATION_KEY_USED_UP"))
    assert client.skus() == []
    client.install_key(SETUP_KEYS["desktop"])
    ((sku, (attempt,)),) = client.history()
    assert (sku.name, attempt.code, attempt.message) == ("Desktop 3", 0xC004C020, "No.")


def test_a_failed_try_begins_no_grace_and_leaves_no_removed_key(client: Client, clock: FakeClock) -> None:
    client.fail_direct(client.begin_direct(KEY.text), KmsFastError("No.", name="KEY_DISABLED"))
    clock.sleep(40 * DAY_MS)
    client.rearm()
    assert client.removed() == []
    client.install_key(SETUP_KEYS["desktop"])
    status = client.status()
    assert (status.state, status.minutes_left) == (LicenceState.INITIAL_GRACE, 30 * 1440)


def test_a_machine_that_nothing_identifies_is_not_activated(tmp_path: Path, realm: Realm, clock: FakeClock) -> None:
    """Its home would be worth as much on every other one."""
    client = make_client(tmp_path, realm, clock, key=None, machine=Machine("container", True, {}))
    with pytest.raises(KmsFastError, match="neither a machine ID") as caught:
        client.begin_direct(KEY.text)
    assert caught.value.result.name == "HARDWARE_UNKNOWN"


def test_an_issuer_that_has_ended_activates_nothing_any_more(client: Client, realm: Realm, clock: FakeClock) -> None:
    """Whoever has its key may still write an earlier time; what was activated before stays."""
    given = answer(realm, client.begin_direct(KEY.text).data, clock)
    clock.sleep(800 * DAY_MS)
    with pytest.raises(ConfigurationError) as caught:
        client.finish_direct(given)
    assert caught.value.result.name == "ISSUER_DATES"
    clock.sleep(-800 * DAY_MS)
    client.finish_direct(given)
    clock.sleep(800 * DAY_MS)
    assert client.status().state is LicenceState.LICENSED


def test_a_lease_counts_where_the_activation_does_not(
    client: Client, realm: Realm, clock: FakeClock, tmp_path: Path
) -> None:
    activate_directly(client, realm, clock)
    moved = make_client(tmp_path, realm, clock, machine=OTHER_HARDWARE)
    activate(moved, ScriptedHost(realm, clock))
    status = moved.status()
    assert (status.state, status.lease is not None, status.direct is not None) == (LicenceState.LICENSED, True, True)
    assert moved.is_due() is False
    clock.sleep(10 * DAY_MS)
    assert moved.is_due() is True


def test_it_stands_beside_a_setup_key(client: Client, realm: Realm, clock: FakeClock) -> None:
    """Products install their setup key at every start, and a lease may be there already."""
    client.install_key(SETUP_KEYS["desktop"])
    activate(client, ScriptedHost(realm, clock))
    activate_directly(client, realm, clock)
    client.install_key(SETUP_KEYS["desktop"])
    clock.sleep(400 * DAY_MS)
    status = client.status()
    assert (status.state, status.minutes_left, client.is_due()) == (LicenceState.LICENSED, 0, False)
    client.uninstall_key()
    assert client.skus() == []


def test_hosts_are_not_asked_without_a_setup_key(client: Client, realm: Realm, clock: FakeClock) -> None:
    activate_directly(client, realm, clock)
    with pytest.raises(KmsFastError, match="No client setup key of Desktop 3") as caught:
        client.activate()
    assert caught.value.result.name == "NO_KEY_INSTALLED"


def test_a_copied_home_is_out_of_tolerance_from_the_receipt_on(
    client: Client, realm: Realm, clock: FakeClock, tmp_path: Path
) -> None:
    activate_directly(client, realm, clock)
    copied = make_client(tmp_path, realm, clock, key=None, machine=OTHER_HARDWARE)
    clock.sleep(29 * DAY_MS)
    status = copied.status()
    assert (status.state, reason(status)) == (LicenceState.OUT_OF_TOLERANCE_GRACE, "HARDWARE_CHANGED")
    assert status.minutes_left == 1440
    clock.sleep(DAY_MS)
    assert copied.status().state == LicenceState.NOTIFICATION
    clock.wall_ms = NOW_MS - DAY_MS
    assert reason(copied.status()) == "CLOCK_SET_BACK"


def test_a_rearm_makes_another_machine(client: Client, realm: Realm, clock: FakeClock) -> None:
    given = activate_directly(client, realm, clock)
    client.rearm()
    assert client.skus() == []
    with pytest.raises(ConfigurationError, match="apply it where its request was made"):
        client.finish_direct(given)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda document: document.update(signature="00" * 64), "OFFLINE_DATA_MALFORMED"),
        (lambda document: document["body"].update(sku=str(SKUS["server"].id)), "OFFLINE_DATA_MALFORMED"),
        (lambda document: document["body"].update(hardware_digest="00" * 16), "OFFLINE_DATA_MALFORMED"),
        (lambda document: document["body"].update(issued_ms=0), "ISSUER_DATES"),
    ],
)
def test_a_changed_answer_is_not_installed(
    client: Client, realm: Realm, clock: FakeClock, change: Callable[[dict[str, Any]], None], name: str
) -> None:
    given = answer(realm, client.begin_direct(KEY.text).data, clock)
    with pytest.raises(ConfigurationError) as caught:
        client.finish_direct(edit(given, change))
    assert caught.value.result.name == name
    assert client.skus() == []


def test_another_publishers_answer_is_not_installed(client: Client, clock: FakeClock, tmp_path: Path) -> None:
    other = make_realm(tmp_path / "other", owner="other ", now_ms=NOW_MS)
    with pytest.raises(ConfigurationError) as caught:
        client.finish_direct(answer(other, client.begin_direct(KEY.text).data, clock))
    assert caught.value.result.name == "ROOT_UNKNOWN"


def test_another_machines_answer_is_not_installed(
    client: Client, realm: Realm, clock: FakeClock, tmp_path: Path
) -> None:
    other = make_client(tmp_path / "other", realm, clock, key=None)
    given = answer(realm, other.begin_direct(KEY.text).data, clock)
    for asked in (False, True):
        if asked:
            client.begin_direct(KEY.text)
        with pytest.raises(ConfigurationError, match="apply it where its request was made"):
            client.finish_direct(given)


def test_a_product_may_insist_on_its_customer(tmp_path: Path, realm: Realm, clock: FakeClock) -> None:
    client = make_client(tmp_path, realm, clock, key=None, customer_id=4711)
    data = client.begin_direct(KEY.text).data
    with pytest.raises(ConfigurationError, match="made out to customer 7; Desktop 3 accepts 4711 only") as caught:
        client.finish_direct(answer(realm, data, clock, customer_id=7))
    assert caught.value.result.name == "CERTIFICATE_KIND"
    client.finish_direct(answer(realm, data, clock, customer_id=4711))


def test_a_damaged_one_is_told_and_the_grace_runs(
    client: Client, realm: Realm, clock: FakeClock, tmp_path: Path
) -> None:
    activate_directly(client, realm, clock)
    file = StateFile(tmp_path / "client")
    state = file.read()
    assert state is not None
    stored = state.products[DESKTOP.id].direct
    assert stored is not None
    stored.answer = stored.answer.replace(KEY.last_five.encode(), b"AAAAA")
    with file.locked():
        file.write(state)
    status = client.status()
    assert (status.state, reason(status)) == (LicenceState.INITIAL_GRACE, "OFFLINE_DATA_MALFORMED")


def test_each_kind_of_key_has_its_place(client: Client) -> None:
    with pytest.raises(KeyInvalid, match="kms-fast client activate --mak"):
        client.install_key(KEY.text)
    with pytest.raises(KeyInvalid, match="This is a client setup key, but a multiple-activation key is needed"):
        client.begin_direct(SETUP_KEYS["desktop"])
