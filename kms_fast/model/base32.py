"""Crockford's base 32, the alphabet of keys and of text to paste: no I, L, O or U, and case does not matter."""

from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# What an upper-case character stands for; O, I and L are what people read for 0 and 1.
VALUES: Final = {character: value for value, character in enumerate(ALPHABET)} | {"O": 0, "I": 1, "L": 1}
# What keyboards and word processors put between groups: hyphens, figure, en and em dash, bar, minus, full width.
SEPARATORS: Final = frozenset("-\u00ad\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d_")


def encode_base32(data: bytes) -> str:
    """The symbols of ``data``, first bits first; the last symbol is filled up with zero bits."""
    count = -(-len(data) * 8 // 5)
    number = int.from_bytes(data, "big") << (count * 5 - len(data) * 8)
    return write_number(number, count)


def decode_base32(symbols: str) -> bytes:
    """The bytes of ``symbols`` (characters of `ALPHABET`); the last byte is filled up with zero bits."""
    size = -(-len(symbols) * 5 // 8)
    number = 0
    for symbol in symbols:
        number = number << 5 | VALUES[symbol]
    return (number << (size * 8 - len(symbols) * 5)).to_bytes(size, "big")


def write_number(number: int, count: int) -> str:
    """The last ``count`` symbols of a number, highest first."""
    return "".join(ALPHABET[number >> 5 * i & 31] for i in range(count - 1, -1, -1))
