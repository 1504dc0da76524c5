"""docs/protocol.md, "Keys of a SKU" and "Request"."""

import struct
from typing import NamedTuple, Self

from tests.reference.crypto import hkdf, hmac_sha256, open_sealed, seal, sha256

REQUEST_SIZE = 220
FIELDS = struct.Struct("<16s16s64sQIIIBBH16s32s")
LICENCE_STATES = (0, 1, 2, 3, 5)


class Unreadable(Exception):
    """A request that a host refuses unsigned, with REQUEST_UNREADABLE."""


class SkuKeys(NamedTuple):
    """Request key and answer secret, 32 bytes each."""

    sku_id: bytes
    request_key: bytes
    answer_secret: bytes

    @classmethod
    def derive(cls, secret: bytes, publisher_id: bytes, sku_id: bytes) -> Self:
        """From the 80-bit secret of the client setup key (10 bytes)."""
        salt = publisher_id + sku_id
        return cls(
            sku_id, hkdf(secret, salt, b"kms_fast 1 request key"), hkdf(secret, salt, b"kms_fast 1 answer secret")
        )

    def answer_key(self, request: bytes) -> bytes:
        """The AES-SIV key of the one answer to ``request``."""
        return hmac_sha256(self.answer_secret, request[36:52])


class Fields(NamedTuple):
    """The sealed fields of a request, in their order; ``name`` is the 64 bytes on the wire without trailing zeros."""

    cmid: bytes
    previous_cmid: bytes = bytes(16)
    name: bytes = b""
    client_time: int = 0
    minutes_to_expiry: int = 0
    revocation_list: int = 0
    library_version: int = 0
    licence_state: int = 0
    virtual_machine: int = 0
    reserved: int = 0
    hardware_digest: bytes = bytes(16)
    predecessor: bytes = bytes(32)

    def to_bytes(self) -> bytes:
        """The 168 bytes before sealing."""
        return FIELDS.pack(*self)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Fields of 168 bytes. Raises Unreadable when they break a rule of the table."""
        fields = cls(*FIELDS.unpack(data))
        fields = fields._replace(name=fields.name.rstrip(b"\0"))
        try:
            name = fields.name.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Unreadable("the machine name is not UTF-8") from error
        if any(ord(c) <= 0x1F or 0x7F <= ord(c) <= 0x9F for c in name):
            raise Unreadable("a control character in the machine name")
        if fields.cmid == bytes(16):
            raise Unreadable("no CMID")
        if fields.licence_state not in LICENCE_STATES or fields.virtual_machine > 1 or fields.reserved:
            raise Unreadable("licence state, virtual machine or reserved field out of range")
        return fields


def seal_request(keys: SkuKeys, fields: bytes, nonce: bytes) -> bytes:
    """A request of 220 bytes from 168 bytes of fields and a nonce of 16."""
    clear = struct.pack("<BBH16s", 1, 1, 0, keys.sku_id)
    return clear + nonce + seal(keys.request_key, [clear, nonce], fields)


def open_request(keys: SkuKeys, request: bytes) -> Fields:
    """The fields of a request. Raises Unreadable."""
    if len(request) != REQUEST_SIZE or request[:4] != b"\1\1\0\0" or request[4:20] != keys.sku_id:
        raise Unreadable("not a request of this SKU")
    data = open_sealed(keys.request_key, [request[:20], request[20:36]], request[36:])
    if data is None:
        raise Unreadable("does not open")
    return Fields.parse(data)


def hash_request(request: bytes) -> bytes:
    """The request hash."""
    return sha256(request)


def digest_hardware(cmid: bytes, publisher_id: bytes, hardware_ids: bytes) -> bytes:
    """The hardware digest: 16 bytes."""
    return hmac_sha256(cmid, publisher_id, hardware_ids)[:16]
