"""kms_fast agrees with the vectors of the offline exchange."""

import json
from typing import Any

import pytest

from kms_fast.errors import ConfigurationError
from kms_fast.model.armour import read_armour, write_block, write_codes
from kms_fast.model.certificate import HostCertificate, IssuerCertificate
from kms_fast.model.compact import CompactAnswer, Kind, pack_request, unpack_request
from kms_fast.model.exchange import HostRequest
from tests.vectors.generate import load

VECTORS = load("exchange")


def compare_texts(vector: dict[str, Any], kind: Kind) -> bytes:
    """Each text of a vector is what kms_fast writes and reads; the compact form."""
    compact = bytes.fromhex(vector["compact"])
    assert write_block(compact).splitlines() == vector["block"]
    assert [write_codes(compact, count) for count in (1, 3)] == vector["codes"]
    for lines in (vector["block"], *vector["codes"]):
        assert read_armour("\n".join(lines), kind) == compact
    return compact


@pytest.mark.parametrize("vector", VECTORS["requests"], ids=lambda vector: vector["block"][0])
def test_requests(vector: dict[str, Any]) -> None:
    request = HostRequest.parse(json.dumps(vector["file"]).encode())
    compact = compare_texts(vector, Kind.REQUEST)
    assert pack_request(request) == compact
    assert unpack_request(compact) == request


@pytest.mark.parametrize("vector", VECTORS["answers"], ids=lambda vector: vector["block"][0])
def test_answers(vector: dict[str, Any]) -> None:
    answer = CompactAnswer.of(
        HostCertificate.parse(bytes.fromhex(vector["host_certificate"])),
        IssuerCertificate.parse(bytes.fromhex(vector["issuer_certificate"])),
        catalog=json.dumps(vector["catalog"], indent=3).encode(),
        publisher_data=json.dumps(vector["publisher"], ensure_ascii=False).encode(),
    )
    compact = compare_texts(vector, Kind.ANSWER)
    assert answer.pack() == compact
    assert CompactAnswer.unpack(compact) == answer


@pytest.mark.parametrize("vector", VECTORS["wrong"], ids=lambda vector: vector["what"])
def test_what_is_wrong_is_named(vector: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_armour("\n".join(vector["text"]), Kind.REQUEST)
    assert caught.value.result.name == "OFFLINE_DATA_MALFORMED"
    assert (caught.value.details["damaged"], caught.value.details["missing"]) == (vector["damaged"], vector["missing"])
