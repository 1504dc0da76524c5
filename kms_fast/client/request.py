"""Requests as the client makes them and reads them back (docs/protocol.md, "Request")."""

import os
import struct
from dataclasses import dataclass

from kms_fast import __version__
from kms_fast._core import SkuKeys
from kms_fast.client.machine import pack_name

_FIELDS = struct.Struct("<16s16s64sQIIIBBH16s32s")


def pack_version(version: str) -> int:
    """A version as requests carry it: major in the highest octet, minor in the next, patch in the lower 16 bits."""
    major, minor, patch = (int(part) for part in version.split("+")[0].split(".")[:3])
    return major << 24 | minor << 16 | patch


@dataclass(frozen=True, slots=True)
class RequestFields:
    """What a request tells the host. IDs and digest 16 bytes; ``predecessor``: leaf hash of the lease being renewed."""

    cmid: bytes
    hardware_digest: bytes
    client_time_ms: int
    name: str = ""
    previous_cmid: bytes = bytes(16)
    minutes_to_expiry: int = 0
    revocations_number: int = 0
    licence_state: int = 0
    virtual: bool = False
    predecessor: bytes = bytes(32)

    def seal(self, keys: SkuKeys) -> bytes:
        """A request of 220 bytes, with a fresh nonce."""
        fields = _FIELDS.pack(
            self.cmid,
            self.previous_cmid,
            pack_name(self.name),
            self.client_time_ms,
            self.minutes_to_expiry,
            self.revocations_number,
            pack_version(__version__),
            self.licence_state,
            self.virtual,
            0,
            self.hardware_digest,
            self.predecessor,
        )
        return keys.seal_request(fields, os.urandom(16))

    @classmethod
    def open(cls, request: bytes, keys: SkuKeys) -> "RequestFields | None":
        """The fields of a request of 220 bytes, or None when these keys do not open it."""
        fields = keys.open_request(request)
        if fields is None:
            return None
        cmid, previous, name, time_ms, minutes, number, _, state, virtual, _, hardware, predecessor = _FIELDS.unpack(
            fields
        )
        return cls(
            cmid=cmid,
            hardware_digest=hardware,
            client_time_ms=time_ms,
            name=name.rstrip(b"\0").decode(),
            previous_cmid=previous,
            minutes_to_expiry=minutes,
            revocations_number=number,
            licence_state=state,
            virtual=bool(virtual),
            predecessor=predecessor,
        )
