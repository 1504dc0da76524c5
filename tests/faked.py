"""A clock that a test moves, or a file of the system that reads otherwise, for processes that know nothing of it.

Clocks are libfaketime's, with a file of the offset. All clocks of a process move together, the one since start-up too:
as on a machine that was on all the time.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

DAY_S = 86_400


def find_library() -> Path | None:
    """libfaketime for programs with threads, None where it is not installed."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@dataclass
class FakedClock:
    """A clock ahead of the real one by ``ahead_s`` seconds; processes with its ``environment`` have it."""

    file: Path
    library: Path
    ahead_s: float = 0

    def __post_init__(self) -> None:
        self.set(self.ahead_s)

    def set(self, ahead_s: float) -> None:
        """Move the clock, at once and in every process that has it."""
        self.ahead_s = ahead_s
        written = self.file.with_suffix(".new")
        written.write_text(f"{ahead_s:+.3f}\n")
        written.replace(self.file)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to have this clock."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "NO_FAKE_STAT": "1",
        }

    @property
    def command(self) -> list[str]:
        """What goes in front of a command that is to have this clock; what stands before it has not."""
        return ["env", *(f"{name}={value}" for name, value in self.environment.items())]


def require_clock(folder: Path, unavailable: Callable[[str], NoReturn]) -> Callable[[str], FakedClock]:
    """Makes clocks by name, with their files in ``folder``."""
    library = find_library() or unavailable("libfaketime is not installed (Debian: faketime)")
    return lambda name: FakedClock(folder / f"{name}.clock", library)


def replace_file(path: str, by: Path, unavailable: Callable[[str], NoReturn]) -> list[str]:
    """What goes in front of a command that is to read the file ``by`` at ``path``; others read what they did."""
    return _mount(f'mount --bind "{by}" "{path}"', unavailable)


def protect(folder: Path, unavailable: Callable[[str], NoReturn]) -> list[str]:
    """What goes in front of a command that may read a folder and not write there, whoever runs it."""
    return _mount(f'mount --bind "{folder}" "{folder}" && mount -o remount,ro,bind "{folder}"', unavailable)


def _mount(mount: str, unavailable: Callable[[str], NoReturn]) -> list[str]:
    mount += " && exec"
    as_user = f"setpriv --reuid {os.geteuid()} --regid {os.getegid()} --init-groups"
    commands = [
        ["unshare", "-rm", "sh", "-c", f'{mount} "$@"', "sh"],
        # Where users may not have name spaces of their own.
        ["sudo", "-n", "unshare", "-m", "sh", "-c", f'{mount} {as_user} "$@"', "sh"],
    ]
    working = (command for command in commands if shutil.which(command[0]) and _succeeds([*command, "true"]))
    return next(working, None) or unavailable("this system does not let a program have mounts of its own")


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
