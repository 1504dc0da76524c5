"""kms_fast's values agree with the vectors: keys, certificates, revocation lists, leaves, headers."""

from typing import Any

import pytest

from kms_fast.model.certificate import HostCertificate, IssuerCertificate, Rights
from kms_fast.model.keys import derive_sku_keys
from kms_fast.model.lease import Answer, BatchHeader, Leaf
from kms_fast.model.revocation import RevocationList
from kms_fast.model.signing import BATCH_HEADER, HOST_CERTIFICATE, verify
from tests.vectors.generate import load
from tests.vectors.world import ISSUER_FROM


def decode(vector: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(vector[name])


@pytest.mark.parametrize("vector", load("keys")["vectors"])
def test_keys_of_a_sku(vector: dict[str, Any]) -> None:
    derived = derive_sku_keys(*(decode(vector, name) for name in ("secret", "publisher_id", "sku_id")))
    assert derived == (decode(vector, "request_key"), decode(vector, "answer_secret"))


@pytest.mark.parametrize("vector", load("issuer_certificates")["vectors"])
def test_issuer_certificates(vector: dict[str, Any]) -> None:
    data = decode(vector, "certificate")
    certificate = IssuerCertificate.parse(data)
    assert certificate.to_bytes() == data
    assert certificate.public_key.hex() == vector["fields"]["public_key"]
    assert (certificate.serial, certificate.rights) == (vector["fields"]["serial"], vector["fields"]["rights"])
    certificate.verify([decode(vector, "root")], certificate.publisher_id, Rights.HOST_CERTIFICATES, ISSUER_FROM)


@pytest.mark.parametrize("vector", load("host_certificates")["vectors"])
def test_host_certificates(vector: dict[str, Any]) -> None:
    data, fields = decode(vector, "certificate"), vector["fields"]
    certificate = HostCertificate.parse(data)
    assert certificate.to_bytes() == data
    assert verify(decode(vector, "issuer_public_key"), certificate.signature, HOST_CERTIFICATE, certificate.body)
    assert (certificate.customer_id, certificate.host_id.hex()) == (fields["customer_id"], fields["host_id"])
    assert [family.number for family in certificate.families] == [family["number"] for family in fields["families"]]
    assert certificate.families[-1].maximum_validity_min == fields["families"][-1]["maximum_validity"]


@pytest.mark.parametrize("vector", load("revocations")["vectors"])
def test_revocation_lists(vector: dict[str, Any]) -> None:
    data = decode(vector, "list")
    revocations = RevocationList.parse(data)
    assert revocations.to_bytes() == data
    assert list(revocations.serials) == vector["fields"]["serials"]
    assert revocations.number == vector["fields"]["number"]
    revocations.verify([decode(vector, "root")], revocations.publisher_id)


@pytest.mark.parametrize("vector", load("leaves")["vectors"])
def test_leaves(vector: dict[str, Any]) -> None:
    leaf = Leaf.parse(decode(vector, "leaf"))
    assert (leaf.to_bytes().hex(), leaf.hash.hex()) == (vector["leaf"], vector["leaf_hash"])
    assert (leaf.count, leaf.threshold) == (vector["fields"]["current_count"], vector["fields"]["threshold"])


@pytest.mark.parametrize("vector", load("headers")["vectors"])
def test_batch_headers(vector: dict[str, Any]) -> None:
    header = BatchHeader.parse(decode(vector, "header"))
    assert (header.to_bytes().hex(), header.hash.hex()) == (vector["header"], vector["header_hash"])
    assert verify(decode(vector, "public_key"), decode(vector, "signature"), BATCH_HEADER, header.to_bytes())


def test_answers_come_apart() -> None:
    for vector in load("answers")["vectors"]:
        answer = Answer.parse(decode(vector, "answer"))
        assert answer.header.tree_size > answer.index
