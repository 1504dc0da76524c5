"""A host in one archive, taken while it runs, and a host made from one: what is in its folder (docs/files.md)."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from kms_fast import _core
from kms_fast.archive import Contents, Copied, open_archive, restore_folder
from kms_fast.errors import LedgerError
from kms_fast.files import SECRET_FOLDER
from kms_fast.host.rollback import mark_restored
from kms_fast.host.segment import (
    READ_RECORDS,
    Head,
    SegmentStart,
    hash_header,
    list_segments,
    read_end,
    read_start,
    read_start_of,
    segment_path,
)
from kms_fast.store import Watermark

FORMAT: Final = "kms_fast backup 1"
FILES: Final = (
    "host.key",
    "host.cert",
    "catalog.json",
    "publisher.json",
    "keys.json",
    "kms-fast.toml",
    "pending/keys.json",
    "pending/request.json",
    "pending/publisher.json",
)
DATABASES: Final = ("counts.db", "inventory.db")
_SEGMENT: Final = re.compile(r"ledger/segment-\d{8,}\.kfl")


def write_backup(
    folder: Path,
    target: Path,
    *,
    with_databases: bool,
    read_watermarks: Callable[[], Iterable[Watermark]],
    created_ms: int,
    on_progress: Callable[[Copied], None],
    on_damage: Callable[[LedgerError], None],
) -> Copied:
    """Write the archive of a host's folder, whole or not at all, readable by its owner only.

    ``with_databases``: not for a host whose store is elsewhere, so that such files are of an earlier life.
    ``read_watermarks``: what the inventory has of this host. The host may run: what it signs meanwhile is in the
    archive or not, but whatever a segment continues and the inventory has is. ``on_damage`` is told what of the ledger
    is damaged or gone; unless it raises, that is copied as it lies. Raises `KmsFastError`, OSError.
    """
    with open_archive(target, FORMAT, created_ms, on_progress) as writer:
        for name in FILES:
            if (folder / name).exists():
                writer.add_file(name, folder / name)
        # Before the ledger, so that the inventory names no batch that the archive lacks.
        if with_databases:
            for name in DATABASES:
                if (folder / name).exists():
                    writer.add_database(name, folder / name)
        watermarks = read_watermarks()
        paths = list_segments(folder / "ledger")
        known = _find_known_heads(paths, watermarks)
        # A segment continues batches that were on disk before it was there: those copied after it hold them.
        for path in reversed(paths):
            with path.open("rb") as segment:
                try:
                    start = read_start(segment, path)
                    end = _find_end(segment, path, start, known.pop(start.segment, []))
                except LedgerError as error:
                    on_damage(error)
                    end = os.fstat(segment.fileno()).st_size
                writer.add(f"ledger/{path.name}", segment, end)
        for missing in sorted(known):
            if segment_path(folder / "ledger", missing) not in paths:
                on_damage(_lack(folder / "ledger", missing))
    return writer.copied


def _lack(folder: Path, segment: int) -> LedgerError:
    what = f"{folder} lacks segment {segment}, which a later segment continues or the inventory has."
    return LedgerError(what, file=str(folder), segment=segment)


def _find_known_heads(paths: Sequence[Path], watermarks: Iterable[Watermark]) -> dict[int, list[Head]]:
    """Batches of each segment that blocks and the inventory name; none of a segment whose loss was accepted."""
    heads: list[Head] = []
    for path in paths:
        with suppress(LedgerError):  # told when that segment is copied
            heads += read_start_of(path).heads
    heads += [Head(mark.segment, mark.header_hash, mark.time_ms) for mark in watermarks]
    lost = {head.segment for head in heads if head.lost}
    known = defaultdict(list)
    for head in heads:
        if head.segment not in lost:
            known[head.segment].append(head)
    return known


def _find_end(file: BinaryIO, path: Path, start: SegmentStart, known: Sequence[Head]) -> int:
    """Where a segment's last whole record ends.

    Raises `LedgerError`, also when a batch that is known lies behind it: then that one is damaged, not cut short.
    """
    reader, last, _ = read_end(file, path, start)
    end_hash = hash_header(last) if last else start.previous
    if not _has_heads(file, start, reader.offset, end_hash, known):
        raise LedgerError(
            f"{path} is whole up to byte {reader.offset} only, and a batch behind it is known: a later segment "
            "continues it, or the inventory has it.",
            file=str(path),
            segment=start.segment,
            offset=reader.offset,
        )
    return reader.offset


def _has_heads(file: BinaryIO, start: SegmentStart, end: int, end_hash: bytes, known: Sequence[Head]) -> bool:
    """Whether a segment that ends here with this header has all of its batches that are known."""
    if last := [head for head in known if head.ended]:
        return all(head.header_hash == end_hash for head in last)
    missing = {head.header_hash for head in known} - {end_hash, start.previous}
    reader = _core.RecordReader(file.fileno(), start.size, start.pruned)
    while missing and (headers := reader.read_headers(READ_RECORDS, end)):
        missing -= set(map(hash_header, headers))
    return not missing


def restore_backup(archive: Path, home: Path, on_progress: Callable[[Copied], None]) -> Contents:
    """Make the host's folder of a home from an archive, whole or not at all.

    The host refuses to serve until its rollback is accepted. Raises `ConfigurationError` for a folder that is not
    empty, `KmsFastError` (BACKUP_DAMAGED), OSError.
    """

    def finish(folder: Path, contents: Contents) -> None:
        (folder / "ledger").mkdir(SECRET_FOLDER, exist_ok=True)
        mark_restored(folder / "ledger", contents.created_ms)

    return restore_folder(archive, FORMAT, home, "host", takes=_takes, finish=finish, on_progress=on_progress)


def _takes(name: str) -> bool:
    return name in (*FILES, *DATABASES) or _SEGMENT.fullmatch(name) is not None
