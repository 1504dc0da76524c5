"""Atomic files: whole or not at all, with the rights asked for."""

import os
import stat
from pathlib import Path

import pytest

from kms_fast import files
from kms_fast.files import PUBLIC, SECRET, SECRET_FOLDER, make_folder, read_bounded, write_atomically


@pytest.mark.parametrize("mode", [PUBLIC, SECRET])
def test_a_file_is_replaced_with_its_rights(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o666)
    before = os.umask(0o077)
    try:
        write_atomically(path, b"new", mode=mode)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new", mode=SECRET)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "none" / "file", b"", mode=PUBLIC)
    assert caught.value.filename == str(tmp_path / "none" / "file")


def test_a_folder_is_made_with_those_it_lies_in_and_every_name_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_folder", synced.append)
    folder = tmp_path / "a" / "b" / "c"
    make_folder(folder, mode=SECRET_FOLDER)
    assert stat.S_IMODE(folder.stat().st_mode) == SECRET_FOLDER
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    synced.clear()
    # Whoever made it may have crashed before its name was on disk.
    make_folder(folder, mode=SECRET_FOLDER)
    assert synced == [tmp_path / "a" / "b"]


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(OSError, match="longer than the 4 bytes"):
        read_bounded(path, 4)
