"""kms_fast agrees with the vectors of activations without a host."""

import json
from dataclasses import replace
from typing import Any

import pytest

from kms_fast.model.keys import parse_key
from kms_fast.model.machine_activation import ActivationKeySecrets, MachineActivation, MachineRequest
from tests.model.test_catalog import make_publisher_file
from tests.vectors.generate import load


@pytest.mark.parametrize("vector", load("machine_activation")["exchanges"], ids=lambda vector: vector["key"])
def test_exchanges(vector: dict[str, Any]) -> None:
    request = MachineRequest.parse(json.dumps(vector["request"]).encode())
    secrets = ActivationKeySecrets.derive(parse_key(vector["key"]), request.publisher_id)
    assert json.loads(replace(request, mac=b"").seal(secrets).to_json()) == vector["request"]
    activation = MachineActivation.parse(json.dumps(vector["activation"]).encode())
    activation.verify(make_publisher_file(publisher_id=request.publisher_id, roots=(bytes.fromhex(vector["root"]),)))
    assert json.loads(activation.to_json()) == vector["activation"]
