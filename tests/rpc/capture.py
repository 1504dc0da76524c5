"""Writes what two ends said to each other as a capture file: raw IPv4 packets of one TCP connection each."""

import struct
from collections.abc import Iterable
from pathlib import Path

LINKTYPE_RAW = 101
SYN, ACK, PSH_ACK, FIN_ACK = 0x02, 0x10, 0x18, 0x11
ADDRESSES = (bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2]))  # RFC 5737
SERVER_PORT = 1688


class Connection:
    """One TCP connection: end 0 is the client, end 1 the server."""

    def __init__(self, client_port: int) -> None:
        self.ports = (client_port, SERVER_PORT)
        self.next = [1000, 5000]
        self.packets: list[bytes] = []
        self._add(0, SYN)
        self._add(1, SYN | ACK)
        self._add(0, ACK)

    def send(self, end: int, data: bytes, segment: int = 60000) -> None:
        """The end sends these octets in one or more segments."""
        for start in range(0, len(data), segment):
            self._add(end, PSH_ACK, data[start : start + segment])
            self._add(1 - end, ACK)

    def close(self) -> None:
        """The client, then the server, ends the connection."""
        self._add(0, FIN_ACK)
        self._add(1, FIN_ACK)
        self._add(0, ACK)

    def _add(self, end: int, flags: int, data: bytes = b"") -> None:
        acknowledged = self.next[1 - end] if flags & ACK else 0
        ports = (self.ports[end], self.ports[1 - end])
        tcp = struct.pack(">HHIIBBHHH", *ports, self.next[end], acknowledged, 0x50, flags, 65535, 0, 0) + data
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + ADDRESSES[end] + ADDRESSES[1 - end]
        self.packets.append(ip + tcp)
        self.next[end] += len(data) + (flags & 0x03 != 0)


def write_capture(path: Path, connections: Iterable[Connection]) -> None:
    """One capture of the connections, one after the other, a millisecond between packets."""
    packets = [packet for connection in connections for packet in connection.packets]
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, LINKTYPE_RAW))
        for number, packet in enumerate(packets):
            seconds, milliseconds = divmod(number, 1000)
            file.write(struct.pack("<IIII", seconds, milliseconds * 1000, len(packet), len(packet)) + packet)
