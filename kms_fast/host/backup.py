"""A host in one archive, taken while it runs, and a host made from one.

The archive is a tar file: what is in the host's folder (docs/files.md), and last ``backup.json`` with the SHA-256 of
every file, so that a cut or changed archive is not taken for a whole one.
"""

import hashlib
import io
import os
import re
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final

import msgspec

from kms_fast import _core
from kms_fast.errors import ConfigurationError, KmsFastError, LedgerError
from kms_fast.files import SECRET, SECRET_FOLDER, open_atomically, sync_folder
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
    "pending/request.json",
    "pending/publisher.json",
)
DATABASES: Final = ("counts.db", "inventory.db")
_CONTENTS: Final = "backup.json"
_UNFINISHED: Final = ".restoring"
_SEGMENT: Final = re.compile(r"ledger/segment-\d{8,}\.kfl")
_COPY_BYTES: Final = 1 << 20


class Contents(msgspec.Struct, forbid_unknown_fields=True):
    """What an archive holds: when it was made (ms), and of each file its SHA-256."""

    format: str
    created_ms: int
    files: dict[str, str]


@dataclass(slots=True)
class Copied:
    """How far a backup or a restoration is."""

    files: int = 0
    size_bytes: int = 0


def write_backup(
    folder: Path,
    target: Path,
    *,
    copy_database: Callable[[Path, Path], None] | None,
    read_watermarks: Callable[[], Iterable[Watermark]],
    created_ms: int,
    on_progress: Callable[[Copied], None],
) -> Copied:
    """Write the archive of a host's folder, whole or not at all, readable by its owner only.

    ``copy_database`` copies an SQLite file as of one moment; None for a host whose store is elsewhere, so that such
    files are of an earlier life. ``read_watermarks``: what the inventory has of this host. The host may run: what it
    signs meanwhile is in the archive or not, but whatever a segment continues and the inventory has is. Raises
    `LedgerError` for a damaged ledger, `KmsFastError`, OSError.
    """
    with open_atomically(target, mode=SECRET) as file, tarfile.open(fileobj=file, mode="w") as archive:
        writer = _Writer(archive, created_ms, on_progress)
        for name in FILES:
            if (folder / name).exists():
                writer.add_file(name, folder / name)
        # Before the ledger, so that the inventory names no batch that the archive lacks.
        if copy_database is not None:
            _add_databases(writer, folder, target, copy_database)
        watermarks = read_watermarks()
        paths = list_segments(folder / "ledger")
        known = _find_known_heads(paths, watermarks)
        # A segment continues batches that were on disk before it was there: those copied after it hold them.
        for path in reversed(paths):
            with path.open("rb") as segment:
                start = read_start(segment, path)
                end = _find_end(segment, path, start, known.pop(start.segment, []))
                writer.add(f"ledger/{path.name}", segment, end)
        if known:
            missing = min(known)
            raise LedgerError(
                f"{folder / 'ledger'} lacks segment {missing}, which a later segment continues or the inventory has.",
                file=str(folder / "ledger"),
                segment=missing,
            )
        return writer.finish()


def _add_databases(writer: "_Writer", folder: Path, target: Path, copy_database: Callable[[Path, Path], None]) -> None:
    copy = target.with_name(f".{target.name}.database")
    for name in DATABASES:
        if (folder / name).exists():
            try:
                copy.unlink(missing_ok=True)
                copy.touch(mode=SECRET, exist_ok=False)
                copy_database(folder / name, copy)
                writer.add_file(name, copy)
            finally:
                copy.unlink(missing_ok=True)


class _Writer:
    """Adds files to an archive and notes what it holds."""

    def __init__(self, archive: tarfile.TarFile, created_ms: int, on_progress: Callable[[Copied], None]) -> None:
        self._archive = archive
        self._contents = Contents(FORMAT, created_ms, {})
        self._copied = Copied()
        self._on_progress = on_progress

    def add_file(self, name: str, path: Path) -> None:
        with path.open("rb") as file:
            self.add(name, file, os.fstat(file.fileno()).st_size)

    def add(self, name: str, file: BinaryIO, size: int) -> None:
        """Add the first bytes of a file."""
        file.seek(0)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = size, SECRET, self._contents.created_ms // 1000
        hashed = _Hashed(file)
        self._archive.addfile(entry, hashed)
        self._contents.files[name] = hashed.digest.hexdigest()
        self._copied.files, self._copied.size_bytes = self._copied.files + 1, self._copied.size_bytes + size
        self._on_progress(self._copied)

    def finish(self) -> Copied:
        data = msgspec.json.encode(self._contents)
        self.add(_CONTENTS, io.BytesIO(data), len(data))
        return self._copied


class _Hashed:
    """What is read of a file, hashed: it may change before it is read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def _find_known_heads(paths: Sequence[Path], watermarks: Iterable[Watermark]) -> dict[int, list[Head]]:
    """Batches of each segment that blocks and the inventory name; none of a segment whose loss was accepted."""
    heads = [head for path in paths for head in read_start_of(path).heads]
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
    """Make the host's folder of an empty home from an archive, whole or not at all.

    The host refuses to serve until its rollback is accepted. Raises `ConfigurationError` for a home that is not empty,
    `KmsFastError` (BACKUP_DAMAGED), OSError.
    """
    unfinished = home / _UNFINISHED
    with _make_home(home):
        shutil.rmtree(unfinished, ignore_errors=True)
        if any(home.iterdir()):
            raise ConfigurationError(f"{home} is not empty: a host is restored into a home of its own.", file=str(home))
        try:
            contents = _unpack(archive, unfinished, on_progress)
            mark_restored(unfinished / "ledger", contents.created_ms)
            for folder in (unfinished / "ledger", unfinished / "pending", unfinished):
                if folder.exists():
                    sync_folder(folder)
            unfinished.rename(home / "host")
            sync_folder(home)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return contents


@contextmanager
def _make_home(home: Path) -> Iterator[None]:
    """A home, and the folders it lies in; those that were made for it go again when the block fails."""
    missing = [folder for folder in (home, *home.parents) if not folder.exists()]
    try:
        home.mkdir(SECRET_FOLDER, parents=True, exist_ok=True)
        yield
    except BaseException:
        # One that has something in it by now is somebody else's too.
        with suppress(OSError):
            for folder in missing:
                folder.rmdir()
        raise


def _unpack(path: Path, folder: Path, on_progress: Callable[[Copied], None]) -> Contents:
    """Write the files of an archive. Raises `KmsFastError` (BACKUP_DAMAGED) unless they are what it says it holds."""
    (folder / "ledger").mkdir(SECRET_FOLDER, parents=True)
    found: dict[str, str] = {}
    contents: Contents | None = None
    copied = Copied()
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                source = archive.extractfile(entry) if entry.isreg() else None
                if source is None or contents is not None or entry.name in found:
                    raise _damaged(path, f"{entry.name!r} does not belong there")
                if entry.name == _CONTENTS:
                    contents = msgspec.json.decode(source.read(), type=Contents)
                    continue
                found[entry.name] = _write_file(folder, entry.name, source, path)
                copied.files, copied.size_bytes = copied.files + 1, copied.size_bytes + entry.size
                on_progress(copied)
    except (tarfile.TarError, EOFError, msgspec.DecodeError) as error:
        raise _damaged(path, str(error)) from error
    if contents is None:
        raise _damaged(path, "its end is missing")
    if contents.format != FORMAT:
        raise _damaged(path, f"its format is {contents.format!r}, not {FORMAT!r}")
    for name in sorted(found.keys() | contents.files.keys()):
        if found.get(name) != contents.files.get(name):
            raise _damaged(path, f"{name} is not what was backed up")
    return contents


def _write_file(folder: Path, name: str, source: IO[bytes], path: Path) -> str:
    """Write one file of an archive; its SHA-256."""
    if name not in (*FILES, *DATABASES) and not _SEGMENT.fullmatch(name):
        raise _damaged(path, f"{name!r} does not belong there")
    target = folder / name
    target.parent.mkdir(SECRET_FOLDER, exist_ok=True)
    digest = hashlib.sha256()
    with open_atomically(target, mode=SECRET) as file:
        while data := source.read(_COPY_BYTES):
            digest.update(data)
            file.write(data)
    return digest.hexdigest()


def _damaged(path: Path, reason: str) -> KmsFastError:
    return KmsFastError(
        f"{path} is not a whole backup of a host: {reason}.", name="BACKUP_DAMAGED", file=str(path), reason=reason
    )
