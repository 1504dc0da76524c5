"""25-character keys, from docs/keys.md: slow, and by other means than kms_fast (no logarithms, bits as text)."""

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
GENERATOR = [1, 14, 29, 10]


def multiply(a: int, b: int) -> int:
    """The product in GF(32): shift and add, reduced by x^5 + x^2 + 1."""
    product = 0
    for bit in range(5):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(9, 4, -1):
        if product >> bit & 1:
            product ^= 0b100101 << (bit - 5)
    return product


def divide(symbols: list[int]) -> list[int]:
    """The remainder of a polynomial, highest coefficient first, divided by the generator."""
    rest = list(symbols)
    for start in range(len(rest) - 3):
        factor = rest[start]
        for offset, coefficient in enumerate(GENERATOR):
            rest[start + offset] ^= multiply(factor, coefficient)
    return rest[-3:]


def spell(kind: int, tag: int, reference: int, secret: bytes) -> str:
    """The key's text, in groups."""
    bits = f"01{kind:03b}{tag:010b}{reference:015b}{int.from_bytes(secret, 'big'):080b}"
    data = [int(bits[start : start + 5], 2) for start in range(0, 110, 5)]
    return group("".join(ALPHABET[symbol] for symbol in data + divide([*data, 0, 0, 0])))


def group(characters: str) -> str:
    """25 characters as five groups."""
    return "-".join(characters[start : start + 5] for start in range(0, 25, 5))


def locate(text: str) -> str | int | None:
    """``None`` for a right key, the position (from 0) of the one wrong character, or ``"several"``.

    By trial: a single wrong character is the only one for which some other symbol leaves no remainder.
    """
    symbols = [ALPHABET.index(character) for character in text.replace("-", "")]
    if not any(divide(symbols)):
        return None
    for position in range(25):
        for symbol in range(32):
            if not any(divide([*symbols[:position], symbol, *symbols[position + 1 :]])):
                return position
    return "several"
