"""A compact request or answer as text: a block to paste, and the texts of QR codes (docs/files.md, "Text and codes").

    -----BEGIN KMS-FAST HOST REQUEST 7K3QZ-----
    1/8: 04A0D 00MJF ... 7QX4
    -----END KMS-FAST HOST REQUEST 7K3QZ-----

    KMS-FAST HOST REQUEST 7K3QZ 1/1:04A0D00MJF...7QX4.

Both consist of parts: number, count, symbols of Crockford's base 32, and a check of all three. So what is damaged or
missing can be named, and what mail programs, word processors and telephones do to text can be forgiven.
"""

import binascii
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from kms_fast.errors import ConfigurationError
from kms_fast.model.base32 import ALPHABET, SEPARATORS, VALUES, decode_base32, encode_base32, write_number
from kms_fast.model.compact import Header, Kind
from kms_fast.model.document import malformed

LINE_SYMBOLS: Final = 40
MAX_PARTS: Final = 99
MAX_SYMBOLS: Final = 2048
_GROUP: Final = 5
_CHECK_SYMBOLS: Final = 4
_SHOWN_PROBLEMS: Final = 6

_NAME: Final = r"KMS[ -]{1,3}FAST HOST (?P<kind>REQUEST|ANSWER) (?P<reference>[0-9A-Z]{1,12})"
_EDGE: Final = re.compile(rf"\b(?P<edge>BEGIN|END) {_NAME}\b")
_CODE: Final = re.compile(rf"(?<!BEGIN )\b{_NAME} (?P<number>\d{{1,3}})/(?P<total>\d{{1,3}}) ?:")
_MARK: Final = re.compile(r"\b(?P<number>\d{1,3}) ?/ ?(?P<total>\d{1,3}) ?:")
# What quoting, markup and clipboards add; dashes of all kinds become plain ones.
_FORGIVEN: Final = str.maketrans(
    dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", "")
    | dict.fromkeys(">|*`~\"'", " ")
    | dict.fromkeys(SEPARATORS, "-")
)
_CANONICAL: Final = {ord(character): ALPHABET[value] for character, value in VALUES.items()}


def write_block(data: bytes) -> str:
    """A compact form as a block of text with short lines of equal length."""
    kind = Header.read(data).kind
    name = f"KMS-FAST HOST {kind.name} {find_reference(data)}"
    parts = _split(encode_base32(data), LINE_SYMBOLS)
    lines = [
        f"{number}/{len(parts)}: ".rjust(7) + _group(symbols) + " " + _check(kind, number, len(parts), symbols)
        for number, symbols in enumerate(parts, 1)
    ]
    return "\n".join([f"-----BEGIN {name}-----", *lines, f"-----END {name}-----", ""])


def write_codes(data: bytes, count: int = 1) -> list[str]:
    """A compact form as the texts of at most ``count`` QR codes of equal length, in QR's alphanumeric characters."""
    kind, symbols = Header.read(data).kind, encode_base32(data)
    parts = _split(symbols, -(-len(symbols) // count))
    name = f"KMS-FAST HOST {kind.name} {find_reference(data)}"
    return [
        f"{name} {number}/{len(parts)}:{part}{_check(kind, number, len(parts), part)}."
        for number, part in enumerate(parts, 1)
    ]


def find_reference(data: bytes) -> str:
    """Five symbols that tell one request or answer from another: the first 25 bits of its SHA-256."""
    return encode_base32(hashlib.sha256(data).digest())[:_GROUP]


def read_armour(text: str, kind: Kind) -> bytes:
    """The compact form in ``text``: one block, or codes in any order; other text around them is ignored.

    Raises `ConfigurationError` (OFFLINE_DATA_MALFORMED) that says which line or code is wrong or missing, and when
    there is none, more than one, or one that is named as of another kind; whoever unpacks it sees what it is.
    """
    text = " ".join(text.upper().translate(_FORGIVEN).split())
    names = [*_EDGE.finditer(text), *_CODE.finditer(text)]
    # An answer often comes with the request that it answers, quoted.
    wanted = [name for name in names if name["kind"] == kind.name]
    edges = [name for name in wanted if name.re is _EDGE]
    if names and not wanted:
        raise malformed(f"This is a {Kind[names[0]['kind']].description}, but a {kind.description} belongs here.")
    if edges and len(edges) < len(wanted):
        raise malformed("The text has a block and codes: give one of them.")
    if edges:
        parts = _read_block(text, edges, kind)
    elif wanted:
        parts = _read_codes(text, wanted, kind)
    elif len(_MARK.findall(text)) > 1:
        raise malformed("The lines that begin and end the block are missing: copy them too.")
    else:
        raise malformed(f"There is no {kind.description} in the text: no block and no code of kms_fast.")
    return parts.join()


@dataclass
class _Parts:
    """Parts as they are read. ``word``: what users call a part, line or code."""

    kind: Kind
    word: str
    reference: str
    total: int
    symbols: dict[int, str] = field(default_factory=dict)
    damaged: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def read(self, number: int, total: int, typed: str) -> str | None:
        """The symbols of a part, None for one that is damaged."""
        symbols = typed.replace(" ", "").replace("-", "").translate(_CANONICAL)
        symbols, check = symbols[:-_CHECK_SYMBOLS], symbols[-_CHECK_SYMBOLS:]
        if not symbols or not all(symbol in ALPHABET for symbol in symbols):
            return None
        right = 1 <= number <= total == self.total and check == _check(self.kind, number, total, symbols)
        return symbols if right else None

    def damage(self, number: int) -> None:
        """Note a part whose check is wrong."""
        if not 1 <= number <= self.total:
            self.problems.append(f"there is a {self.word} {number}, but they are {self.total}")
        elif number not in self.damaged:
            self.damaged.add(number)
            self.problems.append(f"{self.word} {number} is damaged")

    def join(self) -> bytes:
        """The data of all parts; raises `ConfigurationError` when any problem was noted or a part is missing."""
        missing = [n for n in range(1, self.total + 1) if n not in self.symbols and n not in self.damaged]
        problems = self.problems + [f"{self.word} {number} of {self.total} is missing" for number in missing]
        if problems:
            shown = problems[:_SHOWN_PROBLEMS]
            more = [f"{len(problems) - len(shown)} more"] if len(problems) > len(shown) else []
            raise ConfigurationError(
                f"The {self.kind.description} is not whole: {', '.join(shown + more)}.",
                name="OFFLINE_DATA_MALFORMED",
                damaged=sorted(self.damaged),
                missing=missing,
            )
        joined = "".join(self.symbols[number] for number in range(1, self.total + 1))
        if len(joined) > MAX_SYMBOLS:
            raise malformed(f"The text is longer than any {self.kind.description}.")
        raw = decode_base32(joined)
        header = Header.read(raw)
        data = raw[: header.size_bytes]
        longest = max(map(len, self.symbols.values()))
        fits = len(data) == header.size_bytes and self.total == -(-len(encode_base32(data)) // longest)
        if not fits or any(raw[header.size_bytes :]) or find_reference(data) != self.reference:
            raise malformed(
                f"Each {self.word} of the {self.kind.description} is right by itself, but they do not belong together."
            )
        return data


def _read_block(text: str, edges: Sequence[re.Match[str]], kind: Kind) -> _Parts:
    begins = [edge for edge in edges if edge["edge"] == "BEGIN"]
    ends = [edge for edge in edges if edge["edge"] == "END"]
    reference = _find_reference(edges, "block")
    if len(begins) > 1 or len(ends) > 1:
        raise malformed("The text has more than one block: give one of them.")
    if not begins or (ends and ends[0].start() < begins[0].end()):
        raise malformed(f"The line that begins the {kind.description} is missing: copy the block whole.")
    body = text[begins[0].end() : ends[0].start() if ends else len(text)]
    marks = list(_MARK.finditer(body))
    totals = Counter(int(mark["total"]) for mark in marks if 1 <= int(mark["total"]) <= MAX_PARTS)
    if not totals:
        raise malformed(f"The {kind.description} has no lines between its first and its last.")
    parts = _Parts(kind, "line", reference, totals.most_common(1)[0][0])
    last = 0
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        number, total = int(mark["number"]), int(mark["total"])
        symbols = parts.read(number, total, body[mark.end() : following.start() if following else len(body)])
        if symbols is None:
            parts.damage(number)
        elif number in parts.symbols:
            parts.problems.append(f"line {number} is there twice")
        else:
            parts.symbols[number] = symbols
            if number < last:
                parts.problems.append(f"line {number} comes after line {last}")
            last = max(last, number)
    if not ends:
        parts.problems.append("the line that ends it is missing")
    return parts


def _read_codes(text: str, codes: Sequence[re.Match[str]], kind: Kind) -> _Parts:
    reference = _find_reference(codes, "code")
    totals = {int(code["total"]) for code in codes}
    if len(totals) > 1 or not 1 <= min(totals) <= MAX_PARTS:
        raise malformed("The codes do not belong together: they are counted differently.")
    parts = _Parts(kind, "code", reference, totals.pop())
    for code, following in zip(codes, [*codes[1:], None], strict=True):
        number = int(code["number"])
        # Who copies by hand may leave out the full stop that ends a code.
        typed, _, _ = text[code.end() : following.start() if following else len(text)].partition(".")
        symbols = parts.read(number, parts.total, typed)
        # A code that was scanned twice is there twice, and is the same.
        if symbols is None or parts.symbols.setdefault(number, symbols) != symbols:
            parts.damage(number)
    return parts


def _find_reference(names: Sequence[re.Match[str]], word: str) -> str:
    """The one reference that all ``names`` have."""
    references = {name["reference"].translate(_CANONICAL) for name in names}
    if len(references) > 1:
        listed = ", ".join(sorted(references)[:_SHOWN_PROBLEMS])
        raise malformed(f"The text has parts of more than one {word}, or the name of one is damaged: {listed}.")
    return references.pop()


def _check(kind: Kind, number: int, count: int, symbols: str) -> str:
    """Four symbols: CRC-16/CCITT-FALSE. It notices every wrong symbol and every two neighbours that changed places."""
    text = f"{kind.name} {number}/{count}:{symbols}"
    return write_number(binascii.crc_hqx(text.encode(), 0xFFFF), _CHECK_SYMBOLS)


def _split(symbols: str, size: int) -> list[str]:
    return [symbols[at : at + size].ljust(size, ALPHABET[0]) for at in range(0, len(symbols), size)]


def _group(symbols: str) -> str:
    return " ".join(symbols[at : at + _GROUP] for at in range(0, len(symbols), _GROUP))
