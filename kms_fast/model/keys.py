"""The 25-character keys (docs/keys.md): their text, their check part, and what is derived from their secrets.

A key is 25 symbols of GF(32), written in Crockford's base 32: kind and version, publisher tag, product reference,
secret, and three check symbols of a shortened Reed-Solomon code with distance 4. One wrong character is located,
two are detected. Nothing is corrected unasked: a guess can be wrong.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from kms_fast.errors import KeyInvalid
from kms_fast.model import signing
from kms_fast.model.base32 import ALPHABET, SEPARATORS, VALUES

KEY_VERSION: Final = 1
SYMBOLS: Final = 25
CHECK_SYMBOLS: Final = 3
SECRET_SIZE: Final = 10
KEY_ID_SIZE: Final = 8
MAX_REFERENCE: Final = 2**15 - 1
MAX_KEYS_PER_HOST: Final = 8

_FIELD_POLYNOMIAL: Final = 0b100101  # x^5 + x^2 + 1, primitive over GF(2)
_ORDER: Final = 31


def _powers() -> list[int]:
    powers = [1]
    for _ in range(_ORDER - 1):
        value = powers[-1] << 1
        powers.append(value ^ _FIELD_POLYNOMIAL if value & 32 else value)
    return powers


_POWERS: Final = _powers()
_LOGARITHMS: Final = {value: exponent for exponent, value in enumerate(_POWERS)}


def _multiply(a: int, b: int) -> int:
    return _POWERS[(_LOGARITHMS[a] + _LOGARITHMS[b]) % _ORDER] if a and b else 0


# (x - a)(x - a^2)(x - a^3), a = 2; highest coefficient (1) left out.
_GENERATOR: Final = (14, 29, 10)


class KeyKind(IntEnum):
    """What a key is for. The value is the low three bits of a key's first symbol."""

    HOST = 1
    CLIENT_SETUP = 2
    MULTIPLE_ACTIVATION = 3

    @property
    def description(self) -> str:
        """The kind as users know it, with its article."""
        return _KINDS[self][0]

    @property
    def use(self) -> str:
        """Where a key of this kind belongs."""
        return _KINDS[self][1]


_KINDS: Final = {
    KeyKind.HOST: ("a host key", "a host key goes to an activation host: kms-fast host request --key"),
    KeyKind.CLIENT_SETUP: (
        "a client setup key",
        "a client setup key goes to the machines that run the product: kms-fast client install-key",
    ),
    KeyKind.MULTIPLE_ACTIVATION: (
        "a multiple-activation key",
        "a multiple-activation key activates machines one by one, without a host: kms-fast client activate --mak",
    ),
}


@dataclass(frozen=True, slots=True)
class ProductKey:
    """A key taken apart.

    ``publisher_tag``: 10 bits; ``reference``: 15 bits, the SKU's in the catalog (0 in host keys); ``secret``: 10 bytes.
    """

    kind: KeyKind
    publisher_tag: int
    reference: int
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not (0 <= self.publisher_tag < 1024 and 0 <= self.reference <= MAX_REFERENCE):
            raise ValueError("publisher tag or reference out of range")
        if len(self.secret) != SECRET_SIZE:
            raise ValueError(f"a key's secret is {SECRET_SIZE} bytes")

    @property
    def text(self) -> str:
        """The key as users type it: five groups of five characters."""
        number = KEY_VERSION << 3 | self.kind
        number = (number << 10 | self.publisher_tag) << 15 | self.reference
        number = number << 80 | int.from_bytes(self.secret, "big")
        data = [number >> 5 * i & 31 for i in range(SYMBOLS - CHECK_SYMBOLS - 1, -1, -1)]
        characters = "".join(ALPHABET[symbol] for symbol in data + _check_symbols(data))
        return "-".join(characters[i : i + 5] for i in range(0, SYMBOLS, 5))

    @property
    def last_five(self) -> str:
        """The last group: how a key is named where its secret must not be shown."""
        return self.text[-5:]


def new_key(kind: KeyKind, publisher_id: bytes, reference: int = 0) -> ProductKey:
    """A key with a fresh random secret."""
    return ProductKey(kind, publisher_tag(publisher_id), reference, secrets.token_bytes(SECRET_SIZE))


def publisher_tag(publisher_id: bytes) -> int:
    """The first 10 bits of a publisher ID (16 bytes): tells keys of different publishers apart."""
    return int.from_bytes(publisher_id[:2], "big") >> 6


def derive_sku_keys(secret: bytes, publisher_id: bytes, sku_id: bytes) -> tuple[bytes, bytes]:
    """Request key and answer secret (32 bytes each) of a SKU from its setup key's secret (docs/protocol.md)."""
    salt = publisher_id + sku_id
    request_key = signing.derive(secret, salt=salt, info=signing.REQUEST_KEY, length=32)
    return request_key, signing.derive(secret, salt=salt, info=signing.ANSWER_SECRET, length=32)


def key_id(secret: bytes, publisher_id: bytes) -> bytes:
    """The 8-byte public ID under which a publisher finds a key: HKDF of its secret, salt publisher ID."""
    return signing.derive(secret, salt=publisher_id, info=signing.KEY_ID, length=KEY_ID_SIZE)


def parse_key(text: str, *, expect: KeyKind | None = None, publisher_id: bytes | None = None) -> ProductKey:
    """The key that ``text`` spells; case, spaces, dashes of any kind, O for 0 and I or L for 1 are forgiven.

    Raises `KeyInvalid`: with the group and character that is wrong, with the kind the key has when ``expect`` is
    another, or when the key's tag is not that of ``publisher_id``. The message never repeats the key.
    """
    symbols = _read_symbols(text)
    _check(symbols)
    if symbols[0] >> 3 != KEY_VERSION or symbols[0] & 7 not in tuple(KeyKind):
        raise KeyInvalid("The key is of a kind or version that this kms_fast does not know; update kms_fast.")
    number = 0
    for symbol in symbols[: SYMBOLS - CHECK_SYMBOLS]:
        number = number << 5 | symbol
    secret = (number & (1 << 80) - 1).to_bytes(SECRET_SIZE, "big")
    key = ProductKey(KeyKind(symbols[0] & 7), number >> 95 & 1023, number >> 80 & MAX_REFERENCE, secret)
    if expect is not None and key.kind is not expect:
        raise KeyInvalid(
            f"This is {key.kind.description}, but {expect.description} is needed here: {key.kind.use}.",
            kind=key.kind.name,
            expected=expect.name,
        )
    if publisher_id is not None and key.publisher_tag != publisher_tag(publisher_id):
        raise KeyInvalid("The key is correctly typed, but it is a key of another publisher.", kind=key.kind.name)
    return key


def _read_symbols(text: str) -> list[int]:
    characters = [c for c in text.upper() if not (c.isspace() or c in SEPARATORS)]
    for position, character in enumerate(characters):
        if character not in VALUES:
            raise KeyInvalid(
                f"{_place(position)}, {character!r}, is wrong: keys are written with digits and letters, "
                "and never with the letter U.",
                group=position // 5 + 1,
                character=position % 5 + 1,
            )
    if len(characters) != SYMBOLS:
        raise KeyInvalid(
            f"The key has {len(characters)} characters; a key has {SYMBOLS}, in five groups of five.",
            characters=len(characters),
        )
    return [VALUES[character] for character in characters]


def _place(position: int) -> str:
    return f"Group {position // 5 + 1}, character {position % 5 + 1}"


def _check_symbols(data: Sequence[int]) -> list[int]:
    """The remainder of data(x) · x^3 divided by the generator, highest coefficient first."""
    remainder = [0] * CHECK_SYMBOLS
    for symbol in data:
        factor = symbol ^ remainder[0]
        remainder = [carried ^ _multiply(factor, g) for carried, g in zip([*remainder[1:], 0], _GENERATOR, strict=True)]
    return remainder


def _syndromes(symbols: Sequence[int]) -> list[int]:
    """The key as a polynomial, first symbol the coefficient of x^24, at a, a^2 and a^3; all 0 when it is right."""
    values = []
    for root in _POWERS[1 : CHECK_SYMBOLS + 1]:
        value = 0
        for symbol in symbols:
            value = _multiply(value, root) ^ symbol
        values.append(value)
    return values


def _find_single_error(syndromes: Sequence[int]) -> int | None:
    """The position at which one wrong symbol explains the syndromes, or None when more than one is wrong."""
    if not all(syndromes):
        return None
    first, second, third = (_LOGARITHMS[syndrome] for syndrome in syndromes)
    degree = (second - first) % _ORDER
    if (third - second) % _ORDER != degree or degree >= SYMBOLS:
        return None
    return SYMBOLS - 1 - degree


def _check(symbols: Sequence[int]) -> None:
    syndromes = _syndromes(symbols)
    if not any(syndromes):
        return
    position = _find_single_error(syndromes)
    if position is None:
        raise KeyInvalid("At least two characters of the key are wrong, or two have changed places.")
    shown = ALPHABET[symbols[position]]
    picture = ["·"] * SYMBOLS
    picture[position] = shown
    raise KeyInvalid(
        f"{_place(position)}, {shown!r}, is wrong: "
        + "-".join("".join(picture[i : i + 5]) for i in range(0, SYMBOLS, 5)),
        group=position // 5 + 1,
        character=position % 5 + 1,
    )
