"""What must be true of the stores in a host's home: its counts, and the inventory that is made of its ledger.

The files are read with Python's own SQLite, which is none of kms_fast's; nobody else may have them open.
"""

import sqlite3
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.durability import claims
from tests.durability.conversation import Conversation
from tests.durability.disk import NEVER
from tests.reference.answer import Leaf
from tests.reference.crypto import sha256
from tests.reference.ledger import Segment


def read_rows(path: Path, queries: Sequence[str], findings: claims.Findings) -> list[list[Any]]:
    """The rows of each query; none, and a finding, when the file is damaged; none when there is no such file."""
    if not path.exists():
        return [[] for _ in queries]
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return [database.execute(query).fetchall() for query in queries]
    except sqlite3.DatabaseError as error:
        findings.add(f"{path.name} cannot be read: {error}")
        return [[] for _ in queries]


Counted = dict[tuple[int, bytes], int]
"""The machines in a store of counts: (family, CMID) and when each was seen (ms)."""


def read_counts(path: Path, findings: claims.Findings) -> Counted:
    """Every row of the database of counts."""
    (rows,) = read_rows(path, ["SELECT family, cmid, seen_ms FROM counts"], findings)
    return {(family, cmid): seen_ms for family, cmid, seen_ms in rows}


def check_stored(conversation: Conversation, place: int, counted: Counted, findings: claims.Findings) -> None:
    """Every machine that was answered before ``place``, while its family was below the cap, is still counted.

    Unless so many others may have asked since that it had to make room: requests without an answer may have come last.
    """
    latest: dict[tuple[int, bytes], int] = {}
    promised: dict[tuple[int, bytes], int] = {}
    caps: dict[int, int] = {}
    questions = claims.before(conversation.questions, place)
    open_questions = Counter((question.family, question.cmid) for question in questions)
    for answer in claims.before(conversation.told, place):
        machine = answer.family, answer.leaf.cmid
        open_questions[machine] -= 1
        latest[machine] = max(answer.header.time, latest.get(machine, 0))
        caps[answer.family] = 2 * answer.leaf.threshold
        if answer.leaf.current_count < caps[answer.family]:
            promised[machine] = max(answer.header.time, promised.get(machine, 0))
    latest |= {machine: NEVER for machine, count in open_questions.items() if count > 0}
    times = {family: sorted(time for (other, _), time in latest.items() if other == family) for family in caps}
    for (family, cmid), time in promised.items():
        as_late = len(times[family]) - bisect_left(times[family], time)
        if as_late <= caps[family] and counted.get((family, cmid), 0) < time:
            findings.add(f"lost: machine {cmid.hex()} was counted in an answer and is not in the store")
    for family, cap in caps.items():
        if sum(other == family for other, _ in counted) > cap:
            findings.add(f"family {family} has more than {cap} machines in the store")


def check_all_stored(segments: Iterable[Segment], counted: Counted, findings: claims.Findings) -> None:
    """Every machine in the ledger is counted, as it must be while its family is below the cap."""
    cmids = {cmid for _, cmid in counted}
    for segment in segments:
        for record in segment.records:
            for leaf in map(Leaf.parse, record.leaves):
                if leaf.result in (0, claims.COUNT_TOO_LOW) and leaf.cmid not in cmids:
                    findings.add(f"lost: machine {leaf.cmid.hex()} is in the ledger and not in the store")


def check_inventory(segments: Sequence[Segment], path: Path, findings: claims.Findings, *, complete: bool) -> None:
    """The inventory is the ledger up to its watermarks, every record once; with ``complete`` all of the ledger."""
    clients, watermarks = read_rows(
        path,
        [
            "SELECT cmid, sku, activations, refusals FROM inventory",
            "SELECT segment, number, header_hash FROM watermarks",
        ],
        findings,
    )
    reached: dict[int, int] = {}
    by_number = {segment.start.segment: segment for segment in segments}
    for number, batch, header_hash in watermarks:
        records = by_number[number].records if number in by_number else ()
        if len(records) < batch or sha256(records[batch - 1].header_bytes) != header_hash:
            findings.add(f"batch {number}/{batch} is in the inventory and not in the ledger")
        reached[number] = batch
    expected: dict[tuple[bytes, bytes], list[int]] = {}
    for segment in segments:
        recorded = segment.records[: reached.get(segment.start.segment, 0)]
        if complete and len(recorded) < len(segment.records):
            findings.add(f"segment {segment.start.segment} is recorded up to batch {len(recorded)} only")
        for record in recorded:
            for leaf in map(Leaf.parse, record.leaves):
                expected.setdefault((leaf.cmid, leaf.sku_id), [0, 0])[leaf.result != 0] += 1
    found = {(cmid, sku): [activations, refusals] for cmid, sku, activations, refusals in clients}
    for machine in expected.keys() | found.keys():
        if expected.get(machine) != found.get(machine):
            findings.add(
                f"machine {machine[0].hex()} has {found.get(machine)} activations and refusals in the inventory, "
                f"{expected.get(machine)} in the ledger"
            )
