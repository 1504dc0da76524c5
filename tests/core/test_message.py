"""Requests: sealing, opening, and the rules that opened fields keep (docs/protocol.md, "Request")."""

import os
import unicodedata

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from kms_fast._core import SkuKeys

SKU = bytes(range(16))
REQUEST_KEY = bytes(range(32))
FIELDS = b"\x01" * 16 + bytes(16) + b"machine".ljust(64, b"\0") + bytes(20) + b"\x02\x01\0\0" + bytes(48)


def make_keys() -> SkuKeys:
    return SkuKeys(SKU, REQUEST_KEY, b"a" * 32)


def seal(fields: bytes) -> bytes:
    return make_keys().seal_request(fields, os.urandom(16))


def with_bytes(offset: int, value: bytes) -> bytes:
    return FIELDS[:offset] + value + FIELDS[offset + len(value) :]


def test_request_is_aes_siv_over_clear_header_and_nonce() -> None:
    request = make_keys().seal_request(FIELDS, b"n" * 16)
    assert request[:20] == b"\x01\x01\0\0" + SKU
    assert request[20:36] == b"n" * 16
    assert AESSIV(REQUEST_KEY).decrypt(request[36:], [request[:20], b"n" * 16]) == FIELDS


def test_opening_gives_the_fields_back() -> None:
    assert make_keys().open_request(seal(FIELDS)) == FIELDS


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4, 19, 20, 35, 36, 51, 52, 219])
def test_a_changed_byte_does_not_open(offset: int) -> None:
    request = bytearray(seal(FIELDS))
    request[offset] ^= 1
    assert make_keys().open_request(bytes(request)) is None


@pytest.mark.parametrize("length", [0, 1, 219, 221, 4096])
def test_other_lengths_do_not_open(length: int) -> None:
    assert make_keys().open_request(seal(FIELDS).ljust(length, b"\0")[:length]) is None


@pytest.mark.parametrize(
    "name",
    ["", "a", "x" * 64, "näme", "機械", "😀" * 16, "\u00a0", "\ud7ff\ue000\U0010ffff"],
)
def test_valid_names_open(name: str) -> None:
    assert make_keys().open_request(seal(with_bytes(32, name.encode().ljust(64, b"\0")))) is not None


@pytest.mark.parametrize(
    "name",
    [
        b"a\0b",
        b"\x1f",
        b"\x7f",
        b"\xc2\x80",
        b"\xc2\x9f",
        b"\x80",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xff",
        b"x" * 63 + b"\xc3",
    ],
)
def test_invalid_names_are_refused(name: bytes) -> None:
    assert make_keys().open_request(seal(with_bytes(32, name.ljust(64, b"\0")))) is None


def follows_the_rule(name: bytes) -> bool:
    """The rule for names by Python's own decoder."""
    text, _, behind = name.partition(b"\0")
    try:
        characters = text.decode()
    except UnicodeDecodeError:
        return False
    return not any(behind) and not any(unicodedata.category(one) == "Cc" for one in characters)


@pytest.mark.parametrize("name", [b"x" * 64, b"x" * 10, b"x" * 8, "ä".encode() * 32, "x機械".encode() * 9])
def test_each_byte_in_each_place_is_as_pythons_decoder_says(name: bytes) -> None:
    """Also beside words of eight bytes that are looked at as one."""
    keys = make_keys()
    for place in range(64):
        for byte in (0, 1, 0x1F, 0x20, 0x7E, 0x7F, 0x80, 0x9F, 0xA0, 0xC2, 0xE6, 0xFF):
            changed = bytearray(name.ljust(64, b"\0"))
            changed[place] = byte
            request = keys.seal_request(with_bytes(32, bytes(changed)), b"n" * 16)
            assert (keys.open_request(request) is not None) == follows_the_rule(bytes(changed)), (place, byte)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, bytes(16)), (116, b"\x04"), (116, b"\x06"), (117, b"\x02"), (118, b"\x01"), (119, b"\x01")],
)
def test_fields_outside_the_rules_are_refused(offset: int, value: bytes) -> None:
    assert make_keys().open_request(seal(with_bytes(offset, value))) is None


def test_wrong_lengths_are_errors() -> None:
    with pytest.raises(ValueError, match="16 bytes of SKU ID"):
        SkuKeys(SKU[:-1], REQUEST_KEY, b"a" * 32)
    with pytest.raises(ValueError, match="168 bytes"):
        make_keys().seal_request(FIELDS[:-1], b"n" * 16)


def test_keys_are_not_shown() -> None:
    assert "kms_fast._core.SkuKeys" in repr(make_keys())
