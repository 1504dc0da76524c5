"""Entries as JSON and CSV, against the table of docs/ledger.md and Python's own readers."""

import csv
import io
import json
import os
import struct
import uuid
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from kms_fast._core import EXPORT_FIELDS
from kms_fast.errors import LedgerError
from kms_fast.host.export import export_entries
from kms_fast.host.segment import ENTRIES_AT, ENTRY_SIZE, read_records, read_start
from tests.batches import BatchMaker
from tests.hosts import Realm
from tests.ledgers import PAGE_SIZE, Worker, change, offsets, write_segment
from tests.system.asker import Asker, now_ms

pytestmark = pytest.mark.usefixtures("small_steps")

NAMES = ["plain", 'a "quoted" one', "back\\slash", "Ärger-機械", "a,b", "=1+1", "+1", "-1", "@x", "", "\U0001f600" * 16]


def export(realm: Realm, **options: Any) -> bytes:
    return b"".join(export_entries(realm.home / "host" / "ledger", **options))


def read_json(realm: Realm, **options: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export(realm, **options).splitlines()]


def decode(entry: bytes, header: bytes, index: int) -> dict[str, Any]:
    """An entry by the document's tables, without the code that is tested."""
    _, _, family, _, result, request_hash, sku, cmid, hardware = struct.unpack_from("<BBBBI32s16s16s16s", entry)
    client_time, generation, *numbers = struct.unpack_from("<QHIIIII", entry, 88)
    name, previous, predecessor = struct.unpack_from("<64s16s32s", entry, 118)
    minutes, revocations, version, state, virtual, peer, port = struct.unpack_from("<IIIBB16sH", entry, 230)
    segment, number, time_ms = struct.unpack_from("<IQQ", header, 4)
    address = ip_address(peer)
    return {
        "time": time_ms,
        "batch": f"{segment}/{number}",
        "index": index,
        "result": result,
        "request_hash": request_hash.hex(),
        "cmid": str(uuid.UUID(bytes=cmid)),
        "sku": str(uuid.UUID(bytes=sku)),
        "hardware_digest": hardware.hex(),
        "client_time": client_time,
        "family_index": family,
        "generation": generation,
        **dict(
            zip(
                ("validity_min", "activation_interval_min", "renewal_interval_min", "count", "threshold"),
                numbers,
                strict=True,
            )
        ),
        "name": name.rstrip(b"\0").decode() or None,
        "previous_cmid": str(uuid.UUID(bytes=previous)) if any(previous) else None,
        "predecessor": predecessor.hex() if any(predecessor) else None,
        "minutes_to_expiry": minutes,
        "revocations_number": revocations,
        "library_version": f"{version >> 24}.{version >> 16 & 255}.{version & 0xFFFF}",
        "state": state,
        "virtual": bool(virtual),
        "address": str(address.ipv4_mapped or address) if any(peer) else None,
        "port": port if any(peer) else None,
    }


def expect(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        records = list(read_records(file, path, read_start(file, path)))
    return [
        decode(record.entries[at : at + ENTRY_SIZE], record.signed_header, at // ENTRY_SIZE)
        for record in records
        for at in range(0, len(record.entries), ENTRY_SIZE)
    ]


@pytest.fixture
def named(realm: Realm) -> Path:
    """A segment of machines with all kinds of names, other fields at random."""
    maker, asker = BatchMaker(realm), Asker.of(realm, "desktop")
    ledger = maker.open_ledger()
    asked = [
        asker.ask(
            name=name.encode(),
            predecessor=os.urandom(32),
            previous_cmid=os.urandom(16),
            minutes_to_expiry=number,
            library_version=0x0102_0003 + number,
        )
        for number, name in enumerate(NAMES)
    ]
    maker.write(ledger, maker.collect([one.request for one in asked]), now_ms())
    ledger.close()
    return ledger.path


def test_json_has_every_field_of_an_entry(realm: Realm, named: Path) -> None:
    lines = read_json(realm)
    assert lines == expect(named)
    assert [line["name"] for line in lines] == [name or None for name in NAMES]
    assert all(tuple(line) == EXPORT_FIELDS for line in lines)


def test_addresses(realm: Realm, named: Path) -> None:
    peers = ["2001:db8::1", "::1", "fe80::1:0:0:2", "192.0.2.255", "::"]
    for number, peer in enumerate(peers):
        address = ip_address(peer)
        packed = address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
        change(named, PAGE_SIZE + ENTRIES_AT + number * ENTRY_SIZE + 244, packed)
    lines = read_json(realm)
    assert lines == expect(named)
    assert [line["address"] for line in lines[:5]] == [*peers[:4], None]
    assert lines[4]["port"] is None


def test_csv_is_what_json_is(realm: Realm, named: Path) -> None:
    text = export(realm, csv=True).decode()
    assert text.count("\r\n") == len(NAMES) + 1
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert tuple(rows[0]) == EXPORT_FIELDS
    for row, line in zip(rows, read_json(realm), strict=True):
        name = line.pop("name") or ""
        assert row.pop("name") == ("'" + name if name[:1] in {"=", "+", "-", "@"} else name)
        assert row == {
            key: "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in line.items()
        }


def test_a_name_that_no_host_records(realm: Realm, named: Path) -> None:
    """Names are not hashed: a changed file may hold anything."""
    name = b'\n\x1b[2J\xff\xfe"\t' + "é".encode()
    change(named, PAGE_SIZE + ENTRIES_AT + 118, name.ljust(64, b"\0"))
    assert read_json(realm)[0]["name"] == '\n\x1b[2J��"\té'
    rows = list(csv.DictReader(io.StringIO(export(realm, csv=True).decode(), newline="")))
    assert rows[0]["name"] == '\n\x1b[2J��"\té'


def test_only_what_was_signed_in_a_span(realm: Realm, requests: list[bytes]) -> None:
    maker = BatchMaker(realm)
    began_ms = now_ms() - 10_000
    for turn in range(3):
        ledger = maker.open_ledger()
        for step in range(2):
            maker.write(ledger, maker.collect(requests[:2]), began_ms + 1000 * (2 * turn + step))
        ledger.close()
    times = [line["time"] - began_ms for line in read_json(realm)]
    assert times == [n * 1000 for n in range(6) for _ in range(2)]
    for since, until in ((0, 6000), (1000, 2000), (2000, 4001), (1, 1001), (5000, 9000), (6000, 9000), (3000, 3000)):
        found = read_json(realm, since_ms=began_ms + since, until_ms=began_ms + until)
        assert [line["time"] - began_ms for line in found] == [time for time in times if since <= time < until]


def test_while_a_host_writes(realm: Realm, requests: list[bytes]) -> None:
    worker = Worker(realm, requests)
    for batches in range(1, 5):
        worker.write()
        assert len(read_json(realm)) == 2 * batches


def test_many_pieces(realm: Realm, requests: list[bytes]) -> None:
    write_segment(realm, requests, (8,) * 400)
    pieces = list(export_entries(realm.home / "host" / "ledger"))
    assert len(pieces) > 1
    assert all(piece.endswith(b"}\n") for piece in pieces)
    assert len(b"".join(pieces).splitlines()) == 3200


def test_damage_is_told_after_what_comes_before_it(realm: Realm, requests: list[bytes]) -> None:
    path = write_segment(realm, requests)
    change(path, offsets()[1] + ENTRIES_AT + 20)
    pieces = export_entries(path.parent)
    assert next(pieces).count(b"\n") == 3
    with pytest.raises(LedgerError, match="behind batch 1"):
        next(pieces)
