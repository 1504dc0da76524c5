"""Reading a ledger back: the proof that it is whole, and its records one by one."""

import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kms_fast.errors import ConfigurationError, LedgerError
from kms_fast.host.segment import (
    ENTRY_SIZE,
    Head,
    Record,
    SegmentStart,
    is_held,
    is_torn,
    list_segments,
    read_records,
    read_start,
)
from kms_fast.model import signing
from kms_fast.model.certificate import HostCertificate, parse_chain, verify_chain

_RECORDED = struct.Struct("<BBBBI32s16s16s")


@dataclass(slots=True)
class Verdict:
    """What `verify_ledger` found. ``chain_ok`` is true: anything else is a `LedgerError`."""

    segments: int = 0
    batches: int = 0
    records: int = 0
    granted: int = 0
    torn_tails: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    chain_ok: bool = True

    def to_json(self) -> dict[str, Any]:
        """The object that ``ledger verify --json`` prints."""
        return {"ok": True, **asdict(self)}


def verify_ledger(
    folder: Path, *, roots: Sequence[bytes], publisher_id: bytes, on_progress: Callable[[Verdict], None]
) -> Verdict:
    """Check every segment: certificates against the roots, chain of headers, signatures, trees, times.

    A last record that was cut short by a crash is no damage (`torn_tails`): its commit never returned. Raises
    `LedgerError` that names segment and batch.
    """
    verdict = Verdict()
    starts = {path: _read_start(path) for path in list_segments(folder)}
    heads = _Heads(head for start in starts.values() for head in start.heads)
    host_id = next((start.host_id for start in starts.values()), b"")
    for path, start in starts.items():
        certificate = _verify_start(start, path, roots=roots, publisher_id=publisher_id)
        if start.host_id != host_id:
            raise LedgerError(f"{path} belongs to another host than the segments before it.", file=str(path))
        with path.open("rb") as file:
            _SegmentAudit(path, start, certificate, verdict, heads).run(file, on_progress)
        verdict.segments += 1
    return verdict


class _Heads:
    """The batches that some segment continues, and what was found of them."""

    def __init__(self, named: Iterable[Head]) -> None:
        self._times_ms: dict[tuple[int, bytes], int | None] = {(head.segment, head.header_hash): None for head in named}
        self._ends: dict[int, bytes] = {}

    def note(self, segment: int, header_hash: bytes, time_ms: int) -> None:
        """A batch was found."""
        if (segment, header_hash) in self._times_ms:
            self._times_ms[segment, header_hash] = time_ms

    def note_end(self, segment: int, header_hash: bytes) -> None:
        """The last batch of a segment was found."""
        self._ends[segment] = header_hash

    def find_problem(self, head: Head) -> str | None:
        """What is wrong with a head of a later segment."""
        time_ms = self._times_ms[head.segment, head.header_hash]
        if time_ms is None:
            return "at a batch that is not there: the earlier segment was cut, changed or removed"
        if time_ms != head.time_ms:
            return "at a batch of another time"
        if head.ended and self._ends[head.segment] != head.header_hash:
            return "as ended at a batch that others follow"
        return None


def _read_start(path: Path) -> SegmentStart:
    with path.open("rb") as file:
        return read_start(file, path)


def _verify_start(start: SegmentStart, path: Path, *, roots: Sequence[bytes], publisher_id: bytes) -> HostCertificate:
    try:
        certificate, issuer = parse_chain(start.certificates)
        # A segment is opened while its certificate is valid; each batch is checked against the dates below.
        at_ms = max(certificate.not_before_ms, issuer.not_before_ms)
        verify_chain(certificate, issuer, roots=roots, publisher_id=publisher_id, at_ms=at_ms)
    except ConfigurationError as error:
        raise LedgerError(f"The certificates in {path} do not verify: {error.message}", file=str(path)) from error
    if certificate.host_id != start.host_id:
        raise LedgerError(f"The certificates in {path} belong to another host.", file=str(path))
    return certificate


class _SegmentAudit:
    """The checks of one segment's records in order."""

    def __init__(
        self,
        path: Path,
        start: SegmentStart,
        certificate: HostCertificate,
        verdict: Verdict,
        heads: _Heads,
    ) -> None:
        self._path = path
        self._start = start
        self._certificate = certificate
        self._verdict = verdict
        self._heads = heads
        self._previous = start.previous
        self._number = 0
        self._time_ms = start.time_ms

    def run(self, file: BinaryIO, on_progress: Callable[[Verdict], None]) -> None:
        """Check the segment. A later one may continue any of its batches: workers write side by side."""
        for head in self._start.heads:
            self._check_head(head)
        ended = not is_held(file)
        end = self._start.size
        self._heads.note(self._start.segment, self._previous, self._time_ms)
        for record in read_records(file, self._path, end):
            self._check(record)
            self._heads.note(self._start.segment, self._previous, self._time_ms)
            end += len(record.data)
            on_progress(self._verdict)
        self._heads.note_end(self._start.segment, self._previous)
        self._verdict.torn_tails += ended and is_torn(file, end)

    def _check_head(self, head: Head) -> None:
        problem = self._heads.find_problem(head)
        if problem:
            raise LedgerError(
                f"{self._path} continues segment {head.segment} {problem}.", file=str(self._path), segment=head.segment
            )

    def _check(self, record: Record) -> None:
        header = record.header
        self._number += 1
        if (header.segment, header.number) != (self._start.segment, self._number):
            raise self._error(f"it is numbered {header.segment}/{header.number}")
        if header.previous != self._previous:
            raise self._error("it does not continue the batch before it")
        if (header.host_id, header.certificate_serial) != (self._certificate.host_id, self._certificate.serial):
            raise self._error("it was signed under another certificate than its segment's")
        if not signing.verify(
            self._certificate.public_key, record.signed_header[116:], signing.BATCH_HEADER, record.signed_header[:116]
        ):
            raise self._error("its signature does not verify")
        if header.time_ms < self._time_ms:
            raise self._error("its time goes back")
        if not self._certificate.not_before_ms <= header.time_ms <= self._certificate.not_after_ms:
            raise self._error("it was signed outside its certificate's dates")
        self._previous, self._time_ms = header.hash, header.time_ms
        self._count(record, header.time_ms)

    def _count(self, record: Record, time_ms: int) -> None:
        verdict, entries = self._verdict, record.entries
        verdict.batches += 1
        verdict.records += len(entries) // ENTRY_SIZE
        verdict.granted += sum(entries[at : at + 4] == b"\0\0\0\0" for at in range(4, len(entries), ENTRY_SIZE))
        verdict.first_ms = time_ms if verdict.first_ms is None else min(verdict.first_ms, time_ms)
        verdict.last_ms = time_ms if verdict.last_ms is None else max(verdict.last_ms, time_ms)

    def _error(self, what: str) -> LedgerError:
        batch = f"{self._start.segment}/{self._number}"
        return LedgerError(f"Batch {batch} in {self._path} is wrong: {what}.", file=str(self._path), batch=batch)


def list_records(folder: Path) -> Iterator[str]:
    """Every record of a ledger as a line of JSON: request hash, CMID, SKU, result, time (ms), batch, index.

    Raises `LedgerError` where a segment is damaged so that its records cannot be told apart.
    """
    for path in list_segments(folder):
        with path.open("rb") as file:
            start = read_start(file, path)
            for record in read_records(file, path, start.size):
                yield from _format_entries(record)


def _format_entries(record: Record) -> Iterator[str]:
    # Written by hand: a ledger has millions of them, and every value is a number or hexadecimal.
    header = record.header
    tail = f'"time":{header.time_ms},"batch":"{header.segment}/{header.number}","index":'
    entries = record.entries
    for index in range(len(entries) // ENTRY_SIZE):
        *_, result, request_hash, sku, cmid = _RECORDED.unpack_from(entries, index * ENTRY_SIZE)
        yield (
            f'{{"request_hash":"{request_hash.hex()}","cmid":"{uuid.UUID(bytes=cmid)}",'
            f'"sku":"{uuid.UUID(bytes=sku)}","result":{result},{tail}{index}}}'
        )
