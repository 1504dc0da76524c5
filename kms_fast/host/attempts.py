"""What a ledger holds of one machine: each request that it was answered, with all that was said on both sides."""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

from kms_fast import _core
from kms_fast.host.segment import ENTRIES_AT, ENTRY_SIZE, HEADER_AT, list_segments, read_start
from kms_fast.model.lease import HEADER_SIZE, LEAF_SIZE, BatchHeader, Leaf

# Name, previous CMID, predecessor, minutes to expiry, revocation list, library version, state, virtual, address, port
# (docs/ledger.md, "Entry").
_REST: Final = struct.Struct("<64s16s32sIIIBB16sH2x")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request of a machine and the decision. ``name`` and ``address`` are None where they were not kept or blanked;
    ``predecessor`` and ``previous_cmid`` where there was none.
    """

    time_ms: int
    host_id: bytes
    leaf: Leaf
    name: str | None
    address: str | None
    state: int
    predecessor: bytes | None
    previous_cmid: bytes | None

    @property
    def clock_difference_ms(self) -> int:
        """How far the machine's clock was ahead of the host's."""
        return self.leaf.client_time_ms - self.time_ms


def find_attempts(folder: Path, cmid: bytes, on_progress: Callable[[int], None]) -> list[Attempt]:
    """Every attempt of this machine (CMID, 16 bytes) in a ledger, oldest first; hosts may write meanwhile.

    Records that were pruned are not there any more. Raises `LedgerError` for a segment whose first block is damaged,
    OSError.
    """
    attempts: list[Attempt] = []
    for path in list_segments(folder):
        with path.open("rb") as file:
            start = read_start(file, path)
            reader = _core.RecordReader(file.fileno(), start.size, start.pruned)
            attempts += [_read(file.fileno(), offset, index) for offset, index in reader.find_entries(cmid)]
        on_progress(len(attempts))
    return sorted(attempts, key=lambda attempt: attempt.time_ms)


def _read(fd: int, record: int, index: int) -> Attempt:
    header = BatchHeader.parse(os.pread(fd, HEADER_SIZE, record + HEADER_AT))
    entry = os.pread(fd, ENTRY_SIZE, record + ENTRIES_AT + index * ENTRY_SIZE)
    name, previous, predecessor, _, _, _, state, _, address, _ = _REST.unpack(entry[LEAF_SIZE:])
    ip = IPv6Address(address)
    return Attempt(
        time_ms=header.time_ms,
        host_id=header.host_id,
        leaf=Leaf.parse(entry[:LEAF_SIZE]),
        name=name.rstrip(b"\0").decode("utf-8", "replace") or None,
        address=str(ip.ipv4_mapped or ip) if any(address) else None,
        state=state,
        predecessor=predecessor if any(predecessor) else None,
        previous_cmid=previous if any(previous) else None,
    )
