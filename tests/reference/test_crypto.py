"""AES-SIV of the reference, made by two ways."""

import hashlib

import pytest

from tests.reference.crypto import open_sealed, seal, seal_over_blocks


def some_bytes(seed: str, length: int) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(length)


@pytest.mark.parametrize("length", [16, 17, 31, 32, 33, 118, 168])
@pytest.mark.parametrize("components", [[], [0], [20, 16], [32], [1, 15, 16, 17, 33]])
def test_two_ways_to_seal_agree(length: int, components: list[int]) -> None:
    key, plaintext = some_bytes("key", 32), some_bytes("plaintext", length)
    associated = [some_bytes(f"component {i}", size) for i, size in enumerate(components)]
    sealed = seal_over_blocks(key, associated, plaintext)
    assert sealed == seal(key, associated, plaintext)
    assert open_sealed(key, associated, sealed) == plaintext
    assert open_sealed(key, [*associated, b"more"], sealed) is None
