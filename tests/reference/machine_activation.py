"""docs/files.md, "Machine request" and "Machine activation", as objects of their files."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.reference.crypto import hkdf, hmac_sha256, sign
from tests.reference.exchange import canonical


def make_machine_request(
    publisher_id: bytes, secret: bytes, sku: str, cmid: str, hardware_digest: bytes, time: int
) -> dict[str, Any]:
    """A machine request; ``secret`` is that of the multiple-activation key."""
    body = {
        "publisher_id": publisher_id.hex(),
        "key_id": hkdf(secret, publisher_id, b"kms_fast 1 key id", 8).hex(),
        "sku": sku,
        "cmid": cmid,
        "hardware_digest": hardware_digest.hex(),
        "created_ms": time,
    }
    mac_key = hkdf(secret, publisher_id, b"kms_fast 1 machine request mac")
    return {
        "format": "kms_fast machine request 1",
        "body": body,
        "mac": hmac_sha256(mac_key, canonical(body)).hex(),
    }


def make_machine_activation(
    request: dict[str, Any],
    key_last_five: str,
    customer_id: int,
    issuer_key: Ed25519PrivateKey,
    issuer: bytes,
    time: int,
) -> dict[str, Any]:
    """The activation that a request asks for."""
    asked = request["body"]
    body = {
        "publisher_id": asked["publisher_id"],
        "sku": asked["sku"],
        "key_last_five": key_last_five,
        "customer_id": customer_id,
        "cmid": asked["cmid"],
        "hardware_digest": asked["hardware_digest"],
        "issued_ms": time,
    }
    return {
        "format": "kms_fast machine activation 1",
        "body": body,
        "issuer_certificate": issuer.hex(),
        "signature": sign(issuer_key, b"kms_fast 1 machine activation", canonical(body)).hex(),
    }
