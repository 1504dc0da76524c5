"""A ledger's entries as lines of JSON or CSV, or as the events that administrators know."""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from kms_fast import _core
from kms_fast.host.segment import END, check_tail, is_held, list_segments, read_start, read_start_of
from kms_fast.model.events import HostRequest


def export_entries(folder: Path, *, csv: bool = False, since_ms: int = 0, until_ms: int = END) -> Iterator[bytes]:
    """Every entry of a ledger as a line with all its fields, in pieces of about 1 MiB of whole lines.

    Segment after segment, each in the order of its batches; only those signed from ``since_ms`` to before ``until_ms``.
    CSV begins with a line of names and ends lines as RFC 4180 wants it. Hosts may write meanwhile.

    Raises `LedgerError` where a segment is damaged so that its records cannot be told apart, OSError.
    """
    if csv:
        yield ",".join(_core.EXPORT_FIELDS).encode() + b"\r\n"
    formatter = _core.EntryFormatter(csv)
    starts = {path: read_start_of(path) for path in list_segments(folder)}
    # When a segment's last batch was signed; of one that no later segment says has ended it is not known.
    ends_ms = {head.segment: head.time_ms for start in starts.values() for head in start.heads if head.ended}
    for path, start in starts.items():
        if start.time_ms >= until_ms or ends_ms.get(start.segment, since_ms) < since_ms:
            continue
        with path.open("rb") as file:
            # Read again: it may have been pruned after all of them were listed.
            if read_start(file, path).pruned:
                continue
            held = is_held(file)
            reader = _core.RecordReader(file.fileno(), start.size)
            while text := formatter.format(reader, since_ms, until_ms):
                yield text
            if not held:
                check_tail(file, path, start, reader)


def write_events(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Entries as `export_entries` gives them in JSON, each as the time it was signed and its event 12290."""
    for piece in pieces:
        lines = (_describe(json.loads(line)) for line in piece.splitlines())
        yield "".join(f"{time} {event.line}\n" for time, event in lines).encode()


def _describe(entry: dict[str, Any]) -> tuple[str, HostRequest]:
    signed = datetime.fromtimestamp(entry["time"] / 1000, UTC)
    event = HostRequest(
        result=entry["result"],
        threshold=entry["threshold"],
        name=entry["name"] or "",
        cmid=UUID(entry["cmid"]),
        client_time_ms=entry["client_time"],
        virtual=bool(entry["virtual"]),
        licence_state=entry["state"],
        minutes_to_expiry=entry["minutes_to_expiry"],
        sku=UUID(entry["sku"]),
    )
    return signed.strftime("%Y-%m-%dT%H:%M:%S.") + f"{entry['time'] % 1000:03d}Z", event
