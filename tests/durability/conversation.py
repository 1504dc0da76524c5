"""What machines asked a traced host and what they were told, from the bytes of its connections."""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.durability.trace import Event, Kind
from tests.reference.answer import Answer as AnswerParts
from tests.reference.answer import Header, Leaf
from tests.reference.request import SkuKeys, hash_request, open_request
from tests.reference.rpc import ACTIVATE, REQUEST, RESPONSE, Pdu, parse_request, parse_response
from tests.reference.verify import Asked, Product, verify

RPC_VERSION = 5


@dataclass(frozen=True)
class Trust:
    """What clients of a realm know: its roots, and each of its products by SKU ID."""

    publisher_id: bytes
    roots: tuple[bytes, ...]
    products: Mapping[bytes, Product]

    @classmethod
    def read(cls, path: Path) -> "Trust":
        """From the file that `tests.durability.realm` writes."""
        fields: dict[str, Any] = json.loads(path.read_text())
        publisher_id, roots = bytes.fromhex(fields["publisher_id"]), tuple(map(bytes.fromhex, fields["roots"]))
        products = {}
        for sku in fields["skus"]:
            keys = SkuKeys.derive(bytes.fromhex(sku["secret"]), publisher_id, bytes.fromhex(sku["id"]))
            products[keys.sku_id] = Product(publisher_id, roots, keys, sku["family"], sku["generation"])
        return cls(publisher_id, roots, products)


class Question(NamedTuple):
    """A request that reached the host. ``place``: from where on it may have been counted."""

    place: int
    family: int
    cmid: bytes


class Told(NamedTuple):
    """An answer that left the host, at ``place``; it passed every check of a client. ``asked``: the request's place."""

    place: int
    asked: int
    family: int
    index: int
    header_bytes: bytes
    header: Header
    leaf_bytes: bytes
    leaf: Leaf


class Conversation(NamedTuple):
    """All requests and answers of a trace, in order."""

    questions: list[Question]
    told: list[Told]


class _Stream:
    """One direction of a connection: bytes go in, whole PDUs come out."""

    def __init__(self) -> None:
        self._data = bytearray()

    def take(self, data: bytes) -> Iterator[Pdu]:
        """The PDUs that end in ``data``. Nothing for a connection that does not speak RPC."""
        self._data += data
        while len(self._data) >= 16 and self._data[0] == RPC_VERSION:
            size = struct.unpack_from("<H", self._data, 8)[0]
            if len(self._data) < size:
                return
            yield Pdu.parse(bytes(self._data[:size]))
            del self._data[:size]


class _Asked(NamedTuple):
    place: int
    request: bytes


def read_conversation(events: Sequence[Event], trust: Trust) -> Conversation:
    """The conversation of a trace. Raises `Rejected` for an answer that a client would not accept."""
    streams: dict[tuple[int, Kind], _Stream] = {}
    waiting: dict[tuple[int, int], _Asked] = {}
    conversation = Conversation([], [])
    for event in events:
        if event.kind not in (Kind.SEND, Kind.RECEIVE):
            continue
        for pdu in streams.setdefault((event.file, event.kind), _Stream()).take(event.data):
            if pdu.kind == REQUEST:
                operation, request = parse_request(pdu)
                if operation == ACTIVATE:
                    waiting[event.file, pdu.call_id] = _Asked(event.place, request)
                    conversation.questions.append(_read_question(event.place, request, trust))
            elif pdu.kind == RESPONSE and (event.file, pdu.call_id) in waiting:
                asked = waiting.pop((event.file, pdu.call_id))
                answer, _ = parse_response(pdu)
                if answer is not None:
                    conversation.told.append(_read_answer(event.place, asked, answer, trust))
    return conversation


def _read_question(place: int, request: bytes, trust: Trust) -> Question:
    product = trust.products[request[4:20]]
    return Question(place, product.family, open_request(product.keys, request).cmid)


def _read_answer(place: int, asked: _Asked, data: bytes, trust: Trust) -> Told:
    product = trust.products[asked.request[4:20]]
    fields = open_request(product.keys, asked.request)
    verified = verify(product, Asked(asked.request, fields.cmid, fields.hardware_digest), data, None)
    parts = AnswerParts.parse(data)
    assert verified.leaf.request_hash == hash_request(asked.request)
    return Told(
        place, asked.place, product.family, parts.leaf_index, parts.header, verified.header,
        verified.leaf.to_bytes(), verified.leaf,
    )  # fmt: skip
