"""The real client against a hostile host: each wrong gives its own error and changes no licence state."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kms_fast import errors
from kms_fast.client import AsyncClient, Client, LicenceState, aio, blocking
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.revocation import issue_revocation_list
from tests.client.world import SETUP_KEYS, make_client_home
from tests.hostile.host import Dialogue, hostile_host
from tests.hostile.wrongs import SLOW_HOSTS, WRONGS, Wrong, answering
from tests.hosts import Realm, RunningHost, make_realm, run_cli
from tests.reference.certificate import DAY_MS
from tests.reference.host import Scene
from tests.reference.request import hash_request
from tests.reference.rpc import build_response
from tests.reference.verify import HOUR_MS
from tests.system.asker import now_ms

Install = Callable[[str], Path]


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Realm:
    return make_realm(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def install(realm: Realm, tmp_path: Path) -> Install:
    """Call it with a host's address: makes a client's home with the setup key, that asks this host."""

    return lambda address: make_client_home(tmp_path, realm, host=address)


@pytest.fixture
def short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets clients wait a second for an answer instead of ten."""
    monkeypatch.setattr(blocking, "ANSWER_S", 1.0)
    monkeypatch.setattr(aio, "ANSWER_S", 1.0)
    return


def activate(home: Path) -> object:
    return Client(home=home).activate()


def activate_async(home: Path) -> object:
    return asyncio.run(AsyncClient(home=home).activate())


def judge(home: Path, wrong: Wrong, run: Callable[[Path], object]) -> None:
    """Runs the client and checks the error, and that nothing has changed."""
    with pytest.raises(errors.ActivationError) as raised:
        run(home)
    error = raised.value
    assert (type(error).__name__, error.result.name) == (wrong.error, wrong.name), error
    assert error.signed == (wrong.error == "Refused")
    assert error.result.meaning
    assert error.result.cure
    status = Client(home=home).status()
    assert (status.state, status.lease) == (LicenceState.INITIAL_GRACE, None)


@pytest.mark.parametrize("run", [activate, activate_async], ids=["blocking", "asyncio"])
@pytest.mark.parametrize("wrong", WRONGS.values(), ids=WRONGS)
def test_wrong_gives_its_error(realm: Realm, install: Install, wrong: Wrong, run: Callable[[Path], object]) -> None:
    with hostile_host(realm, wrong.behave) as address:
        judge(install(address), wrong, run)


@pytest.mark.usefixtures("short_limit")
@pytest.mark.parametrize("run", [activate, activate_async], ids=["blocking", "asyncio"])
@pytest.mark.parametrize("wrong", SLOW_HOSTS.values(), ids=SLOW_HOSTS)
def test_slow_hosts_are_given_up(realm: Realm, install: Install, wrong: Wrong, run: Callable[[Path], object]) -> None:
    with hostile_host(realm, wrong.behave) as address:
        judge(install(address), wrong, run)


@pytest.mark.parametrize("wrong", WRONGS.values(), ids=WRONGS)
def test_command_line_tells_the_error(realm: Realm, install: Install, wrong: Wrong) -> None:
    with hostile_host(realm, wrong.behave) as address:
        code, told, stderr = run_cli("client", "activate", home=install(address))
    assert code == 1
    assert "Traceback" not in stderr
    assert (told["ok"], told["name"], told["signed"]) == (False, wrong.name, wrong.error == "Refused"), told
    if wrong.name != "UNKNOWN":
        result = errors.BY_NAME[wrong.name]
        assert (told["code"], told["meaning"], told["cure"]) == (result.hex, result.meaning, result.cure)
    assert told["details"]["hosts"][0]["host"] == address


def test_command_line_gives_a_silent_host_up(realm: Realm, install: Install) -> None:
    with hostile_host(realm, SLOW_HOSTS["silent after the request"].behave) as address:
        code, told, _ = run_cli("client", "activate", home=install(address))
    assert (code, told["name"]) == (1, "NO_HOST_REACHED")


def honest(scene: Scene) -> bytes:
    return scene.answer()


@pytest.mark.parametrize("run", [activate, activate_async], ids=["blocking", "asyncio"])
def test_an_honest_answer_is_taken(realm: Realm, install: Install, run: Callable[[Path], object]) -> None:
    with hostile_host(realm, answering(honest)) as address:
        home = install(address)
        run(home)
    assert Client(home=home).status().state == LicenceState.LICENSED


def test_an_honest_answer_in_single_octets_is_taken(realm: Realm, install: Install) -> None:
    def behave(dialogue: Dialogue) -> None:
        dialogue.take_call()
        answer = dialogue.scene().answer()
        for octet in build_response(dialogue.call_id, answer, 0):
            dialogue.send(bytes([octet]))
        dialogue.wait(1)

    with hostile_host(realm, behave) as address:
        assert activate(install(address))


def test_a_replayed_answer_is_refused_and_the_lease_stays(realm: Realm, install: Install) -> None:
    def behave(dialogue: Dialogue) -> None:
        dialogue.take_call()
        if not dialogue.memory:
            dialogue.memory.append(dialogue.scene().answer())
        dialogue.respond(dialogue.memory[0])
        dialogue.wait(1)

    with hostile_host(realm, behave) as address:
        home = install(address)
        activate(home)
        before = Client(home=home).status().lease
        with pytest.raises(errors.AnswerRejected) as raised:
            activate(home)
    assert raised.value.result.name == "ANSWER_UNREADABLE"
    status = Client(home=home).status()
    assert status.state == LicenceState.LICENSED
    assert status.lease
    assert before
    assert status.lease.leaf_hash == before.leaf_hash


def test_a_clock_set_back_is_told(realm: Realm, install: Install) -> None:
    with hostile_host(realm, answering(honest)) as address:
        home = install(address)
        activate(home)
        state_file = home / "client" / "state.json"
        state = json.loads(state_file.read_text())
        state["mark_ms"] += 9 * HOUR_MS
        state_file.write_text(json.dumps(state))
        with pytest.raises(errors.AnswerRejected) as raised:
            activate(home)
        code, told, _ = run_cli("client", "activate", home=home)
    assert raised.value.result.name == "CLOCK_SET_BACK"
    assert (code, told["name"], told["signed"]) == (1, "CLOCK_SET_BACK", False)


def test_a_signed_refusal_never_raises_the_mark(realm: Realm, install: Install) -> None:
    def ahead(scene: Scene) -> bytes:
        return scene._replace(time=scene.time + 300 * DAY_MS).answer()

    with hostile_host(realm, answering(ahead)) as address:
        home = install(address)
        with pytest.raises(errors.Refused):
            activate(home)
    assert json.loads((home / "client" / "state.json").read_text())["mark_ms"] == 0


def revocations(scene: Scene, *, number: int = 9, **changes: Any) -> bytes:
    issuer = scene.publisher.issue_issuer(scene.time - DAY_MS, **changes)
    return scene.publisher.issue_revocations(number, scene.time, [1], issuer)


@pytest.mark.parametrize(
    "make",
    [
        lambda scene: b"",
        lambda scene: revocations(scene)[:-1],
        lambda scene: revocations(scene, rights=3),
        lambda scene: revocations(scene, not_after=scene.time - 1),
        lambda scene: revocations(scene, number=0),
        lambda scene: revocations(scene).replace(scene.publisher.publisher_id, bytes(16), 1),
    ],
    ids=["none", "cut", "without the right", "issuer expired", "number 0", "another publisher's"],
)
def test_a_revocation_list_that_does_not_verify_is_left_aside(
    realm: Realm, install: Install, make: Callable[[Scene], bytes]
) -> None:
    def behave(dialogue: Dialogue) -> None:
        dialogue.take_call()
        scene = dialogue.scene()
        dialogue.respond(scene.answer(header={"revocation_list": 9}))
        assert dialogue.take_argument() == bytes([1, 3, 0, 0, 0, 0, 0, 0])
        dialogue.respond(make(scene) or None)
        dialogue.wait(1)

    with hostile_host(realm, behave) as address:
        home = install(address)
        activate(home)
    assert Client(home=home).status().state == LicenceState.LICENSED
    assert json.loads((home / "client" / "state.json").read_text())["revocations"] is None


def test_the_next_host_is_asked_with_the_same_request(realm: Realm, real_host: RunningHost, install: Install) -> None:
    seen = []

    def behave(dialogue: Dialogue) -> None:
        seen.append(dialogue.take_call())
        dialogue.respond(dialogue.scene().answer(header_signer=realm.issuer_key))
        dialogue.wait(1)

    with hostile_host(realm, behave) as address:
        home = install(address)
        with pytest.raises(errors.AnswerRejected):
            activate(home)
    client = Client(home=home)
    client.set_host(f"{real_host.address[0]}:{real_host.address[1]}")
    lease = client.activate()
    assert lease.leaf.request_hash == hash_request(seen[0])


def test_a_host_in_the_publisher_s_own_list_is_refused(realm: Realm, tmp_path: Path) -> None:
    revoked = issue_revocation_list(realm.issuer_key, realm.issuer, number=4, issued_ms=now_ms(), serials=[1])
    publisher = replace(PublisherFile.parse(realm.publisher_json.read_bytes()), revocations=revoked)
    client = Client(home=tmp_path, publisher=publisher.to_signed_json(realm.root_key))
    client.install_key(SETUP_KEYS["desktop"])
    with hostile_host(realm, answering(honest)) as address:
        client.set_host(address)
        with pytest.raises(errors.AnswerRejected) as raised:
            client.activate()
    assert raised.value.result.name == "CERTIFICATE_REVOKED"


def test_another_customer_s_host_is_refused_by_a_product_that_pins_its_own(realm: Realm, install: Install) -> None:
    with hostile_host(realm, answering(lambda scene: scene.answer(certificate={"customer_id": 8}))) as address:
        home = install(address)
        with pytest.raises(errors.AnswerRejected) as raised:
            Client(home=home, customer_id=7).activate()
        assert raised.value.result.name == "CERTIFICATE_KIND"
        assert Client(home=home, customer_id=8).activate()
