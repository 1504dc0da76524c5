"""A real host for the proofs: ``kms-fast serve`` with all its processes, the realm it serves, and a load on it."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from kms_fast.load.plan import LoadPlan, LoadResult, Product
from tests.hosts import PUBLISHER_ID, SKUS, Realm

PLANTS: Final = Path(__file__).with_name("plants")
PORT: Final = 1688
START_LIMIT_S: Final = 60.0
END_LIMIT_S: Final = 60.0


class HostFailed(Exception):
    """A host that did not start or end as it should; the text is the end of its log."""


def draw_address(draw: random.Random) -> str:
    """An address of loopback that nobody else uses, so that a port can be taken again at once after a kill."""
    return f"127.{draw.randint(100, 250)}.{draw.randint(1, 250)}.{draw.randint(1, 250)}"


def planting_environment(*plants: str) -> dict[str, str]:
    """What a host needs in its environment to be planted with these."""
    return {"PYTHONPATH": str(PLANTS), "DURABILITY_PLANT": ",".join(plants)}


def write_trust(realm: Realm, path: Path) -> None:
    """What clients know, for the checker."""
    skus = [
        {"id": sku.id.bytes.hex(), "secret": sku.secret.hex(), "family": sku.family, "generation": sku.generation}
        for sku in realm.skus.values()
    ]
    path.write_text(json.dumps({"publisher_id": PUBLISHER_ID.hex(), "roots": [realm.root.hex()], "skus": skus}))


class Host:
    """The process tree of one ``kms-fast serve`` on ``address``; its log is appended to ``log``.

    ``listening``: whether it has been waited for.
    """

    def __init__(
        self, home: Path, address: str, log: Path, environment: Mapping[str, str] | None = None, *options: str
    ) -> None:
        command = [sys.executable, "-m", "kms_fast", "serve", "--home", str(home), "--json"]
        self._log = log
        self.listening = False
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [*command, "--listen", f"{address}:{PORT}", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | dict(environment or {}),
                process_group=0,
            )

    def wait_until_listening(self) -> None:
        """Raises HostFailed when it ends instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line or json.loads(line).get("event") != "listening":
            self.kill()
            raise HostFailed(f"{line.decode().strip()} {self.read_log()}")
        self.listening = True
        self._size = len(self.list_processes())

    def wait_until_complete(self) -> None:
        """Until those that were killed alone have been replaced: a worker's death is no failure of a drain, which it
        would be if the supervisor was told to stop before it noticed. Raises HostFailed after a minute.
        """
        end_s = time.monotonic() + END_LIMIT_S
        while len(self.list_processes()) < self._size:
            if time.monotonic() > end_s or self.process.poll() is not None:
                raise HostFailed(f"a process is not replaced: {self.read_log()}")
            time.sleep(0.01)

    def list_processes(self) -> list[int]:
        """The host's process and all that came of it."""
        return list_tree(self.process.pid)

    def kill(self) -> None:
        """SIGKILL for all of them at one moment, as far as there is one."""
        if self.process.poll() is None:
            # Stopped first, so that it replaces nobody meanwhile.
            self.process.send_signal(signal.SIGSTOP)
            tree = self.list_processes()
            for pid in tree:
                send_signal(pid, signal.SIGKILL)
            for pid in tree:
                wait_for_end(pid)
        self.process.wait()

    def kill_supervisor(self) -> list[int]:
        """SIGKILL for the first process alone: the others have to notice, while its successor starts already.

        Gives their process IDs.
        """
        _, *children = self.list_processes()
        self.process.kill()
        self.process.wait()
        return children

    def stop(self) -> None:
        """TERM, and its end. Raises HostFailed unless it ends with exit code 0."""
        self.process.terminate()
        try:
            code = self.process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise HostFailed(f"still there {END_LIMIT_S:.0f} s after TERM: {self.read_log()}") from None
        if code:
            assert self.process.stdout is not None
            said = self.process.stdout.read().decode().strip()
            raise HostFailed(f"exit code {code} after TERM: {said} {self.read_log()}")

    def read_log(self) -> str:
        """The end of what it logged."""
        return self._log.read_text(errors="replace")[-2000:]


def list_tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                found += list_tree(int(child))
    return found


def send_signal(pid: int, number: signal.Signals) -> None:
    """Send it to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_for_end(pid: int) -> None:
    """Until a killed process holds nothing any more. Raises HostFailed after a minute."""
    end_s = time.monotonic() + END_LIMIT_S
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state in "ZX":
            return
        if time.monotonic() > end_s:
            raise HostFailed(f"process {pid} survives SIGKILL")
        time.sleep(0.002)


class Load:
    """One process of ``kms-fast load`` that goes on, whatever its host does, until it is stopped."""

    def __init__(self, address: str, realm: Realm, record: Path, draw: random.Random, **plan: object) -> None:
        """``plan``: fields of `LoadPlan`; machines are drawn anew for each load unless ``machine_seed`` is given."""
        sku = SKUS["desktop"]
        request_key, answer_secret = sku.derive_keys(PUBLISHER_ID)
        product = Product(
            sku_id=sku.id.bytes, request_key=request_key, answer_secret=answer_secret, publisher_id=PUBLISHER_ID,
            roots=(realm.root,), family=sku.family, generation=sku.generation, revoked=(),
        )  # fmt: skip
        fields = {"machine_seed": draw.randbytes(32), "record": str(record), **plan}
        self.plan = LoadPlan(address=address, port=PORT, product=product, **fields)  # type: ignore[arg-type]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kms_fast.load.run"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(self.plan) + b"\n")
        self.process.stdin.flush()

    def wait_until_answered(self) -> None:
        """Until the host has answered something. Raises HostFailed when the load ends before."""
        while not ((result := self._read_result()).activations or result.refused):
            pass

    def stop(self) -> LoadResult:
        """Let it end; what it saw."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        return self.wait()

    def wait(self) -> LoadResult:
        """What it saw when it has ended."""
        while not (result := self._read_result()).finished:
            pass
        self.process.wait()
        return result

    def kill(self) -> None:
        """End it by force, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def _read_result(self) -> LoadResult:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise HostFailed("the load ended without a result")
        result = msgspec.json.decode(line, type=LoadResult)
        if result.finished and result.failure:
            raise HostFailed(f"the load had no answer: {result.failure}")
        return result
