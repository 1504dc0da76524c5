"""Bugs planted into a host from outside, by patching its modules as they are imported: the negative controls.

Python imports this module at its start when its folder is on PYTHONPATH. DURABILITY_PLANT names what to plant, with
commas between. Nothing of the product knows of it.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


def take_small_steps(ledger: ModuleType) -> None:
    """No bug: segments grow by 1 MiB, of which 16 KiB are zeroed at once, so that a cut disk is small."""
    ledger.PREALLOCATE_BYTES = 1 << 20  # type: ignore[attr-defined]
    ledger.ZEROS_AHEAD_BYTES = 1 << 14  # type: ignore[attr-defined]


class Committer:
    """Stands before the real committer; subclasses do something wrong with each batch or with every tenth."""

    real: Any

    def __init__(self, wake_fd: int) -> None:
        self._committer = self.real(wake_fd)
        self._wake_fd = wake_fd
        self._batch: Any = None
        self._commits = 0

    def run(self) -> None:
        self._committer.run()

    def stop(self) -> None:
        self._committer.stop()

    def submit(self, batch: Any, fd: int, offset: int, zeros_to: int) -> int:
        size: int = self._committer.submit(batch, fd, offset, zeros_to)
        return size

    def is_tenth(self) -> bool:
        """Whether a batch is one to do wrong."""
        self._commits += 1
        return self._commits % 10 == 0

    def finish(self) -> Any:
        return self._committer.finish()


class EarlyCommitter(Committer):
    """Answers a batch before its commit begins."""

    def submit(self, batch: Any, fd: int, offset: int, zeros_to: int) -> int:
        batch.answer()
        return super().submit(batch, fd, offset, zeros_to)

    def finish(self) -> Any:
        super().finish()
        return self

    def answer(self) -> None:
        """It was, already."""


class DroppingCommitter(Committer):
    """Says of every tenth batch that it is on disk, and forgets it."""

    def submit(self, batch: Any, fd: int, offset: int, zeros_to: int) -> int:
        if not self.is_tenth():
            return super().submit(batch, fd, offset, zeros_to)
        self._batch = batch
        os.write(self._wake_fd, b"\1")
        return 0

    def finish(self) -> Any:
        batch, self._batch = self._batch, None
        return batch or super().finish()


class DoublingCommitter(Committer):
    """Writes every tenth batch twice."""

    def submit(self, batch: Any, fd: int, offset: int, zeros_to: int) -> int:
        if not self.is_tenth():
            return super().submit(batch, fd, offset, zeros_to)
        # The commit thread is at work already: no zeros may meet the second record.
        size = super().submit(batch, fd, offset, 0)
        os.pwrite(fd, batch.record_bytes(), offset + size)
        return 2 * size


def use_committer(kind: type[Committer]) -> Callable[[ModuleType], None]:
    def patch(core: ModuleType) -> None:
        kind.real = core.Committer
        core.Committer = kind  # type: ignore[attr-defined]

    return patch


def use_synchronous(level: str) -> Callable[[ModuleType], None]:
    """SQLite syncs less than the store asks for."""

    def patch(apsw: ModuleType) -> None:
        class Connection(apsw.Connection):  # type: ignore[name-defined, misc]
            def pragma(self, name: str, *arguments: Any, **options: Any) -> Any:
                return super().pragma(name, *((level,) if name == "synchronous" else arguments), **options)

        apsw.Connection = Connection  # type: ignore[attr-defined]

    return patch


def count_twice(store: ModuleType) -> None:
    """A machine that asks while its family is below the cap counts as two."""
    record = store.SqliteCounts.record

    async def record_twice(self: Any, family: int, cmids: Sequence[bytes], now_ms: int, **limits: int) -> Any:
        before = await record(self, family, cmids, now_ms, **limits)
        return [*before, (os.urandom(16), now_ms)]

    store.SqliteCounts.record = record_twice


def record_twice(store: ModuleType) -> None:
    """The recorder adds every batch to the inventory twice."""
    record = store.SqliteInventory.record

    async def record_again(self: Any, host_id: bytes, rows: Any, totals: Any, watermarks: Any) -> None:
        await record(self, host_id, rows, totals, watermarks)
        await record(self, host_id, rows, totals, watermarks)

    store.SqliteInventory.record = record_again


def ask_sockets(core: ModuleType) -> None:
    """Whenever something arrives, the kernel is asked how each connection's socket is set."""
    make_poller = core.Poller

    class AskingPoller:
        def __init__(self, host: Any, on_error: Any) -> None:
            self._host, self._poller = host, make_poller(host, on_error)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._poller, name)

        def work(self) -> None:
            for connection in self._host.connections:
                os.get_blocking(connection.fd)
            self._poller.work()

    core.Poller = AskingPoller  # type: ignore[attr-defined]


PLANTS: dict[str, dict[str, Callable[[ModuleType], None]]] = {
    "small_steps": {"kms_fast.host.ledger": take_small_steps},
    "early_answer": {"kms_fast._core": use_committer(EarlyCommitter)},
    "dropped_record": {"kms_fast._core": use_committer(DroppingCommitter)},
    "doubled_record": {"kms_fast._core": use_committer(DoublingCommitter)},
    "synchronous_normal": {"apsw": use_synchronous("normal")},
    "synchronous_off": {"apsw": use_synchronous("off")},
    "double_count": {"kms_fast.store.sqlite_counts": count_twice},
    "recorded_twice": {"kms_fast.store.sqlite_inventory": record_twice},
    "asked_sockets": {"kms_fast._core": ask_sockets},
}


class PlantingFinder(importlib.abc.MetaPathFinder):
    """Finds modules as Python does, and patches those that are named once they are loaded."""

    def __init__(self, patches: dict[str, list[Callable[[ModuleType], None]]]) -> None:
        self._patches = patches

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if name not in self._patches:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_patch(module: ModuleType) -> None:
                execute(module)
                for patch in self._patches[name]:
                    patch(module)

            spec.loader.exec_module = execute_and_patch  # type: ignore[method-assign]
        return spec


def plant(names: Sequence[str]) -> None:
    """Plant these, now. Raises KeyError for one that there is not."""
    patches: dict[str, list[Callable[[ModuleType], None]]] = {}
    for name in names:
        for module, patch in PLANTS[name].items():
            patches.setdefault(module, []).append(patch)
    sys.meta_path.insert(0, PlantingFinder(patches))


if os.environ.get("DURABILITY_PLANT"):
    plant(os.environ["DURABILITY_PLANT"].split(","))
