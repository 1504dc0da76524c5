"""Crockford's base 32 against a second way to do it."""

import base64

from hypothesis import given, settings
from hypothesis import strategies as st

from kms_fast.model.base32 import ALPHABET, decode_base32, encode_base32

# RFC 4648's base 32 has other characters for the same symbols.
STANDARD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", ALPHABET)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_symbols_are_those_of_rfc_4648_in_another_alphabet(data: bytes) -> None:
    symbols = encode_base32(data)
    assert symbols == base64.b32encode(data).decode().rstrip("=").translate(STANDARD)
    assert decode_base32(symbols)[: len(data)] == data
    assert not any(decode_base32(symbols)[len(data) :])
