"""Ports for the tests' own servers."""

import contextlib
import socket


def find_free_port() -> int:
    """A port that is free for TCP and UDP on loopback now."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port = int(tcp.getsockname()[1])
            with contextlib.suppress(OSError):
                udp.bind(("127.0.0.1", port))
                return port
