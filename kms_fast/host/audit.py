"""The proof that a ledger is whole: every segment, every batch, and what ties the segments together."""

import multiprocessing
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kms_fast.errors import ConfigurationError, KmsFastError, LedgerError
from kms_fast.host.range_audit import Findings, Problem, Range, audit_range, plan_ranges
from kms_fast.host.segment import END, UNKNOWN, Head, SegmentStart, list_segments, read_start_of
from kms_fast.model.certificate import HostCertificate, parse_chain, verify_chain


@dataclass(slots=True)
class Verdict:
    """What `audit_ledger` found. ``lost_heads``: batches known from elsewhere whose loss was accepted.
    ``clock_resets``: how often an administrator let time go back. ``unread_segments``: of which `verify_newest` read
    no more than the first block, or not all.
    """

    segments: int = 0
    unread_segments: int = 0
    pruned_segments: int = 0
    batches: int = 0
    records: int = 0
    granted: int = 0
    torn_tails: int = 0
    lost_heads: int = 0
    clock_resets: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def chain_ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The object that ``ledger verify --json`` prints; without problems, since they make it a failure."""
        return {
            "segments": self.segments,
            "pruned_segments": self.pruned_segments,
            "batches": self.batches,
            "records": self.records,
            "granted": self.granted,
            "torn_tails": self.torn_tails,
            "lost_heads": self.lost_heads,
            "clock_resets": self.clock_resets,
            "first_ms": self.first_ms,
            "last_ms": self.last_ms,
            "chain_ok": self.chain_ok,
        }

    def check(self) -> None:
        """Raise `LedgerError` that names the first problem and lists all, unless the ledger is whole."""
        if not self.problems:
            return
        problems = [problem.to_json() for problem in self.problems]
        message, facts = self.problems[0].message, dict(problems[0])
        del facts["message"]
        if len(problems) > 1:
            message += f" Problems in all: {len(problems)}."
        raise LedgerError(message, **{**self.to_json(), **facts, "problems": problems})


def verify_ledger(
    folder: Path,
    *,
    roots: Sequence[bytes],
    publisher_id: bytes,
    on_progress: Callable[[Verdict], None],
    processes: int = 1,
) -> Verdict:
    """Check every segment: certificates against the roots, chain of headers, signatures, trees, times.

    A last record that was cut short by a crash is no damage (`torn_tails`): its commit never returned. Hosts may write
    meanwhile. Raises `LedgerError` that names segment and batch of the first problem and lists all; OSError.
    """
    audit = _LedgerAudit(roots, publisher_id)
    ranges = [wanted for segment in audit.check_starts(list_segments(folder)) for wanted in plan_ranges(*segment)]
    with _mapping(processes if len(ranges) > 1 else 1) as mapped:
        for wanted, findings in zip(ranges, mapped(ranges), strict=True):
            audit.add(wanted, findings)
            on_progress(audit.verdict)
    audit.check_heads()
    audit.verdict.check()
    return audit.verdict


def verify_newest(folder: Path, *, roots: Sequence[bytes], publisher_id: bytes, limit_s: float) -> Verdict:
    """As `verify_ledger` from the newest record back until so much time has passed, and the first block of every
    segment: what an old, long ledger costs has a bound. Raises `LedgerError`, OSError.
    """
    end_s = time.monotonic() + limit_s
    audit = _LedgerAudit(roots, publisher_id)
    segments = audit.check_starts(list_segments(folder))
    unread = {segment.start.segment for segment in segments}
    for wanted in (wanted for segment in reversed(segments) for wanted in reversed(plan_ranges(*segment))):
        if time.monotonic() >= end_s:
            break
        audit.add(wanted, audit_range(wanted))
        # Its first range comes last.
        unread -= {wanted.start.segment} if wanted.number == 0 else set()
    audit.check_heads(unread)
    audit.verdict.check()
    return audit.verdict


@contextmanager
def _mapping(processes: int) -> Iterator[Callable[[Iterable[Range]], Iterator[Findings]]]:
    if processes == 1:
        yield lambda ranges: map(audit_range, ranges)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_leave_interrupts)
    try:
        yield lambda ranges: pool.map(audit_range, ranges)
    except BrokenProcessPool as error:
        raise KmsFastError("A process that verified the ledger was ended.", name="PROCESS_FAILED") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; the first one ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Segment(NamedTuple):
    """A segment whose first block is whole; ``named``: hashes of its headers that others continue."""

    path: Path
    start: SegmentStart
    certificate: HostCertificate
    named: frozenset[bytes]


class _LedgerAudit:
    """Puts the findings of all ranges together, and checks what ties segments to each other."""

    def __init__(self, roots: Sequence[bytes], publisher_id: bytes) -> None:
        self.verdict = Verdict()
        self._roots = roots
        self._publisher_id = publisher_id
        self._starts: dict[Path, SegmentStart] = {}
        self._heads: dict[tuple[int, bytes], int] = {}
        self._ends: dict[int, bytes] = {}
        self._unreadable: set[int] = set()

    def check_starts(self, paths: Sequence[Path]) -> list[_Segment]:
        """Check first blocks and certificates; the segments whose records are to be checked."""
        for path in paths:
            try:
                self._starts[path] = read_start_of(path)
            except LedgerError as error:
                self._report("first block", error)
                number = path.stem.removeprefix("segment-")
                self._unreadable |= {int(number)} if number.isdecimal() else set()
        named: dict[int, set[bytes]] = defaultdict(set)
        for start in self._starts.values():
            for head in start.heads:
                named[head.segment].add(head.header_hash)
        host_id = next((start.host_id for start in self._starts.values()), b"")
        segments = []
        for path, start in self._starts.items():
            try:
                certificate = self._verify_start(start, path, host_id)
            except LedgerError as error:
                self._report("certificate", error)
                self._unreadable.add(start.segment)
            else:
                segments.append(_Segment(path, start, certificate, frozenset(named[start.segment])))
        return segments

    def _verify_start(self, start: SegmentStart, path: Path, host_id: bytes) -> HostCertificate:
        try:
            certificate, issuer = parse_chain(start.certificates)
            # A segment is opened while its certificate is valid; each batch is checked against the dates below.
            at_ms = max(certificate.not_before_ms, issuer.not_before_ms)
            verify_chain(certificate, issuer, roots=self._roots, publisher_id=self._publisher_id, at_ms=at_ms)
        except ConfigurationError as error:
            raise LedgerError(f"The certificates in {path} do not verify: {error.message}", file=str(path)) from error
        if certificate.host_id != start.host_id:
            raise LedgerError(f"The certificates in {path} belong to another host.", file=str(path))
        if start.host_id != host_id:
            raise LedgerError(f"{path} belongs to another host than the segments before it.", file=str(path))
        return certificate

    def add(self, wanted: Range, findings: Findings) -> None:
        """Take in what was found in the next range of a segment."""
        verdict, segment = self.verdict, wanted.start.segment
        verdict.batches += findings.batches
        verdict.records += findings.records
        verdict.granted += findings.granted
        verdict.torn_tails += findings.torn_tails
        for time_ms in (findings.first_ms, findings.last_ms):
            if time_ms is not None:
                verdict.first_ms = min(time_ms, verdict.first_ms if verdict.first_ms is not None else time_ms)
                verdict.last_ms = max(time_ms, verdict.last_ms or 0)
        verdict.problems += findings.problems
        self._heads |= {(segment, header_hash): time_ms for header_hash, time_ms in findings.heads.items()}
        if not findings.is_whole:
            self._unreadable.add(segment)
        if wanted.last_number is None:
            verdict.segments += 1
            verdict.pruned_segments += findings.is_pruned
            self._ends[segment] = findings.end_hash

    def check_heads(self, unread: AbstractSet[int] = frozenset()) -> None:
        """Check that every segment continues all earlier ones, each at a batch that is there, unless that was not
        read.
        """
        self.verdict.unread_segments = len(unread)
        lost = {head.segment for start in self._starts.values() for head in start.heads if head.lost}
        # What a block said that is not there, or cannot be read, is not known.
        first_gap = min((lost | self._unreadable).difference(self._ends, {UNKNOWN}), default=END)
        ended: set[int] = set()
        before: set[int] = set()
        for path, start in self._starts.items():
            continued = {head.segment for head in start.heads}
            for head in start.heads:
                if head.lost:
                    self.verdict.lost_heads += 1
                elif head.reset:
                    self.verdict.clock_resets += 1
                elif head.segment not in self._unreadable | unread and (problem := self._find_problem(head, lost)):
                    self._report_head(path, start, head.segment, problem)
            if start.segment < first_gap:
                for segment in sorted(before - ended - continued):
                    self._report_head(path, start, segment, "nowhere, although no block says that it has ended")
            ended |= {head.segment for head in start.heads if head.ended}
            before.add(start.segment)

    def _find_problem(self, head: Head, lost: set[int]) -> str | None:
        time_ms = self._heads.get((head.segment, head.header_hash))
        if time_ms is None:
            if head.segment in lost:
                return None
            return "at a batch that is not there: the earlier segment was cut, changed or removed"
        if time_ms != head.time_ms:
            return "at a batch of another time"
        if head.ended and self._ends[head.segment] != head.header_hash:
            return "as ended at a batch that others follow"
        return None

    def _report_head(self, path: Path, start: SegmentStart, segment: int, problem: str) -> None:
        message = f"{path} continues segment {segment} {problem}."
        self.verdict.problems.append(Problem("head", message, str(path), start.segment))

    def _report(self, kind: str, error: LedgerError) -> None:
        self.verdict.problems.append(Problem.of(kind, error))
