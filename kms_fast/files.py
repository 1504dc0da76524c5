"""Files that hold keys and state: read with a bound, written so that a crash leaves the old or the new one whole."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

PUBLIC: Final = 0o644
SECRET: Final = 0o600
SECRET_FOLDER: Final = 0o700
MAX_READ_BYTES: Final = 64 << 20
# More than any file with a key or a certificate takes.
SMALL_BYTES: Final = 1 << 16


def write_atomically(path: Path, data: bytes, *, mode: int) -> None:
    """Replace ``path`` by a file of ``data`` with permissions ``mode``; on disk when this returns. Raises OSError."""
    with open_atomically(path, mode=mode) as file:
        file.write(data)


@contextmanager
def open_atomically(path: Path, *, mode: int) -> Iterator[BinaryIO]:
    """A file to write that replaces ``path`` when the block ends, and is on disk then; none when it fails.

    Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            # The umask may have taken rights away from a public file.
            temporary.chmod(mode)
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None  # what the caller named
        raise
    sync_folder(path.parent)


@contextmanager
def lock_folder(path: Path) -> Iterator[None]:
    """One process at a time is in here: each sees what those before it wrote. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    """Put a folder's entries on disk. Raises OSError; does nothing where folders cannot be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, *, mode: int = 0o777) -> None:
    """Make a folder and those it lies in; its name is then on disk, also if it was there before. Raises OSError."""
    if not path.parent.is_dir():
        make_folder(path.parent)
    path.mkdir(mode, exist_ok=True)
    sync_folder(path.parent)


def read_bounded(path: Path, limit_bytes: int = MAX_READ_BYTES) -> bytes:
    """The file's bytes, at most ``limit_bytes``. Raises OSError, also for a file that is longer."""
    with path.open("rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise OSError(errno.EFBIG, f"longer than the {limit_bytes} bytes that such a file may have", str(path))
    return data
