"""The fold against plain Python: rows, totals, and which batches it takes."""

import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kms_fast import _core
from kms_fast.host.segment import SegmentStart
from kms_fast.store import ChangeRow
from tests.segments import HOST_ID, REFUSED, SKU, SegmentWriter, hash_said, make_entry

NOW_MS = 1_800_000_000_000
PREVIOUS = SegmentStart(1, HOST_ID, b"", ()).previous
BLOCK = 4096


def fold_file(path: Path, *, room: int = 1 << 16, fold: _core.Fold | None = None) -> _core.Fold:
    fold = _core.Fold(room) if fold is None else fold
    with path.open("rb") as file:
        fold.add_batches(_core.RecordReader(file.fileno(), BLOCK), 1, 0, PREVIOUS)
    return fold


def fold_plainly(asked: list[tuple[int, dict[str, Any]]]) -> list[ChangeRow]:
    """What (time, arguments of `make_entry`) come to, by dictionaries and one at a time."""
    machines: dict[tuple[bytes, bytes], list[tuple[int, dict[str, Any]]]] = {}
    for time_ms, entry in asked:
        machines.setdefault((entry["cmid"], entry["sku"]), []).append((time_ms, entry))
    return [make_row(*key, sorted(machines[key], key=lambda one: one[0])) for key in sorted(machines)]


def make_row(cmid: bytes, sku: bytes, asked: list[tuple[int, dict[str, Any]]]) -> ChangeRow:
    grants = [(time_ms, entry) for time_ms, entry in asked if entry["result"] == 0]
    refusals = [(time_ms, entry) for time_ms, entry in asked if entry["result"] != 0]
    last = asked[-1][1]
    hardware = [entry["hardware"] for _, entry in asked]
    changes = sum(one != other for one, other in itertools.pairwise(hardware))
    peer = last["peer"]
    return (
        cmid,
        sku,
        asked[0][0],
        len(grants),
        grants[-1][0] if grants else None,
        grants[-1][0] + 60_000 * grants[-1][1]["validity_min"] if grants else None,
        len(refusals),
        refusals[-1][0] if refusals else None,
        refusals[-1][1]["result"] if refusals else None,
        1 if last["result"] == 0 else last["state"],
        last["name"].decode() or None,
        peer[12:] if peer[:12] == bytes(10) + b"\xff\xff" else peer if any(peer) else None,
        hardware[0],
        hardware[-1],
        changes,
        last["predecessor"] if any(last["predecessor"]) else None,
        last["previous_cmid"] if any(last["previous_cmid"]) else None,
        last["virtual"],
        last["library_version"],
        None if changes else hash_said(make_entry(**last)),
    )


def invent_entry(random: random.Random) -> dict[str, Any]:
    """An entry of one of few machines, which often differ in their last bytes only."""
    return {
        "cmid": random.choice([b"\0" * 8, b"\xff" * 8, b"a" * 8]) + bytes(7) + bytes([random.randrange(6)]),
        "sku": random.choice([SKU, b"T" * 16, SKU[:15] + b"T"]),
        "result": random.choice([0, 0, 0, REFUSED, 0xC004F06C]),
        "hardware": random.choice([b"1" * 16, b"1" * 16, b"2" * 16]),
        "validity_min": random.choice([1, 259_200, 525_600]),
        "name": random.choice([b"", b"desk", "Büro".encode(), b"x" * 64, "😀".encode() * 16]),
        "previous_cmid": random.choice([bytes(16), random.randbytes(16)]),
        "predecessor": random.choice([bytes(32), random.randbytes(32)]),
        "state": random.choice([0, 1, 2, 3, 5]),
        "virtual": random.randrange(2),
        "library_version": random.randrange(1 << 32),
        "peer": random.choice([bytes(16), bytes(10) + b"\xff\xff" + random.randbytes(4), random.randbytes(16)]),
    }


@pytest.mark.parametrize("seed", range(20))
def test_rows_and_totals_are_those_of_plain_python(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    asked: list[tuple[int, dict[str, Any]]] = []
    time_ms = NOW_MS
    with SegmentWriter(tmp_path, 1) as segment:
        for _ in range(chance.randrange(1, 30)):
            time_ms += chance.choice([0, 0, 1, 1000])
            batch = [invent_entry(chance) for _ in range(chance.randrange(1, 20))]
            segment.append([make_entry(**entry) for entry in batch], time_ms)
            asked += [(time_ms, entry) for entry in batch]
    fold = fold_file(segment.path)
    assert len(fold) == len(asked)
    assert list(fold) == fold_plainly(asked)
    totals = Counter((entry["sku"], entry["result"], entry["state"]) for _, entry in asked)
    assert sorted(fold.totals()) == sorted((*kind, requests) for kind, requests in totals.items())


def cut(column: bytes, size: int) -> list[bytes]:
    return [column[at : at + size] for at in range(0, len(column), size)]


LAST_MS = (1 << 26) - 1  # of the time in packed grants: the newest of all

# CMID and SKU; activations, their newest time and its end; predecessor
Granted = tuple[bytes, bytes, int, int, int, bytes | None]


def grants_of(row: ChangeRow) -> Granted:
    """What columns add of a row that is grants and nothing else."""
    assert row[4] is not None
    assert row[5] is not None
    assert row[6:9] == (0, None, None)
    return (row[0], row[1], row[3], row[4], row[5], row[15])


def unpack(renewals: _core.Renewals, ids: list[int]) -> list[Granted]:
    """What is added to the machines that have an id, in the order of these."""
    grants, cmids = renewals.grants(ids), dict(zip(ids, cut(renewals.cmids, 16), strict=True))
    packed = memoryview(grants.packed).cast("q").tolist()
    assert [one >> 32 for one in packed] == sorted(one for one in ids if one)
    predecessors = [None] * len(packed) if grants.predecessors is None else cut(grants.predecessors, 32)
    times = [grants.since_ms + (one & LAST_MS) for one in packed]
    return [
        (cmids[one >> 32], renewals.sku, (one >> 26 & 63) + 1, time_ms, time_ms + grants.validity_ms, predecessor)
        for one, time_ms, predecessor in zip(packed, times, predecessors, strict=True)
    ]


@pytest.mark.parametrize("seed", range(10))
def test_columns_and_the_other_rows_are_all_rows(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with SegmentWriter(tmp_path, 1) as segment:
        for number in range(30):
            batch = [invent_entry(chance), invent_entry(chance)]
            batch += [invent_entry(chance) | {"cmid": chance.randbytes(16)} for _ in range(3)]
            again = batch[-1] | {"predecessor": chance.randbytes(32)}
            segment.append([make_entry(**entry) for entry in [*batch, again]], NOW_MS + number)
            segment.append([make_entry(**again)], NOW_MS + number + 9)
    fold = fold_file(segment.path)
    rows: dict[tuple[bytes, bytes], ChangeRow] = {row[:2]: row for row in fold}
    for _ in range(2):
        added: list[Granted] = []
        for renewals in fold.renewals():
            machines = [rows[cmid, renewals.sku] for cmid in cut(renewals.cmids, 16)]
            assert memoryview(renewals.first_ms).cast("q").tolist() == [row[2] for row in machines]
            assert cut(renewals.said, 8) == [row[19] for row in machines]
            numbers = chance.sample(range(1, 1 << 31), k=len(machines))
            unknown = chance.sample(range(len(machines)), k=len(machines) // 2)
            added += unpack(renewals, [0 if place in unknown else number for place, number in enumerate(numbers)])
        others = list(fold.others())
        assert others == [rows[key] for key in sorted(row[:2] for row in others)]
        assert sorted(added) == sorted(grants_of(rows[key]) for key in rows.keys() - {row[:2] for row in others})
        assert {row[2] for row in added} >= {1, 3}


def test_what_cannot_be_packed_is_rows(tmp_path: Path) -> None:
    """More grants of one machine than 64, a time 18.6 hours before the newest one, an id of 32 bits."""
    machines = [bytes([number]) * 16 for number in range(5)]
    with SegmentWriter(tmp_path, 1) as segment:
        segment.append([make_entry(machines[3])], NOW_MS - 1)
        segment.append([make_entry(machines[0]) for _ in range(64)], NOW_MS)
        segment.append([make_entry(machines[1]) for _ in range(65)], NOW_MS)
        segment.append([make_entry(machines[2]), make_entry(machines[4])], NOW_MS + (1 << 26) - 1)
    fold = fold_file(segment.path)
    [renewals] = fold.renewals()
    assert cut(renewals.cmids, 16) == [machines[number] for number in (0, 2, 3, 4)]
    packed = renewals.grants([9, (1 << 31) - 1, 7, 1 << 31]).packed
    assert memoryview(packed).cast("q").tolist() == [9 << 32 | 63 << 26, (1 << 31) - 1 << 32 | (1 << 26) - 1]
    assert [(row[0], row[3]) for row in fold.others()] == [(machines[1], 65), (machines[3], 1), (machines[4], 1)]


def test_ids_that_are_not_those_of_the_machines(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, 1) as segment:
        segment.append([make_entry(b"a" * 16), make_entry(b"b" * 16)], NOW_MS)
    fold = fold_file(segment.path)
    [renewals] = fold.renewals()
    for ids in ([], [1], [1, 2, 3]):
        with pytest.raises(ValueError, match="there are 2 machines"):
            renewals.grants(ids)
    for wrong in ([0, -1], [1 << 64, 2]):
        with pytest.raises(OverflowError):
            renewals.grants(wrong)
    assert memoryview(renewals.grants([9, 8]).packed).cast("q").tolist() == [8 << 32 | LAST_MS, 9 << 32 | LAST_MS]
    with pytest.raises(ValueError, match="were taken"):
        renewals.grants([9, 8])
    [renewals] = fold.renewals()
    fold.clear()
    with pytest.raises(ValueError, match="has changed"):
        renewals.grants([9, 8])
    with pytest.raises(IndexError):
        _core.Renewals(fold, 0)


def test_columns_of_a_fold_that_was_added_to(tmp_path: Path) -> None:
    """A machine that was granted once may be refused by then."""
    fold = _core.Fold(100)
    for number, cmids in ((1, b"ab"), (2, b"ac")):
        with SegmentWriter(tmp_path, number) as segment:
            result = 0 if number == 1 else REFUSED
            segment.append([make_entry(b"a" * 16, result=result), make_entry(cmids[1:] * 16)], NOW_MS + number)
        previous = SegmentStart(number, HOST_ID, b"", ()).previous
        with segment.path.open("rb") as file:
            fold.add_batches(_core.RecordReader(file.fileno(), BLOCK), number, 0, previous)
        [renewals] = fold.renewals()
        assert cut(renewals.cmids, 16) == [bytes([cmid]) * 16 for cmid in (b"ab" if number == 1 else b"bc")]
    assert [(row[0], row[3], row[6]) for row in fold.others()] == [(b"a" * 16, 1, 1)]


def test_more_kinds_than_sets_of_columns_are_rows(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, 1) as segment:
        segment.append([make_entry(bytes([n]) * 16, validity_min=n + 1) for n in range(20)], NOW_MS)
    fold = fold_file(segment.path)
    assert len(fold.renewals()) == 16
    assert list(fold.others()) == list(fold)[16:]


def test_many_machines_are_sorted(tmp_path: Path) -> None:
    chance = random.Random(7)
    cmids = [chance.randbytes(16) for _ in range(5000)]
    with SegmentWriter(tmp_path, 1) as segment:
        for at in range(0, len(cmids), 1000):
            segment.append([make_entry(cmid) for cmid in cmids[at : at + 1000]], NOW_MS)
    assert [row[0] for row in fold_file(segment.path)] == sorted(cmids)


def test_it_can_be_iterated_again_and_added_to(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, 1) as segment:
        segment.append([make_entry(b"b" * 16), make_entry(b"a" * 16)], NOW_MS)
    fold = fold_file(segment.path)
    assert list(fold) == list(fold)
    fold_file(segment.path, fold=fold)
    assert [(row[0][:1], row[3]) for row in fold] == [(b"a", 2), (b"b", 2)]


def test_a_cleared_fold_is_as_a_new_one(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path / "one", 1) as first, SegmentWriter(tmp_path / "other", 1) as second:
        first.append([make_entry(b"a" * 16), make_entry(b"b" * 16, result=REFUSED)], NOW_MS)
        second.append([make_entry(b"b" * 16)], NOW_MS)
    fold = fold_file(first.path, room=2)
    fold.renewals()
    fold.clear()
    assert (len(fold), fold.is_full, list(fold), fold.totals()) == (0, False, [], [])
    fold_file(second.path, fold=fold)
    fresh = fold_file(second.path)
    assert (list(fold), list(fold.others()), fold.totals()) == (list(fresh), list(fresh), fresh.totals())


def test_segments_of_side_by_side_workers_are_put_in_order_of_time(tmp_path: Path) -> None:
    fold = _core.Fold(100)
    for number, times in ((1, (0, 20)), (2, (10, 30))):
        with SegmentWriter(tmp_path, number) as segment:
            for time_ms in times:
                segment.append([make_entry(b"a" * 16, name=b"at-%d" % time_ms)], NOW_MS + time_ms)
        with segment.path.open("rb") as file:
            previous = SegmentStart(number, HOST_ID, b"", ()).previous
            fold.add_batches(_core.RecordReader(file.fileno(), BLOCK), number, 0, previous)
    [row] = fold
    assert (row[2], row[3], row[4], row[10]) == (NOW_MS, 4, NOW_MS + 30, "at-30")


def test_where_it_ended(tmp_path: Path) -> None:
    fold = _core.Fold(100)
    with SegmentWriter(tmp_path, 1) as segment, segment.path.open("rb") as file:
        reader = _core.RecordReader(file.fileno(), BLOCK)
        assert fold.add_batches(reader, 1, 0, PREVIOUS) is None
        for number in range(3):
            segment.append([make_entry(bytes([number]) * 16)], NOW_MS + number)
        batch = fold.add_batches(reader, 1, 0, PREVIOUS)
        assert batch == (segment.offsets[2], 3, segment.header_hash, NOW_MS + 2)
        assert batch is not None
        assert fold.add_batches(reader, 1, 3, batch.header_hash) is None
        segment.append([make_entry(b"x" * 16)], NOW_MS + 9)
        assert fold.add_batches(reader, 1, 3, batch.header_hash) == (
            segment.offsets[3],
            4,
            segment.header_hash,
            NOW_MS + 9,
        )


def test_a_full_fold_goes_on_in_the_next(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, 1) as segment:
        for number in range(5):
            segment.append([make_entry(bytes([number, i]) + bytes(14)) for i in range(4)], NOW_MS)
    taken, number, header_hash = [], 0, PREVIOUS
    with segment.path.open("rb") as file:
        reader = _core.RecordReader(file.fileno(), BLOCK)
        while True:
            fold = _core.Fold(6)
            batch = fold.add_batches(reader, 1, number, header_hash)
            if batch is None:
                break
            assert fold.is_full or batch.number == 5
            number, header_hash = batch.number, batch.header_hash
            taken.append(len(fold))
    assert taken == [8, 8, 4]


@pytest.mark.parametrize("wrong", ["number", "segment", "previous"])
def test_a_batch_that_does_not_continue_is_not_taken(tmp_path: Path, wrong: str) -> None:
    fold = _core.Fold(100)
    with SegmentWriter(tmp_path, 1) as segment:
        segment.append([make_entry(b"a" * 16)], NOW_MS)
        good = segment.number, segment.header_hash
        if wrong == "number":
            segment.number += 1
        elif wrong == "segment":
            segment.segment = 2
        else:
            segment.header_hash = bytes(32)
        segment.append([make_entry(b"b" * 16)], NOW_MS)
    with segment.path.open("rb") as file:
        reader = _core.RecordReader(file.fileno(), BLOCK)
        batch = fold.add_batches(reader, 1, 0, PREVIOUS)
        assert batch is not None
        assert (batch.number, batch.header_hash) == good
        for _ in range(2):
            with pytest.raises(ValueError, match="what follows batch 1/1 does not continue it"):
                fold.add_batches(reader, 1, *good)
    assert [row[0] for row in fold] == [b"a" * 16]


def test_a_torn_tail_is_not_taken(tmp_path: Path) -> None:
    with SegmentWriter(tmp_path, 1) as segment:
        segment.append([make_entry(b"a" * 16)], NOW_MS)
        segment.append([make_entry(b"b" * 16), make_entry(b"c" * 16)], NOW_MS)
    whole = segment.path.read_bytes()
    # The root covers the leaves: cut behind the last one, the record is taken for whole.
    for cut in range(segment.offsets[1], len(whole) - 264 + 118, 37):
        segment.path.write_bytes(whole[:cut] + bytes(300))
        assert len(fold_file(segment.path)) == 1
    segment.path.write_bytes(whole)
    assert len(fold_file(segment.path)) == 3


def test_what_is_not_utf_8_is_replaced(tmp_path: Path) -> None:
    """A host admits none, but a name lies outside of the hashed leaf."""
    with SegmentWriter(tmp_path, 1) as segment:
        segment.append([make_entry(b"a" * 16, name=b"x\xff\0y")], NOW_MS)
    [row] = fold_file(segment.path)
    assert row[10] == "x\ufffd"


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="room"):
        _core.Fold(0)
    with SegmentWriter(tmp_path, 1) as segment, segment.path.open("rb") as file, pytest.raises(ValueError, match="32"):
        _core.Fold(1).add_batches(_core.RecordReader(file.fileno(), BLOCK), 1, 0, b"short")
