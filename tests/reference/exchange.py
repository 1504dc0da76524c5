"""docs/files.md, "Compact forms" and "Text and codes": slow, and by other means than kms_fast (bits as text)."""

import json
import struct
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.reference.crypto import hkdf, hmac_sha256, public_bytes, sha256, sign
from tests.reference.product_key import ALPHABET

REQUEST, ANSWER = 1, 2
NAMES = {REQUEST: "REQUEST", ANSWER: "ANSWER"}


def canonical(value: Any) -> bytes:
    """RFC 8785 for what our files hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def make_request(
    host: Ed25519PrivateKey, publisher_id: bytes, secrets: Sequence[bytes], installation_id: bytes, time: int
) -> dict[str, Any]:
    """A host request as the object of its file; ``secrets`` are those of the host keys."""
    body = {
        "publisher_id": publisher_id.hex(),
        "key_ids": [hkdf(secret, publisher_id, b"kms_fast 1 key id", 8).hex() for secret in secrets],
        "public_key": public_bytes(host).hex(),
        "installation_id": installation_id.hex(),
        "created_ms": time,
    }
    mac_keys = [hkdf(secret, publisher_id, b"kms_fast 1 host request mac") for secret in secrets]
    return {
        "format": "kms_fast host request 1",
        "body": body,
        "macs": [hmac_sha256(key, canonical(body)).hex() for key in mac_keys],
        "signature": sign(host, b"kms_fast 1 host request", canonical(body)).hex(),
    }


def pack_request(request: dict[str, Any]) -> bytes:
    """The compact form of a request's file."""
    body = request["body"]
    fixed = bytes.fromhex(body["publisher_id"] + body["public_key"] + body["installation_id"])
    proofs = bytes.fromhex("".join([*body["key_ids"], *request["macs"], request["signature"]]))
    return _with_header(REQUEST, fixed + struct.pack("<Q", body["created_ms"]) + proofs)


def pack_answer(host: bytes, issuer: bytes, catalog: dict[str, Any], publisher: dict[str, Any]) -> bytes:
    """The compact form of an answer: two certificates, and the objects of the two files that it goes with."""
    named = [
        struct.pack("<Q", document["body"]["number"]) + sha256(canonical(document)) for document in (catalog, publisher)
    ]
    return _with_header(ANSWER, b"".join(named) + host + issuer)


def _with_header(kind: int, content: bytes) -> bytes:
    return struct.pack("<BBH", 1, kind, 4 + len(content)) + content


def spell(data: bytes) -> str:
    """Crockford's base 32, the last symbol filled up with zero bits."""
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    return "".join(ALPHABET[int(bits[start : start + 5], 2)] for start in range(0, len(bits), 5))


def check(text: str) -> str:
    """CRC-16/CCITT-FALSE bit by bit, as four symbols."""
    register = 0xFFFF
    for byte in text.encode():
        for bit in range(7, -1, -1):
            feedback = (register >> 15) ^ (byte >> bit & 1)
            register = (register << 1 & 0xFFFF) ^ (0x1021 if feedback else 0)
    return "".join(ALPHABET[int(f"{register:020b}"[start : start + 5], 2)] for start in range(0, 20, 5))


def split(data: bytes, size: int) -> list[str]:
    """Parts of ``size`` symbols, the last one filled up with the symbol 0, each followed by its check."""
    symbols = spell(data)
    parts = [symbols[start : start + size].ljust(size, "0") for start in range(0, len(symbols), size)]
    return [part + check(f"{NAMES[data[1]]} {number}/{len(parts)}:{part}") for number, part in enumerate(parts, 1)]


def name(data: bytes) -> str:
    """What a block and a code are called: kind, and the first 25 bits of the SHA-256."""
    return f"KMS-FAST HOST {NAMES[data[1]]} {spell(sha256(data))[:5]}"


def block(data: bytes) -> list[str]:
    """The lines of a block of text."""
    parts = split(data, 40)
    lines = [f"-----BEGIN {name(data)}-----"]
    for number, part in enumerate(parts, 1):
        groups = [part[start : start + 5] for start in range(0, 44, 5)]
        lines.append(f"{number}/{len(parts)}: ".rjust(7) + " ".join(groups))
    return [*lines, f"-----END {name(data)}-----"]


def codes(data: bytes, count: int) -> list[str]:
    """The texts of at most ``count`` codes."""
    parts = split(data, -(-len(spell(data)) // count))
    return [f"{name(data)} {number}/{len(parts)}:{part}." for number, part in enumerate(parts, 1)]
