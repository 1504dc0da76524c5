"""Batches: decisions, leaves, headers, records and answers, against the reference."""

import asyncio
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from kms_fast import _core
from kms_fast.model.certificate import CertifiedFamily
from kms_fast.model.settings import HostSettings
from kms_fast.store.sqlite_counts import SqliteCounts
from tests.batches import PEER, BatchMaker, Peer
from tests.hosts import Realm, make_key, make_realm
from tests.reference import rpc
from tests.reference.merkle import hash_leaf
from tests.reference.verify import HOUR_MS, Asked
from tests.system.asker import Asker, now_ms

GRANTED, CANNOT_SERVE, COUNT_TOO_LOW, CLOCKS_DIFFER = 0, 0xC004F042, 0xC004F038, 0xC004F06C
PREVIOUS = hashlib.sha256(b"the batch before").digest()
SEGMENT, NUMBER = 3, 17
MakeRealm = Callable[..., Realm]


@pytest.fixture
def realm(tmp_path: Path) -> Realm:
    return make_realm(tmp_path)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> list[Asked]:
    """Requests of 1,024 machines; the realm's keys are the same in every test."""
    asker = Asker.of(make_realm(tmp_path_factory.mktemp("pool")), "desktop")
    return [asker.ask() for _ in range(1024)]


def seal(maker: BatchMaker, batch: _core.Batch, time_ms: int) -> bytes:
    return batch.seal(SEGMENT, NUMBER, time_ms, PREVIOUS, maker.installation.private_key.sign)


def ask(maker: BatchMaker, *asked: Asked, time_ms: int | None = None) -> list[tuple[bytes | None, int]]:
    """One batch of these requests, from decision to answers."""
    batch = maker.collect([one.request for one in asked])
    time_ms = time_ms or now_ms()
    maker.decide(batch, time_ms)
    seal(maker, batch, time_ms)
    batch.answer()
    return maker.answers()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 255, 256, 1023, 1024])
def test_every_answer_verifies_with_the_reference(realm: Realm, pool: list[Asked], size: int) -> None:
    maker, asker, asked = BatchMaker(realm), Asker.of(realm, "desktop"), pool[:size]
    time_ms = now_ms()
    batch = maker.collect([one.request for one in asked])
    maker.decide(batch, time_ms)
    header_hash = seal(maker, batch, time_ms)
    entries = batch.record_bytes()[188:]
    batch.answer()
    answers = maker.answers()
    step = 1 if size <= 8 else 37
    for index in {*range(0, size, step), size - 1}:
        verified = asker.check(asked[index], answers[index][0])
        assert verified.header.tree_size == size
        assert verified.leaf_hash == hash_leaf(entries[264 * index :][:118])
        assert hashlib.sha256(verified.header.to_bytes()).digest() == header_hash
        answer = answers[index][0]
        assert answer is not None
        assert struct.unpack_from("<H", answer, 2) == (index,)
    # From the header on, the answers of a batch are the same bytes.
    assert len({answer[-504:] for answer, _ in answers if answer}) == 1


def test_the_header_says_what_it_was_told(realm: Realm) -> None:
    maker, asker = BatchMaker(realm), Asker.of(realm, "desktop")
    asked, time_ms = asker.ask(), now_ms()
    verified = asker.check(asked, ask(maker, asked, time_ms=time_ms)[0][0])
    header, certificate = verified.header, maker.installation.certificate
    assert (header.segment, header.number, header.time, header.previous) == (SEGMENT, NUMBER, time_ms, PREVIOUS)
    assert (header.host_id, header.serial, header.revocation_list) == (certificate.host_id, certificate.serial, 0)


def test_the_record_is_that_of_the_document(realm: Realm) -> None:
    maker, asker = BatchMaker(realm), Asker.of(realm, "desktop")
    asked = asker.ask(
        previous_cmid=b"previous machine",
        name="Wärme-7".encode(),
        minutes_to_expiry=0x01020304,
        revocation_list=0x05060708,
        library_version=0x090A0B0C,
        licence_state=5,
        virtual_machine=1,
        predecessor=b"leaf hash of the lease renewed..",
    )
    batch = maker.collect([asked.request, asker.ask().request])
    time_ms = now_ms()
    maker.decide(batch, time_ms)
    seal(maker, batch, time_ms)
    record = batch.record_bytes()
    assert len(record) == 188 + 2 * 264
    assert struct.unpack_from("<I4s", record) == (len(record), b"KFL1")
    header, signature = record[8:124], record[124:188]
    make_key("host").public_key().verify(signature, b"kms_fast 1 batch header\0" + header)
    batch.answer()
    leaf = asker.check(asked, maker.answers()[0][0]).leaf
    address = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 7])
    assert record[188 : 188 + 264] == leaf.to_bytes() + struct.pack(
        "<64s16s32sIIIBB16sHH",
        "Wärme-7".encode(),
        b"previous machine",
        b"leaf hash of the lease renewed..",
        0x01020304,
        0x05060708,
        0x090A0B0C,
        5,
        1,
        address,
        40_007,
        0,
    )


def test_names_can_be_left_out(realm: Realm) -> None:
    maker, asker = BatchMaker(realm, HostSettings(record_names=False)), Asker.of(realm, "desktop")
    batch = maker.collect([asker.ask(name=b"secret").request])
    maker.decide(batch, now_ms())
    seal(maker, batch, now_ms())
    assert batch.record_bytes()[188 + 118 : 188 + 182] == bytes(64)


def test_peers_as_people_write_them() -> None:
    assert _core.unpack_peer(PEER) == "192.0.2.7"
    assert _core.unpack_peer(b"\x20\1\x0d\xb8" + bytes(11) + b"\1\2\1") == "2001:db8::1"


def test_the_first_row_that_applies_decides(tmp_path: Path) -> None:
    """docs/protocol.md, "What a host decides": a machine may break several rules at once."""
    realm = make_realm(tmp_path, threshold=2)
    maker = BatchMaker(realm)
    askers = {name: Asker.of(realm, name) for name in realm.skus}
    wrong_ms = now_ms() - 5 * HOUR_MS
    cases = [
        ("server", {"client_time": wrong_ms}, CANNOT_SERVE, 255, 1, 0),
        ("newer", {"client_time": wrong_ms}, CANNOT_SERVE, 0, 4, 0),
        ("desktop", {"client_time": wrong_ms}, CLOCKS_DIFFER, 0, 3, 0),
        ("desktop", {}, COUNT_TOO_LOW, 0, 3, 1),
        ("newer", {}, CANNOT_SERVE, 0, 4, 1),
        ("desktop", {}, GRANTED, 0, 3, 2),
        ("desktop", {"client_time": wrong_ms}, CLOCKS_DIFFER, 0, 3, 2),
        ("server", {}, CANNOT_SERVE, 255, 1, 0),
    ]
    asked = [askers[name].ask(**fields) for name, fields, *_ in cases]
    answers = ask(maker, *asked)
    for (name, _, *expected), one, (answer, _) in zip(cases, asked, answers, strict=True):
        sku = realm.skus[name]
        leaf = askers[name].check(one, answer).leaf
        assert [leaf.result, leaf.family_index, leaf.generation, leaf.current_count] == expected
        assert leaf.validity == (sku.validity_min if leaf.result == GRANTED else 0)
        intervals = (sku.activation_interval_min, sku.renewal_interval_min)
        assert (leaf.activation_interval, leaf.renewal_interval) == intervals
        assert leaf.threshold == 2


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("beyond_ms", "result"), [(0, GRANTED), (1, CLOCKS_DIFFER)])
def test_four_hours_to_the_millisecond(realm: Realm, sign: int, beyond_ms: int, result: int) -> None:
    maker, asker, time_ms = BatchMaker(realm), Asker.of(realm, "desktop"), now_ms()
    asked = asker.ask(client_time=time_ms + sign * (4 * HOUR_MS + beyond_ms))
    assert asker.check(asked, ask(maker, asked, time_ms=time_ms)[0][0]).leaf.result == result


@pytest.mark.parametrize("client_ms", [0, (1 << 64) - 1])
def test_the_ends_of_time(realm: Realm, client_ms: int) -> None:
    maker, asker = BatchMaker(realm), Asker.of(realm, "desktop")
    asked = asker.ask(client_time=client_ms)
    leaf = asker.check(asked, ask(maker, asked)[0][0]).leaf
    assert (leaf.result, leaf.client_time) == (CLOCKS_DIFFER, client_ms)


def test_intervals_of_the_host_within_the_catalogs_bounds(realm: Realm) -> None:
    settings = HostSettings(activation_interval_min=15, renewal_interval_min=1440)
    maker, asker = BatchMaker(realm, settings), Asker.of(realm, "desktop")
    asked = asker.ask()
    leaf = asker.check(asked, ask(maker, asked)[0][0]).leaf
    assert (leaf.activation_interval, leaf.renewal_interval) == (15, 1440)


def test_machines_that_were_forgotten_do_not_show_in_refusals(realm: Realm) -> None:
    """The count known is today's, also when nobody in the batch counts."""
    maker = BatchMaker(realm, HostSettings(retention_s=60, renewal_interval_min=None))
    desktop, newer = Asker.of(realm, "desktop"), Asker.of(realm, "newer")
    time_ms = now_ms()
    ask(maker, desktop.ask(), time_ms=time_ms)
    late = newer.ask()
    assert newer.check(late, ask(maker, late, time_ms=time_ms + 60_001)[0][0]).leaf.current_count == 0


def test_refusing_a_batch_answers_each_request(realm: Realm, pool: list[Asked]) -> None:
    maker = BatchMaker(realm)
    batch = maker.collect([one.request for one in pool[:300]])
    assert not maker.peer.connection.is_read
    batch.refuse(0xE04B0003)
    assert maker.answers() == [(None, 0xE04B0003)] * 300
    assert maker.peer.connection.is_read
    assert maker.host.waiting == 0


def test_connections_that_went_away_get_nothing(realm: Realm, pool: list[Asked]) -> None:
    maker = BatchMaker(realm)
    gone = Peer(maker.poller)
    gone.send(rpc.build_request(pool[0].request, 5))
    batch = maker.collect([pool[1].request])
    assert len(maker.host.connections) == 2
    gone.socket.close()
    maker.poller.work()
    time_ms = now_ms()
    maker.decide(batch, time_ms)
    seal(maker, batch, time_ms)
    batch.answer()
    assert len(maker.answers()) == 1
    assert len(maker.host.connections) == 1


def test_more_than_a_batch_waits_in_several(realm: Realm, pool: list[Asked]) -> None:
    maker = BatchMaker(realm)
    for number in range(2500):
        maker.peer.send(rpc.build_request(pool[number % 1024].request, number))
    sizes = []
    while batch := maker.host.take_batch():
        sizes.append(batch.size)
    assert sizes == [1024, 1024, 452]
    assert maker.host.waiting == 0


def test_past_max_waiting_the_host_is_busy(realm: Realm, pool: list[Asked]) -> None:
    maker = BatchMaker(realm, HostSettings(max_waiting=3))
    for number in range(5):
        maker.peer.send(rpc.build_request(pool[number].request, number))
    assert maker.answers() == [(None, 0xE04B0003)] * 2
    assert maker.host.counters()["busy"] == 2
    batch = maker.host.take_batch()
    assert batch is not None
    assert batch.size == 3


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(65)])
def test_a_signature_of_another_size(realm: Realm, pool: list[Asked], signature: bytes) -> None:
    maker = BatchMaker(realm)
    batch = maker.collect([pool[0].request])
    maker.decide(batch, now_ms())
    with pytest.raises(ValueError, match="64 bytes"):
        batch.seal(1, 1, now_ms(), PREVIOUS, lambda message: signature)


@pytest.mark.parametrize("previous", [b"", bytes(31), bytes(33)])
def test_a_previous_hash_of_another_size(realm: Realm, pool: list[Asked], previous: bytes) -> None:
    maker = BatchMaker(realm)
    batch = maker.collect([pool[0].request])
    maker.decide(batch, now_ms())
    with pytest.raises(ValueError, match="32 bytes"):
        batch.seal(1, 1, now_ms(), previous, lambda message: bytes(64))


def test_a_revocation_list_that_is_too_short() -> None:
    with pytest.raises(ValueError, match="revocation list"):
        _core.AdmissionTable([], [], b"", bytes(16), 1, 0, 1, bytes(31))


@pytest.mark.parametrize("size", [0, 263, 265, 1025 * 264])
def test_the_root_of_no_entries(size: int) -> None:
    with pytest.raises(ValueError, match="264 bytes"):
        _core.entries_root(bytes(size))


class TestExactCounts:
    """Batches decided as the batcher does it: the store first, then the order of arrival."""

    THRESHOLD = 25

    @pytest.fixture
    def ask_counted(self, tmp_path: Path) -> Callable[..., list[int]]:
        realm = make_realm(tmp_path, threshold=self.THRESHOLD)
        self.asker = Asker.of(realm, "desktop")
        self.maker = BatchMaker(realm)
        self.counts = SqliteCounts(tmp_path / "counts.db")

        def run(*asked: Asked) -> list[int]:
            """Their results, in one batch."""
            batch = self.maker.collect([one.request for one in asked])
            time_ms = now_ms()
            family = self.maker.table.families[0]
            assert batch.decide_product_and_clock(time_ms) == [0]
            recording = self.counts.record(
                1, batch.cmids_of(0), time_ms, cap=family.cap, retention_ms=family.retention_ms
            )
            family.load(asyncio.run(recording))
            batch.decide_counts(time_ms)
            seal(self.maker, batch, time_ms)
            batch.answer()
            answers = self.maker.answers()
            return [self.asker.check(one, answer).leaf.result for one, (answer, _) in zip(asked, answers, strict=True)]

        return run

    def test_the_twenty_fifth_is_the_first_to_be_granted(self, ask_counted: Callable[..., list[int]]) -> None:
        asked = [self.asker.ask() for _ in range(26)]
        assert [ask_counted(one)[0] for one in asked] == [COUNT_TOO_LOW] * 24 + [GRANTED] * 2

    def test_twenty_three_known_and_three_new(self, ask_counted: Callable[..., list[int]]) -> None:
        known = [self.asker.ask() for _ in range(23)]
        assert ask_counted(*known) == [COUNT_TOO_LOW] * 23
        assert ask_counted(*(self.asker.ask() for _ in range(3))) == [COUNT_TOO_LOW, GRANTED, GRANTED]
        assert ask_counted(known[0]) == [GRANTED]

    def test_one_machine_a_thousand_times(self, ask_counted: Callable[..., list[int]]) -> None:
        one = self.asker.ask()
        assert ask_counted(*[one] * 1000) == [COUNT_TOO_LOW] * 1000
        assert ask_counted(one) == [COUNT_TOO_LOW]


def test_the_certificates_maximum_validity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tests.hosts.CertifiedFamily",
        lambda number, generation, threshold, _: CertifiedFamily(number, generation, threshold, 60),
    )
    realm = make_realm(tmp_path)
    maker, asker = BatchMaker(realm), Asker.of(realm, "desktop")
    asked = asker.ask()
    assert asker.check(asked, ask(maker, asked)[0][0]).leaf.validity == 60
