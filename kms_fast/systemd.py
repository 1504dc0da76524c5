"""What a service manager wants to hear (NOTIFY_SOCKET, sd_notify(3)) and may hand over (LISTEN_FDS, sd_listen_fds(3)).

Without these variables nothing is said and nothing is taken.
"""

import functools
import os
import socket
import time
from typing import Final

from kms_fast.errors import ConfigurationError
from kms_fast.messages import log

FIRST_DESCRIPTOR: Final = 3


def notify(state: str) -> None:
    """Send ``NAME=VALUE`` lines to the service manager that started this process."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notifier:
        try:
            notifier.sendto(state.encode(), name)
        except OSError as error:
            _complain(address, error.strerror)


@functools.cache
def _complain(address: str, reason: str) -> None:
    """Once: a service that looks every 30 seconds has something to say each time."""
    log("SERVICE_MANAGER_NOT_TOLD", address=address, reason=reason)


def notify_reloading() -> None:
    """Say that a reload begins, with the time that ``Type=notify-reload`` asks for."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def take_sockets() -> list[socket.socket]:
    """The listening sockets that were handed over, none when there are none.

    The variables are removed, so that no child takes the same. Raises `ConfigurationError` for what does not listen.
    """
    given, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not given.isdigit():
        return []
    sockets = []
    for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(given)):
        try:
            taken = socket.socket(fileno=descriptor)
            listens = taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise ConfigurationError(f"LISTEN_FDS: descriptor {descriptor} is no socket: {error.strerror}.") from None
        if not listens or taken.family not in (socket.AF_INET, socket.AF_INET6):
            raise ConfigurationError(f"LISTEN_FDS: descriptor {descriptor} is not a listening TCP socket.")
        taken.setblocking(False)
        taken.set_inheritable(False)
        sockets.append(taken)
    return sockets
