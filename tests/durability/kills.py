"""kill -9 under load, again and again: what clients were told is compared with what the host's home holds."""

import random
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kms_fast.load.proof import prove_ledger
from tests.durability.checker import CheckerProcess
from tests.durability.host import Host, Load, draw_address, planting_environment, send_signal, wait_for_end, write_trust
from tests.hosts import make_realm

KILL_WITHIN_S: Final = 0.4
KILL_AT_START_SHARE: Final = 0.15
START_S: Final = 1.0
RATE: Final = 1_500.0
CONNECTIONS: Final = 32
CHILDREN: Final = ("kms_fast.cli.worker", "kms_fast.cli.recorder")


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
    """Kill one host ``kills`` times under one load, and start it again each time; then check its home.

    Raises HostFailed when it does not come up again.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    realm = make_realm(folder, threshold=fleet.threshold)
    trust, record = folder / "trust.json", folder / "acknowledged.jsonl"
    write_trust(realm, trust)
    environment, address = planting_environment("small_steps", *plants), draw_address(draw)

    def start() -> Host:
        return Host(realm.home, address, folder / "serve.log", environment, *options)

    host, load = start(), None
    try:
        host.wait_until_listening()
        load = Load(
            address, realm, record, draw, connections=CONNECTIONS, seconds=86_400.0, rate=RATE,
            clients=(0, fleet.machines),
        )  # fmt: skip
        load.wait_until_answered()
        for _ in range(kills):
            if _kill_one(host, draw):
                host = start()
                if draw.random() < KILL_AT_START_SHARE:
                    time.sleep(draw.uniform(0, START_S))
                else:
                    host.wait_until_listening()
        if host.process.poll() is None and not host.listening:
            host.wait_until_listening()
        load.stop()
        host.stop()
    finally:
        host.kill()
        if load is not None:
            load.kill()
    answer = checker.ask(check="home", trust=trust, record=record, home=realm.home, below_cap=fleet.below_cap)
    proof = prove_ledger(realm.home, record)
    texts = [*answer["texts"], *([] if proof.ok else [f"ledger verify or export: {proof}"])]
    return Round(kills, answer["answers"], answer["count"] + (not proof.ok), texts)


def _kill_one(host: Host, draw: random.Random) -> bool:
    """Kill the whole host or one of its processes, at a random moment; whether it has to be started again."""
    time.sleep(draw.uniform(0, KILL_WITHIN_S))
    children = find_children(host)
    if children and draw.random() < 0.5:
        victim = draw.choice(children)
        send_signal(victim, signal.SIGKILL)
        wait_for_end(victim)
        return False
    host.kill()
    return True


def find_children(host: Host) -> list[int]:
    """The workers and the recorder, where a host has such."""
    found = []
    for pid in host.list_processes():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        except FileNotFoundError:
            continue
        if any(name in words for name in CHILDREN):
            found.append(pid)
    return found
