"""Instructions of the core per activation, by callgrind.

Valgrind shows programs a processor of its own: one with AES instructions, without SHA instructions, whatever the real
one has. So the AES of aes.h is counted, and SHA-256 in plain C, on every x86-64 machine. The number of SHA-256 blocks
follows from the instructions of one block; of everything else the instructions themselves are compared.
"""

import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kms_fast import _core
from tests.guard.bounds import Cost, Costs, Figure
from tests.guard.core_work import MARK, ONE_BLOCK

ROOT: Final = Path(__file__).parents[2]
LIMIT_S: Final = 110
COUNTED_BACKEND: Final = {"aes": "aesni", "sha256": "c"}
# The same compiler and interpreter give the same counts within 0.1 %.
CORE_MARGIN, OTHER_MARGIN, BLOCKS_MARGIN = 1.03, 1.05, 1.02
OTHER_TOOLS_LENIENCY: Final = 1.15
SMALLEST_PART: Final = 60

_COMPRESSION: Final = re.compile(r"kf_sha256_\w+_c")
_CYTHON: Final = re.compile(r"__pyx_\w+?_8kms_fast_5_core_(?:\d+([A-Z]\w*?)_)?\d*(\w+)")
_SUFFIX: Final = re.compile(r"('\d+|\.(part|isra|constprop|cold)(\.\d+)?)+$")


class NotCountable(Exception):
    """This machine cannot count what the bounds are about; the text says why."""


@dataclass(frozen=True)
class Profile:
    """Instructions between two marks by (shared object, function)."""

    costs: Mapping[tuple[str, str], int]

    def sum_core(self) -> int:
        """Those of the core, but for SHA-256's compression."""
        return sum(n for (library, name), n in self.costs.items() if _is_core(library) and not _is_compression(name))

    def sum_compression(self) -> int:
        """Those of SHA-256's compression."""
        return sum(n for (_, name), n in self.costs.items() if _is_compression(name))

    def sum_other(self) -> int:
        """Those of interpreter and C library."""
        return sum(n for (library, _), n in self.costs.items() if not _is_core(library))

    def list_parts(self, activations: int) -> dict[str, float]:
        """Functions by their instructions per activation, the most costly first."""
        parts = Counter[str]()
        for (library, name), instructions in self.costs.items():
            parts[shorten_name(library, name)] += instructions
        return {
            name: round(total / activations, 1)
            for name, total in parts.most_common()
            if total >= SMALLEST_PART * activations
        }


def describe_tools() -> dict[str, str]:
    """What the counts depend on: the compiler of the core and the interpreter."""
    # GCC and clang leave their names in the section .comment.
    compiler = re.search(rb"(GCC: \([^\0]+|clang version [^\0]+)", Path(_core.__file__).read_bytes())
    return {
        "compiler": compiler[0].decode() if compiler else "unknown",
        "python": f"{platform.python_version()}, {platform.python_compiler()}",
    }


def choose_leniency(recorded: Mapping[str, str]) -> float:
    """How many times a bound is allowed: another compiler or interpreter makes other instructions of the same code."""
    return 1.0 if describe_tools().items() <= recorded.items() else OTHER_TOOLS_LENIENCY


def _is_core(library: str) -> bool:
    return library.startswith("_core.")


def _is_compression(name: str) -> bool:
    return _COMPRESSION.match(name) is not None


def shorten_name(library: str, name: str) -> str:
    """A function as people name it: ``__pyx_f_8kms_fast_5_core_5Batch_admit`` is ``Batch.admit``."""
    name = _SUFFIX.sub("", name)
    if not _is_core(library):
        return f"{library.partition('.')[0]}: {name}"
    if not (found := _CYTHON.match(name)):
        return name
    return ".".join(word for word in found.groups() if word)


def read_profile(path: Path) -> Profile:
    """One dump of callgrind, written with uncompressed names and positions."""
    costs = Counter[tuple[str, str]]()
    library = function = ""
    inclusive = False
    with path.open() as lines:
        for line in lines:
            key, _, value = line.rstrip("\n").partition("=")
            if key == "ob":
                library = Path(value).name
            elif key == "fn":
                function = value
            elif key == "calls":
                # The next line is what the callee cost, which is counted there.
                inclusive = True
            elif line[:1].isdigit():
                if not inclusive:
                    costs[library, function] += int(line.split()[1])
                inclusive = False
    return Profile(costs)


def count_instructions(home: Path, scratch: Path, plant: str = "nothing") -> Costs:
    """Instructions per activation of each kind of work in core_work.py.

    ``home``: a certified host's; ``scratch``: an empty folder. Raises `NotCountable`, RuntimeError when the work
    failed.
    """
    # Anything in the environment changes addresses, and with them a few instructions.
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    command = [
        "valgrind", "--tool=callgrind", f"--callgrind-out-file={scratch}/dump", f"--dump-before={MARK}",
        "--compress-strings=no", "--compress-pos=no", sys.executable, "-m", "tests.guard.core_work", str(home), plant,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, env=kept | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True,
        text=True, timeout=LIMIT_S,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"core_work ended with exit code {done.returncode}: {done.stderr[-2000:]}")
    told = json.loads(done.stdout)
    if told["backend"] != COUNTED_BACKEND:
        raise NotCountable(f"valgrind lets the core use {told['backend']} here; the bounds are for {COUNTED_BACKEND}")
    # The dump of a mark holds what came before it: the first the start, every other one what lies between two works.
    profiles = {
        work: read_profile(scratch / f"dump.{2 * number}") for number, work in enumerate(told["sections"], start=1)
    }
    if (scratch / f"dump.{2 * len(profiles) + 1}").exists():
        raise RuntimeError(f"something else calls {MARK}")
    block = profiles.pop(ONE_BLOCK).sum_compression()
    return {work: _make_cost(profile, block, told["activations"]) for work, profile in profiles.items()}


def _make_cost(profile: Profile, block: int, activations: int) -> Cost:
    core, other = profile.sum_core() / activations, profile.sum_other() / activations
    blocks = profile.sum_compression() / block
    figures = {
        "core_instructions": Figure(round(core), round(core * CORE_MARGIN)),
        "other_instructions": Figure(round(other), round(other * OTHER_MARGIN)),
        "sha256_blocks": Figure(round(blocks, 2), round(blocks * BLOCKS_MARGIN, 2)),
    }
    return Cost(figures, profile.list_parts(activations))
