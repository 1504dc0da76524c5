"""What the client tells of its machine: name, hardware IDs, whether it is virtual; and its clocks."""

import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kms_fast._core import hmac_sha256
from kms_fast.clock import wall_clock_ms
from kms_fast.errors import KmsFastError

NAME_SIZE = 64


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine. ``hardware_ids``: what identifies it, by source, as far as this user may read it."""

    name: str
    virtual: bool
    hardware_ids: Mapping[str, bytes]

    def digest(self, sources: Sequence[str], cmid: bytes, publisher_id: bytes) -> bytes:
        """The hardware digest of 16 bytes (docs/protocol.md, "Request") over the IDs of these sources.

        Raises `KmsFastError` (NOT_ALLOWED) when one of them cannot be read: that is no change of hardware.
        """
        missing = [source for source in sources if source not in self.hardware_ids]
        if missing:
            raise KmsFastError(
                f"The setup key was installed by a user who may read {', '.join(missing)}; this user may not.",
                name="NOT_ALLOWED",
                missing=missing,
            )
        ids = b"".join(source.encode() + b"\0" + self.hardware_ids[source] + b"\0" for source in sources)
        return hmac_sha256(cmid, publisher_id + ids)[:16]


def read_machine() -> Machine:
    """The machine that this process runs on."""
    return Machine(_read_name(), _is_virtual(), _read_hardware_ids())


def pack_name(name: str) -> bytes:
    """A machine name as requests carry it: UTF-8 without control characters, cut at a character, 64 bytes."""
    clean = "".join(c for c in name if not (c < " " or "\x7f" <= c <= "\x9f"))
    encoded = clean.encode("utf-8", "ignore")[:NAME_SIZE].decode("utf-8", "ignore").encode()
    return encoded.ljust(NAME_SIZE, b"\0")


def _read_name() -> str:
    return socket.gethostname()


def _is_virtual() -> bool:
    # The processor tells guests of their hypervisor with this flag.
    return b"hypervisor" in (_read(Path("/proc/cpuinfo")) or b"")


def _read_hardware_ids() -> dict[str, bytes]:
    """The ID of the installed system and the firmware's UUID (for root only); a MAC address when neither is there."""
    files = {"machine-id": Path("/etc/machine-id"), "product-uuid": Path("/sys/class/dmi/id/product_uuid")}
    ids = {source: data.strip() for source, path in files.items() if (data := _read(path))}
    if not ids:
        node = uuid.getnode()
        # RFC 9562 section 6.10: a node with the multicast bit was drawn at random, and would be another one each time.
        if not node >> 40 & 1:
            ids["mac-address"] = node.to_bytes(6, "big")
    return ids


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


class Clock(Protocol):
    """The two clocks of a machine."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 in UTC, from the wall clock."""

    def since_boot(self) -> tuple[str, int] | None:
        """The ID of this boot and the milliseconds since, sleep included; None where the system does not tell."""


class SystemClock:
    """The clocks of the system."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 in UTC, from the wall clock."""
        return wall_clock_ms()

    def since_boot(self) -> tuple[str, int] | None:
        """From Linux's boot ID and CLOCK_BOOTTIME."""
        boot_id = _read(Path("/proc/sys/kernel/random/boot_id"))
        if boot_id is None:
            return None
        return boot_id.decode().strip(), time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
