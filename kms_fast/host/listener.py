"""Listening sockets: opened by us, so that a used port or a bad address is told in one line."""

import errno
import itertools
import os
import resource
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.host.presence import find_home
from kms_fast.messages import log
from kms_fast.model.names import parse_listen_address

BACKLOG: Final = 4096
TAKEN_S: Final = 2.0
LOOK_AGAIN_S: Final = 0.05


def open_sockets(
    addresses: Sequence[str], workers: int = 1, *, list_beside: Callable[[], Sequence[str]] = tuple
) -> list[list[socket.socket]]:
    """For each worker a listening TCP socket for each ADDR:PORT; port 0 takes a free one, the same for all workers.

    The kernel spreads connections over the sockets of one address (SO_REUSEPORT), also those of another host that this
    user runs there. So a new version can start beside the old one: ``list_beside`` gives the addresses of hosts with
    the same home. Whoever else listens already keeps the address to itself. It is asked again for 2 seconds: workers
    whose supervisor was killed end meanwhile, and a host of this home that has just started says so.

    On a machine without IPv6 an IPv6 address is left out with a warning as long as another address is there. Raises
    `ConfigurationError` for a name that does not resolve, `KmsFastError` (ADDRESS_IN_USE, NOT_ALLOWED, STORAGE_FAILED)
    otherwise.
    """
    sockets: list[list[socket.socket]] = [[] for _ in range(workers)]
    try:
        for address in addresses:
            try:
                opened = _open_first(address, list_beside)
                sockets[0].append(opened)
                for more in sockets[1:]:
                    more.append(_listen(opened.family, opened.getsockname()))
            except UnicodeError as error:
                raise ConfigurationError(
                    f"The listen address {address} is not a host name: a part of it is empty or too long.",
                    address=address,
                ) from error
            except OSError as error:
                if error.errno == errno.EAFNOSUPPORT and (sockets[0] or address != addresses[-1]):
                    log("IPV6_MISSING", address=address)
                    continue
                raise _explain(address, error) from error
    except BaseException:
        for opened in itertools.chain(*sockets):
            opened.close()
        raise
    return sockets


def allow_connections(number: int) -> None:
    """Raise the process's limit of open files as far as it may, and warn when so many connections still do not fit.

    Past the limit connections are accepted and closed at once, and counted as refused.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < number:
        log("FILE_LIMIT_LOW", limit=hard, connections=number)


def _open_first(address: str, list_beside: Callable[[], Sequence[str]]) -> socket.socket:
    host, port = parse_listen_address(address)
    family, _, _, _, name = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )[0]
    end_s = time.monotonic() + TAKEN_S
    while port != 0 and _is_taken(family, name):
        if any(_overlaps(family, name, parse_listen_address(other)) for other in list_beside()):
            return _share(family, name, address)
        if time.monotonic() > end_s:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        time.sleep(LOOK_AGAIN_S)
    return _listen(family, name)


def _share(family: int, name: Any, address: str) -> socket.socket:
    """Listen beside a host of the same home."""
    try:
        opened = _listen(family, name)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise KmsFastError(
            f"Cannot listen on {address} beside the host of this home that does already: it runs as another user, or "
            "a service manager listens for it.",
            name="ADDRESS_IN_USE",
            address=address,
        ) from error
    log("ADDRESS_SHARED", address=address)
    return opened


def _overlaps(family: int, name: Any, other: tuple[str, int]) -> bool:
    """Whether who listens on both addresses shares a port of some address."""
    if name[1] != other[1] or (":" in other[0]) != (family == socket.AF_INET6):
        return False
    everywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"
    return name[0] == other[0] or everywhere in (name[0], other[0])


def _is_taken(family: int, name: Any) -> bool:
    """Whether somebody listens there already, be it with SO_REUSEPORT or without."""
    with _make_socket(family) as probe:
        try:
            probe.bind(name)
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _listen(family: int, name: Any) -> socket.socket:
    opened = _make_socket(family)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.setblocking(False)
        opened.bind(name)
        opened.listen(BACKLOG)
    except BaseException:
        opened.close()
        raise
    return opened


def _make_socket(family: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        # Else [::] would be IPv4's too, where this host may listen already.
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made


def _explain(address: str, error: OSError) -> KmsFastError:
    details: dict[str, Any] = {"address": address, "reason": error.strerror}
    if isinstance(error, socket.gaierror):
        return ConfigurationError(f"The listen address {address} does not resolve: {error.strerror}.", **details)
    if error.errno == errno.EADDRINUSE:
        home = find_home(parse_listen_address(address)[1])
        who = "another program" if home is None else f"the host of {home}"
        return KmsFastError(f"Cannot listen on {address}: {who} does already.", name="ADDRESS_IN_USE", **details)
    if error.errno == errno.EACCES:
        return KmsFastError(f"This user may not listen on {address}.", name="NOT_ALLOWED", **details)
    return ConfigurationError(f"Cannot listen on {address}: {error.strerror}.", **details)
