"""25-character keys: spelling, check part, kinds; against the vectors and for every mistake one can make."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kms_fast.errors import KeyInvalid
from kms_fast.model.base32 import ALPHABET
from kms_fast.model.exchange import HostKeySecrets
from kms_fast.model.keys import KeyKind, ProductKey, key_id, new_key, parse_key, publisher_tag
from tests.publishing import PUBLISHER_ID
from tests.vectors.generate import load

VECTORS = load("product_keys")

product_keys = st.builds(
    ProductKey,
    st.sampled_from(KeyKind),
    st.integers(0, 1023),
    st.integers(0, 32_767),
    st.binary(min_size=10, max_size=10),
)


def characters_of(key: ProductKey) -> str:
    return key.text.replace("-", "")


def replace_at(text: str, position: int, character: str) -> str:
    return text[:position] + character + text[position + 1 :]


@pytest.mark.parametrize("vector", VECTORS["keys"], ids=lambda vector: vector["key"])
def test_vectors_of_keys(vector: dict[str, Any]) -> None:
    key = parse_key(vector["key"])
    assert (key.kind.name, key.publisher_tag, key.reference) == (
        vector["kind"],
        vector["publisher_tag"],
        vector["reference"],
    )
    assert key.secret.hex() == vector["secret"]
    assert key.text == vector["key"]


@pytest.mark.parametrize("vector", VECTORS["spellings"], ids=lambda vector: vector["typed"])
def test_vectors_of_spellings(vector: dict[str, str]) -> None:
    assert parse_key(vector["typed"]).text == vector["key"]


@pytest.mark.parametrize("vector", VECTORS["mistakes"], ids=lambda vector: vector["typed"])
def test_vectors_of_mistakes(vector: dict[str, Any]) -> None:
    with pytest.raises(KeyInvalid) as caught:
        parse_key(vector["typed"])
    if vector["wrong"] == "several":
        assert "At least two characters" in caught.value.message
    else:
        assert caught.value.details == {"group": vector["wrong"] // 5 + 1, "character": vector["wrong"] % 5 + 1}


@pytest.mark.parametrize("vector", VECTORS["host_keys"])
def test_vectors_of_derived_secrets(vector: dict[str, str]) -> None:
    secret, publisher_id = bytes.fromhex(vector["secret"]), bytes.fromhex(vector["publisher_id"])
    secrets = HostKeySecrets.derive(ProductKey(KeyKind.HOST, 0, 0, secret), publisher_id)
    assert key_id(secret, publisher_id).hex() == vector["key_id"] == secrets.key_id.hex()
    assert (secrets.mac_key.hex(), secrets.seal_key.hex()) == (vector["request_mac_key"], vector["catalog_seal_key"])


@given(product_keys)
def test_any_key_is_read_back(key: ProductKey) -> None:
    assert parse_key(key.text) == key


@given(product_keys)
def test_every_single_wrong_character_is_located(key: ProductKey) -> None:
    right = characters_of(key)
    for position, character in enumerate(right):
        # One other character for each position here; every one of them in the next test, for one key.
        other = ALPHABET[(ALPHABET.index(character) + 1 + position) % 32]
        if other == character:
            continue
        with pytest.raises(KeyInvalid) as caught:
            parse_key(replace_at(right, position, other))
        assert caught.value.details == {"group": position // 5 + 1, "character": position % 5 + 1}
        assert repr(other) in caught.value.message


def test_every_substitution_of_a_key_is_located() -> None:
    right = characters_of(parse_key(VECTORS["keys"][0]["key"]))
    for position, character in enumerate(right):
        for other in ALPHABET.replace(character, ""):
            with pytest.raises(KeyInvalid, match=f"Group {position // 5 + 1}, character {position % 5 + 1}, "):
                parse_key(replace_at(right, position, other))


@given(product_keys, st.data())
def test_two_wrong_characters_are_detected_and_never_located(key: ProductKey, data: st.DataObject) -> None:
    typed = characters_of(key)
    for position in data.draw(st.lists(st.integers(0, 24), min_size=2, max_size=2, unique=True)):
        other = data.draw(st.sampled_from(ALPHABET.replace(typed[position], "")))
        typed = replace_at(typed, position, other)
    with pytest.raises(KeyInvalid, match="At least two characters"):
        parse_key(typed)


@given(product_keys, st.integers(0, 23))
def test_swapped_neighbours_are_detected(key: ProductKey, position: int) -> None:
    right = characters_of(key)
    typed = right[:position] + right[position + 1] + right[position] + right[position + 2 :]
    if typed == right:
        assert parse_key(typed) == key
    else:
        with pytest.raises(KeyInvalid, match="have changed places"):
            parse_key(typed)


@given(st.text(max_size=60))
def test_any_other_text_is_refused_as_a_key(text: str) -> None:
    with pytest.raises(KeyInvalid):
        parse_key(text)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "has 0 characters"),
        ("AT900-5008J-4CT4A-NK7F2-4SME", "has 24 characters"),
        ("AT900-5008J-4CT4A-NK7F2-4SMEVV", "has 26 characters"),
        ("AT900-5008J-4CT4A-NK7F2-4SMEU", "Group 5, character 5, 'U', is wrong"),
        ("AT900-500?J-4CT4A-NK7F2-4SMEV", r"Group 2, character 4, '\?', is wrong"),
    ],
)
def test_lengths_and_foreign_characters_are_named(typed: str, message: str) -> None:
    with pytest.raises(KeyInvalid, match=message):
        parse_key(typed)


@pytest.mark.parametrize("kind", KeyKind)
@pytest.mark.parametrize("expect", KeyKind)
def test_a_key_of_another_kind_says_what_it_is(kind: KeyKind, expect: KeyKind) -> None:
    text = new_key(kind, PUBLISHER_ID).text
    if kind is expect:
        assert parse_key(text, expect=expect).kind is kind
        return
    with pytest.raises(KeyInvalid) as caught:
        parse_key(text, expect=expect)
    assert f"This is {kind.description}, but {expect.description} is needed here" in caught.value.message
    assert caught.value.result.hex == "0xC004F050"


def test_a_key_of_another_publisher_is_refused() -> None:
    text = new_key(KeyKind.HOST, PUBLISHER_ID).text
    assert parse_key(text, publisher_id=PUBLISHER_ID).publisher_tag == publisher_tag(PUBLISHER_ID)
    with pytest.raises(KeyInvalid, match="another publisher"):
        parse_key(text, publisher_id=bytes(16))


def test_an_unknown_kind_is_refused() -> None:
    key = ProductKey(KeyKind.HOST, 0, 0, bytes(10))
    object.__setattr__(key, "kind", 7)
    with pytest.raises(KeyInvalid, match="kind or version"):
        parse_key(key.text)


def test_no_error_or_repr_shows_the_key() -> None:
    key = new_key(KeyKind.HOST, PUBLISHER_ID)
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)
    secrets = HostKeySecrets.derive(key, PUBLISHER_ID)
    assert repr(secrets.mac_key) not in repr(secrets)
    assert repr(secrets.seal_key) not in repr(secrets)
    with pytest.raises(KeyInvalid) as caught:
        parse_key(key.text, expect=KeyKind.CLIENT_SETUP)
    assert key.text[6:] not in str(caught.value.to_json())


@pytest.mark.parametrize(("tag", "reference", "secret"), [(1024, 0, bytes(10)), (0, 32_768, bytes(10)), (0, 0, b"x")])
def test_values_out_of_range_make_no_key(tag: int, reference: int, secret: bytes) -> None:
    with pytest.raises(ValueError, match=r"range|bytes"):
        ProductKey(KeyKind.HOST, tag, reference, secret)
