"""The commit thread: one record at a time, and every failure told."""

import errno
import os
from pathlib import Path

import pytest

from kms_fast import _core
from tests.batches import BatchMaker, committer
from tests.hosts import make_realm
from tests.system.asker import Asker, now_ms


@pytest.fixture
def batch(tmp_path: Path) -> _core.Batch:
    """A sealed batch of one."""
    realm = make_realm(tmp_path)
    maker = BatchMaker(realm)
    batch = maker.collect([Asker.of(realm, "desktop").ask().request])
    maker.decide(batch, now_ms())
    batch.seal(1, 1, now_ms(), bytes(32), maker.installation.private_key.sign)
    return batch


def test_a_record_is_written_where_it_belongs(batch: _core.Batch, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10_000)
    with committer() as (commits, wake_fd), path.open("r+b") as file:
        size = commits.submit(batch, file.fileno(), 5000)
        assert os.read(wake_fd, 2) == b"\1"
        assert commits.finish() is batch
    record = batch.record_bytes()
    assert size == len(record)
    assert path.read_bytes() == b"x" * 5000 + record + b"x" * (5000 - size)


@pytest.mark.parametrize("zeros_to", [0, 5000, 9000, 300_000])
def test_zeros_follow_the_record(batch: _core.Batch, tmp_path: Path, zeros_to: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 400_000)
    with committer() as (commits, wake_fd), path.open("r+b") as file:
        size = commits.submit(batch, file.fileno(), 5000, zeros_to)
        os.read(wake_fd, 1)
        commits.finish()
    zeros = bytes(max(0, zeros_to - 5000 - size))
    written = b"x" * 5000 + batch.record_bytes() + zeros
    assert path.read_bytes() == written + b"x" * (400_000 - len(written))


def test_a_full_device(batch: _core.Batch) -> None:
    with committer() as (commits, wake_fd), Path("/dev/full").open("wb") as file:
        commits.submit(batch, file.fileno(), 0)
        os.read(wake_fd, 1)
        with pytest.raises(OSError, match="No space left") as caught:
            commits.finish()
    assert caught.value.errno == errno.ENOSPC


def test_a_descriptor_that_cannot_be_synced(batch: _core.Batch) -> None:
    with committer() as (commits, wake_fd), Path("/dev/null").open("wb") as file:
        commits.submit(batch, file.fileno(), 0)
        os.read(wake_fd, 1)
        with pytest.raises(OSError, match="Invalid argument"):
            commits.finish()


def test_a_descriptor_that_cannot_be_written(batch: _core.Batch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with committer() as (commits, wake_fd), (tmp_path / "file").open("rb") as file:
        commits.submit(batch, file.fileno(), 0)
        os.read(wake_fd, 1)
        with pytest.raises(OSError, match="Bad file descriptor"):
            commits.finish()


def test_one_commit_at_a_time(batch: _core.Batch, tmp_path: Path) -> None:
    with committer() as (commits, wake_fd), (tmp_path / "file").open("wb") as file:
        commits.submit(batch, file.fileno(), 0)
        with pytest.raises(RuntimeError, match="under way"):
            commits.submit(batch, file.fileno(), 0)
        os.read(wake_fd, 1)
        commits.finish()
