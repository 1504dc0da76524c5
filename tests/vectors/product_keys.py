"""Vectors of 25-character keys, their spellings, mistakes in them, and what is derived from host keys."""

from typing import Any

from tests.reference.crypto import hkdf
from tests.reference.product_key import ALPHABET, group, locate, spell
from tests.vectors.world import PUBLISHER, SECRET

KINDS = {1: "HOST", 2: "CLIENT_SETUP", 3: "MULTIPLE_ACTIVATION"}
TAG = int.from_bytes(PUBLISHER.publisher_id[:2], "big") >> 6
KEY = spell(2, TAG, 5, SECRET)


def product_keys() -> dict[str, Any]:
    """docs/keys.md."""
    inputs = [
        (2, TAG, 5, SECRET),
        (1, TAG, 0, bytes(range(0xF0, 0xFA))),
        (3, TAG, 32_767, SECRET[::-1]),
        (1, 0, 0, bytes(10)),
        (3, 1023, 32_767, b"\xff" * 10),
    ]
    return {
        "specification": "docs/keys.md",
        "keys": [
            {
                "kind": KINDS[kind],
                "publisher_tag": tag,
                "reference": reference,
                "secret": secret.hex(),
                "key": spell(kind, tag, reference, secret),
            }
            for kind, tag, reference, secret in inputs
        ],
        "spellings": _spellings(),
        "mistakes": [{"typed": typed, "wrong": locate(typed)} for typed in _mistakes()],
        "host_keys": [_derive(SECRET, PUBLISHER.publisher_id), _derive(bytes(10), bytes(16))],
    }


def _spellings() -> list[dict[str, str]]:
    zeros = spell(1, 0, 0, bytes(10))
    ones = spell(2, 33, 0x0421, bytes.fromhex("08421084210842108421"))
    return [
        {"typed": KEY.lower(), "key": KEY},
        {"typed": KEY.replace("-", ""), "key": KEY},
        {"typed": f"  {KEY.replace('-', ' ')}\n", "key": KEY},
        {"typed": KEY.replace("-", "\u2013"), "key": KEY},
        {"typed": KEY.replace("-", "\u2014"), "key": KEY},
        {"typed": KEY.replace("-", "\u2011"), "key": KEY},
        {"typed": KEY.replace("-", "\u2212"), "key": KEY},
        {"typed": zeros.replace("0", "O"), "key": zeros},
        {"typed": zeros.replace("0", "o"), "key": zeros},
        {"typed": ones.replace("1", "I"), "key": ones},
        {"typed": ones.replace("1", "l"), "key": ones},
    ]


def _mistakes() -> list[str]:
    characters = KEY.replace("-", "")
    typed = []
    for position in (0, 1, 5, 12, 21, 22, 24):
        other = ALPHABET[(ALPHABET.index(characters[position]) + 7) % 32]
        typed.append(characters[:position] + other + characters[position + 1 :])
    swapped = next(at for at in range(24) if characters[at] != characters[at + 1])
    typed.append(characters[:swapped] + characters[swapped + 1] + characters[swapped] + characters[swapped + 2 :])
    two = [ALPHABET[ALPHABET.index(c) ^ 9] if at in (3, 17) else c for at, c in enumerate(characters)]
    typed.append("".join(two))
    return [group(text) for text in typed]


def _derive(secret: bytes, publisher_id: bytes) -> dict[str, str]:
    def derive(info: str, length: int) -> str:
        return hkdf(secret, publisher_id, f"kms_fast 1 {info}".encode(), length).hex()

    return {
        "secret": secret.hex(),
        "publisher_id": publisher_id.hex(),
        "key_id": derive("key id", 8),
        "request_mac_key": derive("host request mac", 32),
        "catalog_seal_key": derive("catalog seal", 32),
    }
