"""kill -9 under load, again and again: what clients were told is compared with what the host's home holds."""

import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kms_fast.load.proof import prove_ledger
from tests.durability.checker import CheckerProcess
from tests.durability.host import (
    Host,
    HostFailed,
    Load,
    draw_address,
    planting_environment,
    send_signal,
    wait_for_end,
    write_trust,
)
from tests.hosts import make_realm

KILL_WITHIN_S: Final = 0.4
KILL_AT_START_SHARE: Final = 0.15
START_S: Final = 1.0
RATE: Final = 1_500.0
CONNECTIONS: Final = 32
ALONE_SHARE: Final = 0.7
SUPERVISOR_SHARE: Final = 0.2
MOST_ALONE: Final = 4


@dataclass(frozen=True)
class Fleet:
    """Who asks: how many machines, and whether that leaves the family below its cap."""

    threshold: int
    machines: int

    @property
    def below_cap(self) -> bool:
        """Whether every machine is stored before it is answered."""
        return self.machines < 2 * self.threshold


FLEETS: Final = (Fleet(25, 100_000), Fleet(200, 300))


@dataclass
class Round:
    """What came of some kills: how many they were, how many answers were acknowledged, what is wrong."""

    kills: int
    answers: int
    lost: int
    texts: list[str]


def kill_often(
    folder: Path, kills: int, checker: CheckerProcess, draw: random.Random, fleet: Fleet, *,
    options: Sequence[str] = (), plants: Sequence[str] = (),
) -> Round:  # fmt: skip
    """Kill one host ``kills`` times under one load, and start it again each time; then check its home."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    realm = make_realm(folder, threshold=fleet.threshold)
    trust, record = folder / "trust.json", folder / "acknowledged.jsonl"
    write_trust(realm, trust)
    environment, address = planting_environment("small_steps", *plants), draw_address(draw)

    def start() -> Host:
        return Host(realm.home, address, folder / "serve.log", environment, *options)

    executioner, load, texts = Executioner(start, draw), None, []
    try:
        executioner.host.wait_until_listening()
        load = Load(
            address, realm, record, draw, connections=CONNECTIONS, seconds=86_400.0, rate=RATE,
            clients=(0, fleet.machines),
        )  # fmt: skip
        load.wait_until_answered()
        for _ in range(kills):
            executioner.kill()
        load.stop()
        executioner.stop()
    except HostFailed as error:
        texts.append(f"no recovery: {error}")
    finally:
        executioner.host.kill()
        if load is not None:
            load.kill()
    answer = checker.ask(check="home", trust=trust, record=record, home=realm.home, below_cap=fleet.below_cap)
    proof = prove_ledger(realm.home, record)
    if not proof.ok:
        texts.append(f"ledger verify or export: {proof}")
    return Round(kills, answer["answers"], answer["count"] + len(texts), [*answer["texts"], *texts])


class Executioner:
    """Kills a host, whole or one of its processes, and starts it again where that takes it down."""

    def __init__(self, start: Callable[[], Host], draw: random.Random) -> None:
        self._start = start
        self._draw = draw
        self._alone = 0
        self._orphans: list[int] = []
        self.host = start()

    def kill(self) -> None:
        """One kill at a random moment. Raises HostFailed when the host does not come up again."""
        time.sleep(self._draw.uniform(0, KILL_WITHIN_S))
        children = self.host.list_processes()[1:]
        # The supervisor takes more deaths of one worker within a minute for a crash loop.
        if children and self._alone < MOST_ALONE and self._draw.random() < ALONE_SHARE:
            self._alone += 1
            victim = self._draw.choice(children)
            send_signal(victim, signal.SIGKILL)
            wait_for_end(victim)
            return
        if self._draw.random() < SUPERVISOR_SHARE:
            self._orphans += self.host.kill_supervisor()
        else:
            self.host.kill()
        self._alone = 0
        self.host = self._start()
        if self._draw.random() < KILL_AT_START_SHARE:
            time.sleep(self._draw.uniform(0, START_S))
        else:
            self.host.wait_until_listening()

    def stop(self) -> None:
        """Let the host drain. Raises HostFailed unless it ends with exit code 0, and those left behind have ended."""
        if not self.host.listening:
            self.host.wait_until_listening()
        self.host.wait_until_complete()
        self.host.stop()
        for pid in self._orphans:
            wait_for_end(pid)
