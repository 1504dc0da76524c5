"""Whatever bytes a file holds, reading it ends in a value or in an error for users, never in another exception."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms_fast.errors import ConfigurationError
from kms_fast.model.catalog import Catalog
from kms_fast.model.catalog_toml import parse_catalog_toml
from kms_fast.model.certificate import parse_chain
from kms_fast.model.exchange import HostAnswer, HostRequest
from kms_fast.model.lease import Answer
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.revocation import RevocationList
from tests.model.test_catalog import AUTHORITY, CATALOG, make_publisher_file, parse_catalog
from tests.model.test_exchange import make_exchange, make_request

EXCHANGE = make_exchange()
DOCUMENTS: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "publisher file": (make_publisher_file().to_signed_json(AUTHORITY.root_key), PublisherFile.parse),
    "catalog": (CATALOG.to_signed_json(AUTHORITY.issuer_key, AUTHORITY.issuer), parse_catalog),
    "host request": (make_request(), HostRequest.parse),
    "host answer": (EXCHANGE.answer, EXCHANGE.open),
}
PARSERS: list[Callable[[bytes], Any]] = [parse_chain, RevocationList.parse, Answer.parse]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def read(parse: Callable[[bytes], Any], data: bytes) -> None:
    with suppress(ConfigurationError):
        parse(data)


def find_places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a JSON document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inside for place in find_places(item, (*path, key)))]


@pytest.mark.parametrize("name", DOCUMENTS)
@given(data=st.data())
def test_any_value_in_any_place_of_a_document(name: str, data: st.DataObject) -> None:
    original, parse = DOCUMENTS[name]
    document = json.loads(original)
    place = data.draw(st.sampled_from(find_places(document)[1:]))
    target = document
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = data.draw(values)
    read(parse, json.dumps(document).encode())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_nesting_without_end_in_a_document(name: str) -> None:
    original, parse = DOCUMENTS[name]
    for depth in (100, 300, 900, 5_000):
        document = json.loads(original)
        document["body"] = "HERE"
        read(parse, json.dumps(document).replace('"HERE"', "[" * depth + "]" * depth).encode())


@given(st.binary(max_size=700))
def test_any_bytes(data: bytes) -> None:
    for parse in [*PARSERS, *(parse for _, parse in DOCUMENTS.values())]:
        read(parse, data)


@given(st.text(max_size=200))
def test_any_text_as_a_catalog(text: str) -> None:
    read(lambda data: parse_catalog_toml(data.decode()), text.encode("utf-8", "replace"))


def test_nesting_without_end_in_a_catalog() -> None:
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        parse_catalog_toml("a = " + "[" * 5_000)


def test_the_documents_themselves_are_read() -> None:
    kinds = {type(parse(data)) for data, parse in DOCUMENTS.values()}
    assert kinds == {PublisherFile, Catalog, HostRequest, HostAnswer}
