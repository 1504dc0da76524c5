"""Run a command under a unit's restrictions, as far as a process may put them on itself: no service manager is needed.

Taken from the unit: limit of open files, umask, capabilities, system calls (by errno, as systemd denies them), address
families, memory that is writable and executable, scheduling classes. Not the mounts and users of its own.
"""

import ctypes
import os
import re
import resource
import socket
import struct
import subprocess
import sys
from pathlib import Path

PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 24, 38, 2
# struct sock_filter of linux/filter.h: load a word, jump if equal, jump if any bit is set, and, return.
LOAD, EQUAL, BITS, AND, RETURN = 0x20, 0x15, 0x45, 0x54, 0x06
ALLOW, DENY = 0x7FFF0000, 0x00050000
PROT_WRITE, PROT_EXEC = 2, 4
# SCHED_OTHER, SCHED_BATCH and SCHED_IDLE of sched(7).
ORDINARY_CLASSES = {0, 3, 5}
Filter = list[tuple[int, int, int, int]]


def read_unit(path: Path) -> dict[str, list[str]]:
    """Every line of a setting, by its name."""
    settings: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE):
        settings.setdefault(name, []).append(value)
    return settings


def list_group(name: str) -> set[str]:
    """The system calls of a group such as @system-service."""
    told = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    words = re.findall(r"^    ([@\w-]+)", told.stdout, re.MULTILINE)
    return {call for word in words for call in (list_group(word) if word.startswith("@") else {word})}


def list_denied(filters: list[str], known: set[str]) -> set[str]:
    """What of the known system calls ``SystemCallFilter=`` lines do not let through."""
    allowed = list_group("@default")
    for line in filters:
        group = {call for word in line.lstrip("~").split() for call in list_group(word)}
        allowed = allowed - group if line.startswith("~") else allowed | group
    return known - allowed


def number_calls() -> dict[str, int]:
    """The system calls of this machine and their numbers, as its C headers say them."""
    source = "#include <sys/syscall.h>\n"
    told = subprocess.run(["cc", "-dM", "-E", "-"], input=source, capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)\n", told)}


def build_filter(unit: dict[str, list[str]], numbers: dict[str, int]) -> Filter:
    """The program that the kernel runs at each system call."""
    eperm = (RETURN, 0, 0, DENY | 1)
    program: Filter = []
    for call in sorted(list_denied(unit["SystemCallFilter"], set(numbers))):
        program += [(LOAD, 0, 0, 0), (EQUAL, 0, 1, numbers[call]), eperm]
    if unit.get("MemoryDenyWriteExecute") == ["yes"]:
        program += _check(numbers["mmap"], 2, [(AND, 0, 0, PROT_WRITE | PROT_EXEC), (EQUAL, 0, 1, 6), eperm])
        for call in ("mprotect", "pkey_mprotect"):
            program += _check(numbers[call], 2, [(BITS, 0, 1, PROT_EXEC), eperm])
    if unit.get("RestrictRealtime") == ["yes"]:
        program += _check(numbers["sched_setscheduler"], 1, _one_of(ORDINARY_CLASSES, eperm))
    families = {getattr(socket, name) for name in unit["RestrictAddressFamilies"][0].split()}
    program += _check(numbers["socket"], 0, _one_of(families, (RETURN, 0, 0, DENY | 97)))
    return [*program, (RETURN, 0, 0, ALLOW)]


def _check(number: int, argument: int, rule: Filter) -> Filter:
    """A rule on the low word of one argument of one system call."""
    return [(LOAD, 0, 0, 0), (EQUAL, 0, len(rule) + 1, number), (LOAD, 0, 0, 16 + 8 * argument), *rule]


def _one_of(values: set[int], otherwise: tuple[int, int, int, int]) -> Filter:
    return [(EQUAL, len(values) - at, 0, value) for at, value in enumerate(sorted(values))] + [otherwise]


def confine(unit: dict[str, list[str]]) -> None:
    """Put the restrictions on this process and its children. Raises OSError."""
    program = build_filter(unit, number_calls())
    # The service manager may raise it, this process perhaps not.
    limit = min(int(unit["LimitNOFILE"][0]), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    os.umask(int(unit["UMask"][0], 8))
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0 and unit["CapabilityBoundingSet"] == [""]:
        for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
            _call(libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0))
    _call(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    handed = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    _call(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, handed, 0, 0))


def _call(outcome: int) -> None:
    if outcome:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    confine(read_unit(Path(sys.argv[1])))
    os.execv(sys.argv[2], sys.argv[2:])
