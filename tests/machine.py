"""A machine of the tests' own beside this one: network, name and resolver of its own, the same files and programs.

Linux's namespaces make it; without root one of users too, where the system allows that. Processes are brought there
by `Machine.prefix`.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

_SET_UP = """
set -e
hostname "$1"; resolv="$2"; hosts="$3"; shift 3
ip link set lo up
for address in "$@"; do ip address add "$address" dev lo; done
mount --bind "$resolv" /etc/resolv.conf
mount --bind "$hosts" /etc/hosts
echo ready
exec sleep infinity
"""


class Machine:
    """Use it as a context. ``addresses``: such as ``192.0.2.7/32``, besides loopback's. ``resolv``: its resolv.conf."""

    def __init__(self, folder: Path, name: str, addresses: Sequence[str], resolv: str) -> None:
        self._name = name
        self._addresses = addresses
        self._resolv = folder / "resolv.conf"
        self._resolv.write_text(resolv)
        self._hosts = folder / "hosts"
        self._hosts.write_text("127.0.0.1 localhost\n::1 localhost\n")

    @property
    def prefix(self) -> list[str]:
        """In front of a command, runs it there."""
        pid = self._process.pid
        as_user = [] if os.geteuid() == 0 else [f"--user=/proc/{pid}/ns/user", "--preserve-credentials"]
        return ["nsenter", *as_user, *(f"--{kind}=/proc/{pid}/ns/{file}" for kind, file in _NAMESPACES.items())]

    def set_resolv(self, text: str) -> None:
        """Change its resolv.conf."""
        self._resolv.write_text(text)

    def __enter__(self) -> "Machine":
        as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        command = [
            "unshare",
            *as_root,
            "--net",
            "--mount",
            "--uts",
            "--propagation",
            "private",
            "sh",
            "-c",
            _SET_UP,
            "sh",
        ]
        self._process = subprocess.Popen(
            [*command, self._name, self._resolv, self._hosts, *self._addresses],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        if self._process.stdout.readline() != "ready\n":
            raise PermissionError(self._process.communicate()[1])
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


_NAMESPACES = {"net": "net", "mount": "mnt", "uts": "uts"}
