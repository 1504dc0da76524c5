"""Cryptography of docs/protocol.md, "Conventions": Ed25519 with a context, HKDF-SHA256, AES-SIV (RFC 5297)."""

import hashlib
import hmac

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def sha256(*parts: bytes) -> bytes:
    """SHA-256 of the concatenation of ``parts``."""
    return hashlib.sha256(b"".join(parts)).digest()


def hmac_sha256(key: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104) of the concatenation of ``parts``."""
    return hmac.digest(key, b"".join(parts), "sha256")


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869)."""
    return HKDF(SHA256(), length, salt, info).derive(secret)


def sign(key: Ed25519PrivateKey, context: bytes, body: bytes) -> bytes:
    """Ed25519 over context ‖ 0x00 ‖ body: 64 bytes."""
    return key.sign(context + b"\0" + body)


def signature_is_valid(public_key: bytes, signature: bytes, context: bytes, body: bytes) -> bool:
    """Whether ``signature`` is that of :func:`sign` by the holder of ``public_key`` (32 bytes)."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, context + b"\0" + body)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """The 32 bytes of a private key's public key."""
    return key.public_key().public_bytes_raw()


def seal(key: bytes, associated: list[bytes], plaintext: bytes) -> bytes:
    """AES-SIV: tag (16 bytes) ‖ ciphertext under a 32-byte key."""
    return AESSIV(key).encrypt(plaintext, associated)


def open_sealed(key: bytes, associated: list[bytes], sealed: bytes) -> bytes | None:
    """The plaintext of tag ‖ ciphertext, or None when the tag does not verify."""
    try:
        return AESSIV(key).decrypt(sealed, associated)
    except InvalidTag:
        return None


def seal_over_blocks(key: bytes, associated: list[bytes], plaintext: bytes) -> bytes:
    """The same as :func:`seal` from bare AES blocks, as RFC 5297 §2 has it; for 16 bytes of plaintext or more."""
    mac_key, counter_key = key[:16], key[16:]
    state = _cmac(mac_key, bytes(16))
    for component in associated:
        state = _xor(_double(state), _cmac(mac_key, component))
    tag = _cmac(mac_key, plaintext[:-16] + _xor(plaintext[-16:], state))
    counter = int.from_bytes(tag, "big") & ~(1 << 63 | 1 << 31)
    blocks = -(-len(plaintext) // 16)
    stream = b"".join(_encrypt_block(counter_key, (counter + i) % (1 << 128)) for i in range(blocks))
    return tag + _xor(plaintext, stream[: len(plaintext)])


def _cmac(key: bytes, message: bytes) -> bytes:
    """AES-CMAC (RFC 4493)."""
    subkey = _double(_encrypt_block(key, 0))
    body, last = message[: max(0, len(message) - 1) // 16 * 16], message[max(0, len(message) - 1) // 16 * 16 :]
    if len(last) < 16:
        subkey, last = _double(subkey), (last + b"\x80").ljust(16, b"\0")
    state = bytes(16)
    for i in range(0, len(body), 16):
        state = _encrypt_block(key, int.from_bytes(_xor(state, body[i : i + 16]), "big"))
    return _encrypt_block(key, int.from_bytes(_xor(_xor(state, last), subkey), "big"))


def _double(block: bytes) -> bytes:
    """dbl() of RFC 5297 §2.3: multiplication by x in GF(2^128)."""
    value = int.from_bytes(block, "big") << 1
    return ((value & (1 << 128) - 1) ^ (0x87 if value >> 128 else 0)).to_bytes(16, "big")


def _encrypt_block(key: bytes, block: int) -> bytes:
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block.to_bytes(16, "big"))


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))
