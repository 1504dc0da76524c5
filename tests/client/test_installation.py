"""Keys, publisher files and hosts of an installation."""

import json
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from kms_fast.client import Client, LicenceState, Refused
from kms_fast.client.state import StateFile
from kms_fast.discovery.srv import Service
from kms_fast.errors import ActivationError, ConfigurationError, KeyInvalid, KmsFastError, NoHost
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.signing import public_bytes
from tests.client.world import (
    DAY_MS,
    MACHINE,
    NOW_MS,
    SETUP_KEYS,
    FakeClock,
    ScriptedHost,
    activate,
    carry_out,
    give_up,
    make_client,
    make_publisher,
    reason,
)
from tests.hosts import PUBLISHER_ID, SKUS, Realm, make_key

DESKTOP = SKUS["desktop"]
STATES = LicenceState


def test_a_product_is_named_although_a_removed_one_is_no_product_any_more(
    client: Client, realm: Realm, clock: FakeClock, tmp_path: Path
) -> None:
    client.install_key(SETUP_KEYS["server"])
    client.uninstall_key(SKUS["server"].id)
    give_up(realm, "server")
    assert make_client(tmp_path, realm, clock).find_sku("Desktop 3") == SKUS["desktop"].id


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
    assert client.uninstall_key() == DESKTOP.id
    with pytest.raises(KmsFastError, match="No client setup key"):
        client.status()
    client.install_key(SETUP_KEYS["desktop"])
    status = client.status()
    assert (status.state, status.minutes_left, status.lease) == (STATES.INITIAL_GRACE, 1440, None)


def test_a_removed_product_is_still_known(client: Client, realm: Realm, clock: FakeClock) -> None:
    client.install_key(SETUP_KEYS["server"])
    client.set_host("host", DESKTOP.id)
    round_ = client.begin(DESKTOP.id)
    carry_out(round_, {"host:1688": "down"})
    with pytest.raises(NoHost):
        client.finish(round_)
    client.uninstall_key(DESKTOP.id)
    [removed] = client.removed()
    assert (removed.sku.name, removed.state, removed.key_last_five) == ("Desktop 3", STATES.UNLICENSED, None)
    assert [(sku.name, len(attempts)) for sku, attempts in client.history()] == [("Desktop 3", 1), ("Server 1", 0)]
    with pytest.raises(KmsFastError, match=rf"for the product .*; there is one for Server 1 \({SKUS['server'].id}\)"):
        client.history(uuid.UUID(int=9))


def test_a_product_that_the_publisher_gave_up(client: Client, realm: Realm, clock: FakeClock, tmp_path: Path) -> None:
    """The newer file came with another product: only what was given up is left alone."""
    client.install_key(SETUP_KEYS["server"])
    server = SKUS["server"].id
    give_up(realm, "server")
    client = make_client(tmp_path, realm, clock)
    assert [sku.id for sku in client.skus()] == [DESKTOP.id]
    assert client.status(DESKTOP.id).state is STATES.INITIAL_GRACE
    assert [sku.id for sku, _ in client.history()] == [DESKTOP.id]
    [(id_, error)] = client.unlisted().items()
    assert id_ == server
    assert "The publisher has given the product" in error.message
    for use in (client.status, client.history, client.begin):
        with pytest.raises(ConfigurationError, match="The publisher has given the product"):
            use(server)
    with pytest.raises(ConfigurationError, match=rf"say which is meant .*: Desktop 3 \({DESKTOP.id}\), {server}\."):
        client.status()
    assert client.uninstall_key(server) == server
    assert (client.unlisted(), client.removed()) == ({}, [])
    client.uninstall_key(DESKTOP.id)
    assert [status.sku.id for status in client.removed()] == [DESKTOP.id]


def test_what_is_known_of_the_machine(client: Client, realm: Realm, clock: FakeClock) -> None:
    before = client.machine()
    assert (before.publisher, before.rearms_left, before.trusted_ms, before.service) == ("Testing Ltd", 5, 0, None)
    client.rearm()
    activate(client, ScriptedHost(realm, clock))
    after = client.machine()
    assert (after.previous_cmid, after.rearms_left, after.trusted_ms) == (before.cmid, 4, NOW_MS)
    assert (after.name, after.virtual, after.hardware) == ("client-7", False, ("machine-id",))


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


def test_a_domain_that_was_set_is_asked_alone(client: Client, realm: Realm, clock: FakeClock) -> None:
    assert client.set_domain("Lab.Example.") == "Lab.Example"
    tasks = client.begin()
    assert tasks.next_task() == Service("_kms-fast._tcp", "Lab.Example")
    client.clear_domain()
    assert client.begin().next_task() == Service("_kms-fast._tcp", None)


def test_an_administrators_domain_stands_above_the_products(tmp_path: Path, realm: Realm, clock: FakeClock) -> None:
    client = make_client(tmp_path, realm, clock, domain="product.example")
    assert client.begin().next_task() == Service("_kms-fast._tcp", "product.example")
    client.set_domain("lab.example")
    assert client.begin().next_task() == Service("_kms-fast._tcp", "lab.example")


@pytest.mark.parametrize("domain", ["", "a..b", "-a.example", "a b", "x" * 300])
def test_a_bad_domain_is_refused(client: Client, domain: str) -> None:
    with pytest.raises(ConfigurationError, match="not a DNS domain"):
        client.set_domain(domain)


def test_without_host_cache_every_attempt_looks_up(client: Client, realm: Realm, clock: FakeClock) -> None:
    hosts = {"a:1688": ScriptedHost(realm, clock)}

    def ask() -> list[str]:
        round_ = client.begin()
        done = carry_out(round_, hosts, ["a"])
        client.finish(round_)
        return done

    ask()
    assert ask() == ["a:1688"]
    client.set_host_cache(False)
    assert client.status().cached_host is None
    assert [ask(), ask()] == [["lookup _kms-fast._tcp", "a:1688"]] * 2
    client.set_host_cache(True)
    assert [ask(), ask()] == [["lookup _kms-fast._tcp", "a:1688"], ["a:1688"]]


def test_a_bad_address_is_refused(client: Client) -> None:
    with pytest.raises(ConfigurationError, match="not a port"):
        client.set_host("kms:99999")
