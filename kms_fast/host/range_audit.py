"""The checks of a range of one segment's records; `kms_fast.host.audit` puts the ranges of a ledger together."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from kms_fast import _core
from kms_fast.errors import LedgerError
from kms_fast.host.segment import ENTRIES_AT, SegmentStart, check_tail, is_held, read_start
from kms_fast.model import signing
from kms_fast.model.certificate import HostCertificate
from kms_fast.model.lease import HEADER_SIZE, BatchHeader

RANGE_RECORDS: Final = 4096
_BATCHES_PER_CALL: Final = 256

_SIGNATURE: Final = 32
# What `_core.ChainCheck` found, and the signature: kind and words of each fault.
_FAULTS: Final = {
    1: ("number", "it is numbered {header.segment}/{header.number}"),
    2: ("chain", "it does not continue the batch before it"),
    4: ("certificate", "it was signed under another certificate than its segment's"),
    _SIGNATURE: ("signature", "its signature does not verify"),
    8: ("time", "its time goes back"),
    16: ("dates", "it was signed outside its certificate's dates"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: ``kind`` for programs, ``message`` for people, and where it is."""

    kind: str
    message: str
    file: str
    segment: int | None = None
    batch: str | None = None
    offset: int | None = None

    @classmethod
    def of(cls, kind: str, error: LedgerError) -> "Problem":
        """A problem of what an error says."""
        where = {name: error.details[name] for name in ("segment", "batch", "offset") if name in error.details}
        return cls(kind, error.message, error.details["file"], **where)

    def to_json(self) -> dict[str, Any]:
        """Its facts that are known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Range:
    """Records of a segment that are checked in one go.

    Those that begin from ``offset`` to before ``end``; without the first, which the range before checks, unless
    there is none. ``number``: of the batch before ``offset``; ``last_number``: of the range's last batch, None in
    the last range. ``named``: hashes of the segment's headers that later segments continue.
    """

    path: Path
    start: SegmentStart
    certificate: HostCertificate
    offset: int
    end: int
    number: int
    last_number: int | None
    named: frozenset[bytes]

    def as_pruned(self, size: int) -> "Range":
        """The same records once the segment was pruned, whose file has this size."""
        start = replace(self.start, pruned=True)
        end = size if self.last_number is None else start.size + (self.last_number - 1) * ENTRIES_AT + 1
        return replace(self, start=start, offset=start.size + self.number * ENTRIES_AT, end=end)


@dataclass(slots=True)
class Findings:
    """What is in a range. ``heads``: times (ms) of the batches that others continue. ``is_whole``: it has no gap."""

    batches: int = 0
    records: int = 0
    granted: int = 0
    torn_tails: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    heads: dict[bytes, int] = field(default_factory=dict)
    end_hash: bytes = b""
    problems: list[Problem] = field(default_factory=list)
    is_whole: bool = True
    is_pruned: bool = False


def plan_ranges(path: Path, start: SegmentStart, certificate: HostCertificate, named: frozenset[bytes]) -> list[Range]:
    """The ranges of a segment as it is now. Raises OSError."""
    with path.open("rb") as file:
        cuts = _core.walk_frames(file.fileno(), start.size, start.pruned, RANGE_RECORDS)
    last = max(1, len(cuts) - 1)
    return [
        Range(
            path,
            start,
            certificate,
            offset,
            # The record at the next cut is this range's: the next one begins with what follows it.
            cuts[at + 1] + 1 if at + 1 < last else cuts[-1],
            at * RANGE_RECORDS,
            (at + 1) * RANGE_RECORDS + 1 if at + 1 < last else None,
            named,
        )
        for at, offset in enumerate(cuts[:last])
    ]


def audit_range(wanted: Range) -> Findings:
    """Check a range. Raises `LedgerError` when the file is no segment any more, OSError."""
    with wanted.path.open("rb") as file:
        # The recorder prunes while this runs.
        if read_start(file, wanted.path).pruned and not wanted.start.pruned:
            wanted = wanted.as_pruned(os.fstat(file.fileno()).st_size)
        return _RangeAudit(wanted, file).run()


class _RangeAudit:
    def __init__(self, wanted: Range, file: BinaryIO) -> None:
        self._range = wanted
        self._file = file
        self._held = is_held(file)
        self._reader = _core.RecordReader(file.fileno(), wanted.offset, wanted.start.pruned)
        self._findings = Findings(is_pruned=wanted.start.pruned)

    def run(self) -> Findings:
        wanted, findings = self._range, self._findings
        number, previous, time_ms = 0, wanted.start.previous, wanted.start.time_ms
        if wanted.number == 0:
            self._note(previous, time_ms)
        else:
            headers = self._reader.read_headers(1, wanted.end)
            if not headers:
                # The range before it says so.
                findings.is_whole = False
                return findings
            header = BatchHeader.parse(headers[0][:HEADER_SIZE])
            number, previous, time_ms = header.number, header.hash, header.time_ms
        certificate = wanted.certificate
        check = _core.ChainCheck(
            wanted.start.segment,
            certificate.host_id,
            certificate.serial,
            certificate.not_before_ms,
            certificate.not_after_ms,
            number,
            previous,
            time_ms,
        )
        self._check(check)
        self._check_end()
        findings.batches, findings.records, findings.granted = check.batches, check.records, check.granted
        findings.end_hash = check.previous
        if check.batches:
            findings.first_ms, findings.last_ms = check.first_ms, check.last_ms
        return findings

    def _check(self, check: _core.ChainCheck) -> None:
        public_key, named = self._range.certificate.public_key, self._range.named
        while checked := check.check(self._reader, self._range.end, _BATCHES_PER_CALL):
            number = check.number - len(checked)
            for offset, header_hash, message, signature, faults in checked:
                number += 1
                if not signing.verify_message(public_key, signature, message):
                    faults |= _SIGNATURE
                if header_hash in named or faults:
                    header = BatchHeader.parse(message[-HEADER_SIZE:])
                    self._note(header_hash, header.time_ms)
                    self._findings.problems += self._describe(faults, number, offset, header)

    def _note(self, header_hash: bytes, time_ms: int) -> None:
        if header_hash in self._range.named:
            self._findings.heads[header_hash] = time_ms

    def _describe(self, faults: int, number: int, offset: int, header: BatchHeader) -> Iterator[Problem]:
        path, segment = self._range.path, self._range.start.segment
        batch = f"{segment}/{number}"
        for fault, (kind, words) in _FAULTS.items():
            if faults & fault:
                message = f"Batch {batch} in {path} is wrong: {words.format(header=header)}."
                yield Problem(kind, message, str(path), segment, batch, offset)

    def _check_end(self) -> None:
        """Tell a last record that was cut short, or is being written, from one that was damaged."""
        wanted, findings = self._range, self._findings
        if self._reader.offset >= wanted.end and (self._held or wanted.last_number is not None):
            return
        try:
            torn = check_tail(self._file, wanted.path, wanted.start, self._reader)
        except LedgerError as error:
            if not (self._held and self._reader.read(1)):
                findings.problems.append(Problem.of("record", error))
                findings.is_whole = False
        else:
            findings.torn_tails += torn and not self._held
