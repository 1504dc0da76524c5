"""Running a real host under real load and recording it (recording.py)."""

import json
import random
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tests.durability import trace
from tests.durability.disk import NOT_ON_DISK, PowerCuts
from tests.durability.host import Host, Load, draw_address, planting_environment, write_trust
from tests.durability.recording import Recording
from tests.durability.trace import BrokenTrace
from tests.hosts import Realm, make_realm

TRACED: Final = "host"
END: Final = "end"
HAPPENS_WITHIN_BYTES: Final = 400_000

Life = Literal["drain", "kill", "reload"]


@dataclass(frozen=True)
class Script:
    """What a host goes through. ``lives``: for each start, what happens in the middle of its load and how it ends.

    ``machines``: how many distinct ones ask in all of it; more than twice the threshold take the family to its cap.
    ``plants``: bugs to plant. ``pretend``: files whose syncs are only pretended.
    """

    threshold: int = 25
    machines: int = 40
    connections: int = 8
    activations: int = 200
    lives: Sequence[Life] = ("kill", "drain")
    options: Sequence[str] = ()
    plants: Sequence[str] = ()
    pretend: str | None = None

    @classmethod
    def draw(cls, draw: random.Random) -> "Script":
        """One at random: one worker or two, below the cap or over it, quiet or busy, killed or not."""
        return cls(
            machines=draw.choice([12, 40, 49, 90, 400]),
            connections=draw.choice([1, 4, 16, 64]),
            activations=draw.randint(150, 400),
            lives=draw.choice([("drain",), ("kill", "drain"), ("reload", "kill"), ("kill", "kill", "reload")]),
            options=("--workers", draw.choice("122")),
        )


def record(folder: Path, shim: Path, script: Script, draw: random.Random) -> Recording:
    """Run a host as the script says. Its folder is then ``end`` in that of the recording.

    Raises HostFailed, and BrokenTrace when the trace is not the whole of it.
    """
    realm = make_realm(folder, threshold=script.threshold)
    traced = realm.home / TRACED
    write_trust(realm, folder / "trust.json")
    _note_start(folder, traced)
    trace.make_trace(folder / "trace")
    environment = planting_environment("small_steps", *script.plants) | trace.shim_environment(
        shim, folder / "trace", traced, pretend=script.pretend
    )
    seed, address = draw.randbytes(32), draw_address(draw)
    for life in script.lives:
        _live(folder, realm, address, script, seed, environment, life, draw)
    recording = Recording(folder)
    _compare(recording, traced)
    traced.rename(folder / END)
    return recording


def _note_start(folder: Path, traced: Path) -> None:
    paths = ["", *(str(path.relative_to(traced)) for path in traced.rglob("*"))]
    facts = {"folder": str(traced.resolve()), "inodes": {(traced / path).stat().st_ino: path for path in paths}}
    (folder / "start.json").write_text(json.dumps(facts))
    shutil.copytree(traced, folder / "start")


def _live(
    folder: Path, realm: Realm, address: str, script: Script, seed: bytes, environment: dict[str, str], life: Life,
    draw: random.Random,
) -> None:  # fmt: skip
    """One life of the host, with machines of the same seed as in every other."""
    host = Host(realm.home, address, folder / "serve.log", environment, *script.options)
    load = None
    try:
        host.wait_until_listening()
        load = Load(
            address, realm, folder / "record.jsonl", random.Random(0), machine_seed=seed,
            connections=script.connections, activations=script.activations, clients=(0, script.machines),
        )  # fmt: skip
        if life != "drain":
            _wait_in_load(folder / "trace", load, draw)
        if life == "reload":
            host.process.send_signal(signal.SIGHUP)
        if life != "kill":
            load.wait()
            host.stop()
    finally:
        host.kill()
        if load is not None:
            load.kill()


def _wait_in_load(path: Path, load: Load, draw: random.Random) -> None:
    """Until the trace has grown by a random size, or the load is over."""
    end = trace.read_end(path) + draw.randint(0, HAPPENS_WITHIN_BYTES)
    while load.process.poll() is None and trace.read_end(path) < end:
        time.sleep(0.001)


def _compare(recording: Recording, traced: Path) -> None:
    """The trace is the whole of it: its disk, when nothing is lost, is the folder byte for byte. Raises BrokenTrace."""
    contents = PowerCuts(recording.disk()).cut(1 << 62, "kept", random.Random(0))
    found = {str(path.relative_to(traced)) for path in traced.rglob("*") if path.is_file()}
    expected = {path for path, content in contents.items() if content is not None}
    if expected != {path for path in found if not path.endswith(NOT_ON_DISK)}:
        raise BrokenTrace(f"the folder holds {sorted(found)}, the trace {sorted(expected)}")
    for path in expected:
        content = contents[path]
        assert content is not None
        if content.to_bytes() != (traced / path).read_bytes():
            raise BrokenTrace(f"{path} is not what the trace says of it")
