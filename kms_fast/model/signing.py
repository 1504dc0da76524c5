"""Ed25519 signatures and HKDF derivations, each under a context string of its own (docs/protocol.md, "Conventions").

A signature covers ``context ‖ 0x00 ‖ bytes``, so that what was signed for one purpose never passes for another.
"""

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ISSUER_CERTIFICATE: Final = b"kms_fast 1 issuer certificate"
HOST_CERTIFICATE: Final = b"kms_fast 1 host certificate"
REVOCATION_LIST: Final = b"kms_fast 1 revocation list"
BATCH_HEADER: Final = b"kms_fast 1 batch header"
PUBLISHER: Final = b"kms_fast 1 publisher"
CATALOG: Final = b"kms_fast 1 catalog"
HOST_REQUEST: Final = b"kms_fast 1 host request"
MACHINE_ACTIVATION: Final = b"kms_fast 1 machine activation"

REQUEST_KEY: Final = b"kms_fast 1 request key"
ANSWER_SECRET: Final = b"kms_fast 1 answer secret"
HOST_REQUEST_MAC: Final = b"kms_fast 1 host request mac"
MACHINE_REQUEST_MAC: Final = b"kms_fast 1 machine request mac"
CATALOG_SEAL: Final = b"kms_fast 1 catalog seal"
KEY_ID: Final = b"kms_fast 1 key id"
HOST_ID: Final = b"kms_fast 1 host id"

PUBLIC_KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64


def signed_message(context: bytes, body: bytes) -> bytes:
    """What a signature covers: ``context ‖ 0x00 ‖ body``."""
    return context + b"\0" + body


def sign(private_key: Ed25519PrivateKey, context: bytes, body: bytes) -> bytes:
    """The 64-byte Ed25519 signature (RFC 8032) of ``context ‖ 0x00 ‖ body``."""
    return private_key.sign(signed_message(context, body))


def verify_message(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` (64 bytes) of ``message``, context included, is that of ``public_key`` (32 bytes)."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def verify(public_key: bytes, signature: bytes, context: bytes, body: bytes) -> bool:
    """Whether ``signature`` is that of ``public_key`` over ``context ‖ 0x00 ‖ body``."""
    return verify_message(public_key, signature, signed_message(context, body))


def public_bytes(private_key: Ed25519PrivateKey) -> bytes:
    """The 32-byte public key of a private key."""
    return private_key.public_key().public_bytes_raw()


def derive(secret: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """``length`` bytes of HKDF-SHA256 (RFC 5869) from ``secret``."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(secret)
