"""What a running host says of itself in its home."""

import errno
import os
from pathlib import Path

import pytest

from kms_fast.errors import KmsFastError
from kms_fast.host.presence import FILE_SIZE, HostProcess, Presence, list_running


def test_a_long_error_leaves_the_addresses_readable(tmp_path: Path) -> None:
    process = HostProcess(pid=1, version="1", started_ms=0, addresses=("127.0.0.1:1688",), workers=1)
    presence = Presence(tmp_path, process)
    error = KmsFastError("x" * 5000, file="y" * 5000).to_json()
    presence.update(reloads=1, reload_error=error)
    (told,) = list_running(tmp_path)
    presence.close()
    assert (told.addresses, told.reloads) == (("127.0.0.1:1688",), 1)
    assert told.reload_error is not None
    assert KmsFastError.from_json(told.reload_error).message == "x" * 1000


def test_long_errors_of_all_kinds_leave_it_readable(tmp_path: Path) -> None:
    process = HostProcess(pid=1, version="1", started_ms=0, addresses=("127.0.0.1:1688",), workers=1)
    presence = Presence(tmp_path, process)
    error = KmsFastError("€" * 1500, file="y" * 5000).to_json()
    for changes in (
        {"reload_error": error},
        {"renewal_failed": {**error, "time_ms": 1}},
        {"reload_error": None},
        {"renewal_failed": None},
    ):
        presence.update(**changes)
        assert (tmp_path / "serve-1.json").stat().st_size == FILE_SIZE
        (told,) = list_running(tmp_path)
        for name, value in changes.items():
            shown = getattr(told, name)
            assert (shown is None) is (value is None)
            assert shown is None or (shown["message"][:100], shown["cure"]) == ("€" * 100, error["cure"])
    presence.close()


def test_what_needs_more_than_a_page_leaves_no_rest(tmp_path: Path) -> None:
    addresses = tuple(f"192.0.2.1:{port}" for port in range(1000, 1400))
    process = HostProcess(pid=1, version="1", started_ms=0, addresses=addresses, workers=1)
    presence = Presence(tmp_path, process)
    assert list_running(tmp_path) == [process]
    presence.update(addresses=addresses[:1])
    assert list_running(tmp_path)[0].addresses == addresses[:1]
    presence.close()


def test_a_full_disk_names_the_file_and_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", refuse)
    process = HostProcess(pid=7, version="1", started_ms=0, addresses=("127.0.0.1:1688",), workers=1)
    with pytest.raises(OSError, match="No space left") as caught:
        Presence(tmp_path, process)
    assert caught.value.filename == str(tmp_path / "serve-7.json")
    assert list(tmp_path.iterdir()) == []
