"""Which error each single flipped bit of an answer must give, from the layout and the order of the checks alone.

Bit b of an answer is bit b mod 8 (0 is the least significant) of its byte b div 8. Two tables of one answer:

* ``as_sent``: the bit is flipped in the answer as it was sent;
* ``sealed_anew``: the leaf is opened, the bit is flipped in the answer with its open leaf (byte 22 + i is leaf byte i),
  and the leaf is sealed again under the answer key with the hash of the header as it then is. Bits of the tag (bytes 6
  to 21) are left out: the seal makes them.
"""

from typing import Any

from tests.reference.certificate import DAY_MS
from tests.vectors.answers import client
from tests.vectors.world import HOST_FROM, ISSUER_FROM, TIME, build

NODES, FAMILY_COUNT = 10, 8
HEADER = 140 + 32 * NODES
CERTIFICATE = HEADER + 180
ISSUER = CERTIFICATE + 168 + 12 * FAMILY_COUNT
SIZE = ISSUER + 144

Table = list[tuple[int, int, str]]

# Bytes from, bytes to (not included), error. Parts that both tables share.
AROUND: Table = [
    (0, 2, "ANSWER_MALFORMED"),
    (2, 4, "NOT_INCLUDED"),
    (4, 6, "ANSWER_MALFORMED"),
    (140, HEADER, "NOT_INCLUDED"),
    (HEADER, HEADER + 2, "ANSWER_MALFORMED"),
    (HEADER + 116, CERTIFICATE, "BATCH_SIGNATURE"),
    (CERTIFICATE, CERTIFICATE + 1, "ANSWER_MALFORMED"),
    (CERTIFICATE + 1, CERTIFICATE + 2, "CERTIFICATE_SIGNATURE"),
    (CERTIFICATE + 2, CERTIFICATE + 4, "ANSWER_MALFORMED"),
    (CERTIFICATE + 4, ISSUER, "CERTIFICATE_SIGNATURE"),
    (ISSUER, ISSUER + 1, "ANSWER_MALFORMED"),
    (ISSUER + 1, ISSUER + 24, "ISSUER_SIGNATURE"),
    (ISSUER + 24, ISSUER + 32, "ROOT_UNKNOWN"),
    (ISSUER + 32, SIZE, "ISSUER_SIGNATURE"),
]
SEALED: Table = [(6, 140, "ANSWER_UNREADABLE"), (HEADER + 2, HEADER + 116, "ANSWER_UNREADABLE")]
OPENED: Table = [
    (22, 24, "ANSWER_MALFORMED"),
    (24, 25, "FAMILY_NOT_CERTIFIED"),
    (25, 26, "ANSWER_MALFORMED"),
    # A result other than 0 skips steps 15 and 16; the leaf is no longer in the tree.
    (26, 30, "NOT_INCLUDED"),
    (30, 62, "REQUEST_HASH_MISMATCH"),
    (62, 78, "SKU_MISMATCH"),
    (78, 94, "CMID_MISMATCH"),
    (94, 110, "HARDWARE_MISMATCH"),
    (110, 118, "NOT_INCLUDED"),
    (118, 120, "GENERATION_NOT_CERTIFIED"),
    # Validity, intervals, count and threshold are judged in steps 21 to 23, after inclusion.
    (120, 140, "NOT_INCLUDED"),
    (HEADER + 2, HEADER + 16, "BATCH_SIGNATURE"),
    (HEADER + 24, HEADER + 48, "HEADER_HOST_MISMATCH"),
    (HEADER + 48, HEADER + 116, "BATCH_SIGNATURE"),
]


def time_flips() -> Table:
    """Bits of the header's time, which steps 11 and 14 read before its signature is checked."""
    table = []
    for bit in range(64):
        time = TIME ^ 1 << bit
        error = "BATCH_SIGNATURE"
        if not HOST_FROM <= time <= HOST_FROM + 365 * DAY_MS:
            error = "CERTIFICATE_DATES"
        if not ISSUER_FROM <= time <= ISSUER_FROM + 731 * DAY_MS:
            error = "ISSUER_DATES"
        table.append((8 * (HEADER + 16) + bit, 8 * (HEADER + 16) + bit + 1, error))
    return table


def in_bits(table: Table) -> Table:
    return [(8 * first, 8 * end, error) for first, end, error in table]


def merge(table: Table) -> Table:
    """The table in ascending order, neighbours with the same error made one."""
    merged: Table = []
    for first, end, error in sorted(table):
        if merged and merged[-1][1:] == (first, error):
            first = merged.pop()[0]
        merged.append((first, end, error))
    return merged


def flips() -> dict[str, Any]:
    """The answer with 10 path nodes and 8 families, and its two tables as [first bit, end, error]."""
    return {
        **client(),
        "answer": build(size=1024, index=711).hex(),
        "as_sent": merge(in_bits(AROUND + SEALED)),
        "sealed_anew": merge(in_bits(AROUND + OPENED) + time_flips()),
    }
