"""Canonical JSON and the strict reader of fields."""

from collections.abc import Callable
from typing import Any

import pytest

from kms_fast.errors import ConfigurationError
from kms_fast.model.document import Fields, canonical_json, read_document, write_document

FORMAT = "kms_fast example 1"


def test_canonical_json_is_that_of_rfc_8785() -> None:
    value = {"b": [1, -2, 2**53 - 1], "a": {"z": "", "y": 'ü"\\\n\u0007/'}}
    assert canonical_json(value) == '{"a":{"y":"ü\\"\\\\\\n\\u0007/","z":""},"b":[1,-2,9007199254740991]}'.encode()


def test_a_document_is_read_back() -> None:
    data = write_document(FORMAT, {"n": 1}, signature="00ff")
    fields = read_document(data, FORMAT, "The file")
    assert fields.object("body").integer("n") == 1
    assert fields.octets("signature", 2) == b"\0\xff"
    fields.finish()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not readable as JSON"),
        (b"\xff\xfe", "not readable as JSON"),
        (b'{"format": "kms_fast example 1", "body": {}', "not readable as JSON"),
        (b'{"format": "kms_fast example 1", "a": 1, "a": 2}', "twice"),
        (b'{"format": "kms_fast example 1", "a": "\\ud800"}', "not readable as JSON"),
        (b'{"format": "kms_fast example 1", "a": ["\\ud800"]}', "not readable as JSON"),
        (b'{"format": "kms_fast example 1", "a": NaN}', "not readable as JSON"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"[]", "not a file of kms_fast"),
        (b"{}", "not a file of kms_fast"),
        (b'{"format": "kms_fast catalog 1"}', "has format 'kms_fast catalog 1'"),
    ],
)
def test_other_data_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        read_document(data, FORMAT, "The file")
    assert caught.value.result.name == "OFFLINE_DATA_MALFORMED"


Take = Callable[[Fields], Any]


@pytest.mark.parametrize(
    ("value", "take"),
    [
        ("text", lambda fields: fields.integer("f")),
        (True, lambda fields: fields.integer("f")),
        (1.0, lambda fields: fields.integer("f")),
        (-1, lambda fields: fields.integer("f")),
        (11, lambda fields: fields.integer("f", high=10)),
        (2**53, lambda fields: fields.integer("f")),
        (1, lambda fields: fields.text("f")),
        ("a\nb", lambda fields: fields.text("f")),
        ("x" * 201, lambda fields: fields.text("f")),
        ("0G", lambda fields: fields.octets("f")),
        ("AB", lambda fields: fields.octets("f")),
        ("a b", lambda fields: fields.octets("f")),
        ("ab", lambda fields: fields.octets("f", 2)),
        (None, lambda fields: fields.octets("f")),
        ("ab", lambda fields: fields.octets_list("f")),
        (["ab", 1], lambda fields: fields.octets_list("f")),
        ("nothing", lambda fields: fields.uuid("f")),
        (1, lambda fields: fields.uuid("f")),
        ("8FEBBD73-391C-4171-A81B-3CEE58F101AF", lambda fields: fields.uuid("f")),
        ([], lambda fields: fields.object("f")),
        ({}, lambda fields: fields.objects("f")),
        ([1], lambda fields: fields.objects("f")),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(value: Any, take: Take) -> None:
    with pytest.raises(ConfigurationError) as caught:
        take(Fields({"f": value}, "The file, part 3"))
    assert caught.value.message.startswith("The file, part 3")
    assert "f" in caught.value.message


def test_missing_and_unknown_fields_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="field 'f' is missing"):
        Fields({}, "The file").integer("f")
    fields = Fields({"f": 1, "g": 2}, "The file")
    assert fields.integer("f") == 1
    with pytest.raises(ConfigurationError, match="field 'g' is not known"):
        fields.finish()
