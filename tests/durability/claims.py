"""What must be true of a host's folder after anything that may happen to it, and what is not: findings.

Nothing here is kms_fast's: ledger, leases and RPC are read by the reference in tests/reference, the counts by SQLite.
"""

import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from tests.durability.conversation import Conversation, Question, Told
from tests.durability.disk import NEVER, DataChange, Disk
from tests.reference.answer import Header, Leaf
from tests.reference.ledger import Record, Segment

COUNT_TOO_LOW = 0xC004F038
NUMBERS = re.compile(r"\b[0-9a-f]{32}\b|\d+")
Placed = TypeVar("Placed", Question, Told)


class Findings:
    """What is wrong: how much of it, and in words the first of each kind (texts that differ only in numbers)."""

    LISTED = 3

    def __init__(self) -> None:
        self.count = 0
        self.texts: list[str] = []
        self._kinds: Counter[str] = Counter()

    def add(self, text: str) -> None:
        """One more."""
        self.add_all(1, [text])

    def add_all(self, count: int, texts: Iterable[str]) -> None:
        """So many more; ``texts`` are words for some of them."""
        self.count += count
        for text in texts:
            kind = NUMBERS.sub("", text)
            self._kinds[kind] += 1
            if self._kinds[kind] <= self.LISTED:
                self.texts.append(text)


class Acknowledged(NamedTuple):
    """One line of ``kms-fast load --record``: a grant."""

    request_hash: bytes
    cmid: bytes
    segment: int
    number: int
    index: int


def read_acknowledged(path: Path) -> list[Acknowledged]:
    """What a load wrote down."""
    found = []
    for line in path.read_bytes().splitlines():
        fields = json.loads(line)
        segment, number = map(int, fields["batch"].split("/"))
        request_hash, cmid = bytes.fromhex(fields["request_hash"]), bytes.fromhex(fields["cmid"].replace("-", ""))
        found.append(Acknowledged(request_hash, cmid, segment, number, fields["index"]))
    return found


class LedgerIndex:
    """Batches of a ledger by number, and how often each request is in it."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.records: dict[tuple[int, int], Record] = {}
        self.requests: Counter[bytes] = Counter()
        for segment in segments:
            for record in segment.records:
                self.records[record.header.segment, record.header.number] = record
                self.requests.update(leaf[8:40] for leaf in record.leaves)

    def leaf(self, segment: int, number: int, index: int) -> bytes | None:
        """The leaf there."""
        record = self.records.get((segment, number))
        return record.leaves[index] if record is not None and index < len(record.leaves) else None


def check_told(told: Iterable[Told], ledger: LedgerIndex, findings: Findings) -> None:
    """Every answer that left is in the ledger once, byte for byte, under the header it came with."""
    for answer in told:
        batch = f"{answer.header.segment}/{answer.header.number}"
        record = ledger.records.get((answer.header.segment, answer.header.number))
        if record is None or record.header_bytes != answer.header_bytes:
            findings.add(f"lost: batch {batch} was answered and is not in the ledger")
        elif ledger.leaf(record.header.segment, record.header.number, answer.index) != answer.leaf_bytes:
            findings.add(f"lost: leaf {answer.index} of batch {batch} is not what its client was told")
        elif ledger.requests[answer.leaf.request_hash] != 1:
            findings.add(f"repeated: leaf {answer.index} of batch {batch} is in the ledger more than once")


def check_acknowledged(lines: Iterable[Acknowledged], ledger: LedgerIndex, findings: Findings) -> None:
    """Every grant that a load wrote down is in the ledger once, as it was told."""
    for line in lines:
        batch = f"{line.segment}/{line.number}"
        found = ledger.leaf(line.segment, line.number, line.index)
        leaf = Leaf.parse(found) if found is not None else None
        if leaf is None or (leaf.result, leaf.request_hash, leaf.cmid) != (0, line.request_hash, line.cmid):
            findings.add(f"lost: leaf {line.index} of batch {batch} was acknowledged and is not in the ledger")
        elif ledger.requests[line.request_hash] != 1:
            findings.add(f"repeated: leaf {line.index} of batch {batch} is in the ledger more than once")


def check_counts_grow(segments: Sequence[Segment], findings: Findings) -> None:
    """Within the retention no count is ever lower than one that a batch before it was signed with."""
    highest: dict[tuple[int, bytes], dict[int, int]] = {}
    for segment in segments:
        counts: dict[int, int] = {}
        for head in segment.start.heads:
            for family, count in highest.get((head.segment, head.header_hash), {}).items():
                counts[family] = max(count, counts.get(family, 0))
        hashes = iter(segment.times())
        highest[segment.start.segment, next(hashes)] = dict(counts)
        for record, header_hash in zip(segment.records, hashes, strict=True):
            for leaf in map(Leaf.parse, record.leaves):
                if leaf.result in (0, COUNT_TOO_LOW):
                    if leaf.current_count < counts.get(leaf.family_index, 0):
                        findings.add(f"a count went back in batch {record.header.number} of {record.header.segment}")
                    counts[leaf.family_index] = leaf.current_count
            highest[segment.start.segment, header_hash] = dict(counts)


def before(sequence: Sequence[Placed], place: int) -> Sequence[Placed]:
    """What came before a place."""
    return sequence[: bisect_left(sequence, place, key=lambda placed: placed.place)]


def check_counting(conversation: Conversation, findings: Findings) -> None:
    """Each count is at least the machines answered before the request came, at most those that had asked by then."""
    asked: dict[int, dict[bytes, int]] = {}
    told: dict[int, dict[bytes, int]] = {}
    for question in conversation.questions:
        asked.setdefault(question.family, {}).setdefault(question.cmid, question.place)
    for answer in conversation.told:
        told.setdefault(answer.family, {}).setdefault(answer.leaf.cmid, answer.place)
    asked_places = {family: sorted(places.values()) for family, places in asked.items()}
    told_places = {family: sorted(places.values()) for family, places in told.items()}
    for answer in conversation.told:
        cap, count = 2 * answer.leaf.threshold, answer.leaf.current_count
        least = min(cap, bisect_left(told_places[answer.family], answer.asked))
        most = min(cap, bisect_left(asked_places[answer.family], answer.place))
        if not least <= count <= most:
            batch = f"{answer.header.segment}/{answer.header.number}"
            findings.add(f"miscounted: {count} machines in batch {batch}, not {least} to {most}")


class Order(NamedTuple):
    """When batches became certain: by (segment, number) their record's place, by segment its name's and start's."""

    records: dict[tuple[int, int], int]
    segments: dict[int, int]


def find_order(disk: Disk) -> Order:
    """From the changes of a traced disk."""
    order = Order({}, {})
    folders: dict[str, int] = {}
    for change in disk.name_changes:
        if change.file is None:
            folders[change.new] = change.durable
        elif change.new.endswith(".kfl"):
            start, *writes = change.file.changes
            folder = folders.get(change.new.rpartition("/")[0], 0)
            order.segments[int(change.new[-12:-4])] = max(folder, change.durable, start.durable)
            for write in writes:
                _note_records(write, order)
    return order


def _note_records(write: DataChange, order: Order) -> None:
    at = 0
    while write.data[at + 4 : at + 8] == b"KFL1":
        header = Header.parse(write.data[at + 8 : at + 124])
        order.records[header.segment, header.number] = write.durable
        at += int.from_bytes(write.data[at : at + 4], "little")


def check_order(told: Iterable[Told], order: Order, findings: Findings) -> None:
    """For each answer, the sync that covers its batch's record had returned, and its segment's name was certain."""
    for answer in told:
        segment, number = answer.header.segment, answer.header.number
        certain = max(order.records.get((segment, number), NEVER), order.segments.get(segment, NEVER))
        if certain >= answer.place:
            findings.add(f"batch {segment}/{number} was answered before it was on disk")
