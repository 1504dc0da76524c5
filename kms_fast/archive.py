"""A folder in one file and back: a tar archive that ends with ``backup.json``, the SHA-256 of every file in it.

So a cut or changed archive is not taken for a whole one. What belongs into it is its users' business.
"""

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final

import msgspec

from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.files import SECRET, SECRET_FOLDER, open_atomically, sync_folder
from kms_fast.sqlite import copy_database

_CONTENTS: Final = "backup.json"
_UNFINISHED: Final = ".restoring"
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

    def __str__(self) -> str:
        return f"{self.files} files, {self.size_bytes / 1e6:.1f} MB"


@contextmanager
def open_archive(
    target: Path, format_name: str, created_ms: int, on_progress: Callable[[Copied], None]
) -> Iterator["ArchiveWriter"]:
    """An archive to add files to, that is there whole when the block ends, readable by its owner only; none when it
    fails. Raises OSError.
    """
    with open_atomically(target, mode=SECRET) as file, tarfile.open(fileobj=file, mode="w") as archive:
        writer = ArchiveWriter(archive, target, Contents(format_name, created_ms, {}), on_progress)
        yield writer
        writer.finish()


class ArchiveWriter:
    """Adds files to an archive and notes what it holds."""

    def __init__(
        self, archive: tarfile.TarFile, target: Path, contents: Contents, on_progress: Callable[[Copied], None]
    ) -> None:
        self._archive = archive
        self._target = target
        self._contents = contents
        self._on_progress = on_progress
        self.copied = Copied()

    def add_file(self, name: str, path: Path) -> None:
        """Add a file as it is."""
        with path.open("rb") as file:
            self.add(name, file, os.fstat(file.fileno()).st_size)

    def add_database(self, name: str, path: Path) -> None:
        """Add an SQLite file as of one moment, also while others write to it. Raises `KmsFastError` too."""
        copy = self._target.with_name(f".{self._target.name}.database")
        try:
            copy.unlink(missing_ok=True)
            copy.touch(mode=SECRET, exist_ok=False)
            copy_database(path, copy)
            self.add_file(name, copy)
        finally:
            copy.unlink(missing_ok=True)

    def add(self, name: str, file: BinaryIO, size: int) -> None:
        """Add the first bytes of a file."""
        self._contents.files[name] = self._write(name, file, size)
        self.copied.files, self.copied.size_bytes = self.copied.files + 1, self.copied.size_bytes + size
        self._on_progress(self.copied)

    def finish(self) -> None:
        """Write what the archive holds, which is none of its files."""
        data = msgspec.json.encode(self._contents)
        self._write(_CONTENTS, io.BytesIO(data), len(data))

    def _write(self, name: str, file: BinaryIO, size: int) -> str:
        """Write an entry of the archive; its SHA-256."""
        file.seek(0)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.mtime = size, SECRET, self._contents.created_ms // 1000
        hashed = _Hashed(file)
        self._archive.addfile(entry, hashed)
        return hashed.digest.hexdigest()


class _Hashed:
    """What is read of a file, hashed: it may change before it is read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def restore_folder(
    archive: Path,
    format_name: str,
    home: Path,
    name: str,
    *,
    takes: Callable[[str], bool],
    finish: Callable[[Path, Contents], None],
    on_progress: Callable[[Copied], None],
) -> Contents:
    """Make the folder ``name`` of a home from an archive, whole or not at all.

    An empty one, as systemd-tmpfiles makes it, is replaced; root gives it to whose that was. ``takes``: whether a file
    of this name belongs there; ``finish`` does the rest before the folder gets its name.
    Raises `ConfigurationError` for a folder that is not empty, `KmsFastError` (BACKUP_DAMAGED), OSError.
    """
    unfinished = home / _UNFINISHED
    with _make_home(home):
        shutil.rmtree(unfinished, ignore_errors=True)
        owner = _check_unused(home / name)
        try:
            contents = _unpack(archive, format_name, unfinished, takes, on_progress)
            finish(unfinished, contents)
            if owner is not None and os.geteuid() == 0:
                for path in (unfinished, *unfinished.rglob("*")):
                    os.chown(path, *owner)
            for folder in (*(path for path in unfinished.iterdir() if path.is_dir()), unfinished):
                sync_folder(folder)
            unfinished.rename(home / name)
            sync_folder(home)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return contents


def _check_unused(folder: Path) -> tuple[int, int] | None:
    """The user and group of a folder that is empty, as systemd-tmpfiles makes it; None where there is none."""
    if not folder.exists():
        return None
    if not folder.is_dir() or any(folder.iterdir()):
        raise ConfigurationError(
            f"{folder} is not empty, and nothing is restored over it. Move it away, or name another home.",
            file=str(folder),
        )
    status = folder.stat()
    return status.st_uid, status.st_gid


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


def _unpack(
    path: Path, format_name: str, folder: Path, takes: Callable[[str], bool], on_progress: Callable[[Copied], None]
) -> Contents:
    """Write the files of an archive. Raises `KmsFastError` (BACKUP_DAMAGED) unless they are what it says it holds."""
    folder.mkdir(SECRET_FOLDER, parents=True)
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
                if not takes(entry.name):
                    raise _damaged(path, f"{entry.name!r} does not belong there")
                found[entry.name] = _write_file(folder / entry.name, source)
                copied.files, copied.size_bytes = copied.files + 1, copied.size_bytes + entry.size
                on_progress(copied)
    except (tarfile.TarError, EOFError, msgspec.DecodeError) as error:
        raise _damaged(path, str(error)) from error
    if contents is None:
        raise _damaged(path, "its end is missing")
    if contents.format != format_name:
        raise _damaged(path, f"its format is {contents.format!r}, not {format_name!r}")
    for name in sorted(found.keys() | contents.files.keys()):
        if found.get(name) != contents.files.get(name):
            raise _damaged(path, f"{name} is not what was backed up")
    return contents


def _write_file(target: Path, source: IO[bytes]) -> str:
    """Write one file of an archive; its SHA-256."""
    target.parent.mkdir(SECRET_FOLDER, exist_ok=True)
    digest = hashlib.sha256()
    with open_atomically(target, mode=SECRET) as file:
        while data := source.read(_COPY_BYTES):
            digest.update(data)
            file.write(data)
    return digest.hexdigest()


def _damaged(path: Path, reason: str) -> KmsFastError:
    return KmsFastError(
        f"{path} is not a whole backup: {reason}.", name="BACKUP_DAMAGED", file=str(path), reason=reason
    )
