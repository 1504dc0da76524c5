"""Requests, against the reference."""

from kms_fast._core import SkuKeys
from kms_fast.client.request import RequestFields
from kms_fast.model.keys import derive_sku_keys
from tests.hosts import PUBLISHER_ID, SKUS
from tests.reference import request as reference

SKU = SKUS["desktop"]
KEYS = SkuKeys(SKU.id.bytes, *derive_sku_keys(SKU.secret, PUBLISHER_ID, SKU.id.bytes))
REFERENCE_KEYS = reference.SkuKeys.derive(SKU.secret, PUBLISHER_ID, SKU.id.bytes)
FIELDS = RequestFields(
    cmid=b"c" * 16,
    hardware_digest=b"h" * 16,
    client_time_ms=1_800_000_000_000,
    name="näme",
    previous_cmid=b"p" * 16,
    minutes_to_expiry=43_200,
    revocations_number=9,
    licence_state=3,
    virtual=True,
    predecessor=b"l" * 32,
)


def test_the_reference_reads_what_the_client_says() -> None:
    fields = reference.open_request(REFERENCE_KEYS, FIELDS.seal(KEYS))
    assert fields == reference.Fields(
        cmid=b"c" * 16,
        previous_cmid=b"p" * 16,
        name="näme".encode(),
        client_time=1_800_000_000_000,
        minutes_to_expiry=43_200,
        revocation_list=9,
        library_version=1 << 16,
        licence_state=3,
        virtual_machine=1,
        hardware_digest=b"h" * 16,
        predecessor=b"l" * 32,
    )


def test_the_client_reads_its_request_back() -> None:
    assert RequestFields.open(FIELDS.seal(KEYS), KEYS) == FIELDS


def test_each_request_has_a_nonce_of_its_own() -> None:
    assert FIELDS.seal(KEYS)[20:36] != FIELDS.seal(KEYS)[20:36]


def test_other_keys_do_not_open_it() -> None:
    assert RequestFields.open(FIELDS.seal(KEYS), SkuKeys(SKU.id.bytes, bytes(32), bytes(32))) is None
