"""The processes of one load: started, listened to, merged."""

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator

import msgspec

from kms_fast.errors import KmsFastError
from kms_fast.load.plan import LoadPlan, LoadResult, merge_results
from kms_fast.programs import program_command

PROCESSOR_VARIABLES = {"KMS_FAST_NO_AESNI", "KMS_FAST_NO_SHANI"}
STOP_LIMIT_S = 15.0  # what is under way gets its answer within 10 s


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a load; ``result`` is what is known."""

    def __init__(self, result: LoadResult) -> None:
        super().__init__()
        self.result = result


def own_environment() -> dict[str, str]:
    """The environment of what is measured: without settings of a host (``KMS_FAST_STORE``), which are another one's."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KMS_FAST_") or name in PROCESSOR_VARIABLES
    }


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """TERM, as ``timeout`` sends it, is Ctrl-C in the block: what was begun is ended and removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def hold_interrupts() -> Iterator[None]:
    """Ctrl-C raises at the end of the block, not within it, so that what is made in it is not forgotten.

    What undoes it must hold from there on: the block belongs inside its ``try``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt


def run_load(plan: LoadPlan, *, processes: int = 1, report: Callable[[LoadResult], None] | None = None) -> LoadResult:
    """Run a load in processes of its own and return what they saw.

    ``report`` gets the merged result so far, about twice a second. Raises `Interrupted` on Ctrl-C, after what was under
    way has been answered, and `KmsFastError` when a process died.
    """
    load = _Processes(plan.split(processes))
    try:
        try:
            load.start()
            load.gather(report)
        except KeyboardInterrupt:
            load.stop()
            load.gather(limit_s=STOP_LIMIT_S)
            raise Interrupted(merge_results(load.results)) from None
    finally:
        load.end()
    merged = merge_results(load.results)
    if not merged.finished:
        raise KmsFastError(f"A load process ended without a result: {load.exit_codes()}.", name="INTERRUPTED")
    return merged


class _Processes:
    """The processes of one load, and the newest result of each."""

    def __init__(self, shares: list[LoadPlan]) -> None:
        self.results = [LoadResult() for _ in shares]
        self._shares = shares
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lines: queue.Queue[tuple[int, bytes]] = queue.Queue()  # an empty line: that process has said everything
        self._talking = 0

    def start(self) -> None:
        for number, share in enumerate(self._shares):
            # In a group of its own, so that Ctrl-C on the terminal reaches this process alone.
            with hold_interrupts():
                process = subprocess.Popen(
                    program_command("kms_fast.load.run"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    process_group=0,
                )
                self._processes.append(process)
            self._talking += 1
            threading.Thread(target=self._read, args=(process, number), daemon=True).start()
            assert process.stdin is not None
            # The plan holds the product's keys, so it goes through the pipe and not on the command line.
            process.stdin.write(msgspec.json.encode(share) + b"\n")
            process.stdin.flush()

    def _read(self, process: subprocess.Popen[bytes], number: int) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.put((number, line))
        self._lines.put((number, b""))

    def gather(self, report: Callable[[LoadResult], None] | None = None, limit_s: float | None = None) -> None:
        """Take results until every process has ended; give up when none comes for ``limit_s``."""
        while self._talking:
            try:
                number, line = self._lines.get(timeout=limit_s)
            except queue.Empty:
                return
            if not line:
                self._talking -= 1
                continue
            self.results[number] = msgspec.json.decode(line, type=LoadResult)
            if report:
                report(merge_results(self.results))

    def stop(self) -> None:
        """Let every process come to its end: it does when its stdin ends."""
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    def end(self) -> None:
        """Stop what still runs, by force if need be."""
        self.stop()
        for process in self._processes:
            try:
                process.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def exit_codes(self) -> str:
        return ", ".join(f"exit code {process.returncode}" for process in self._processes)
