"""Vectors of activations without a host: machine requests, and what the publisher answers."""

from typing import Any
from uuid import UUID

from tests.reference.machine_activation import make_machine_activation, make_machine_request
from tests.reference.product_key import spell
from tests.vectors.product_keys import TAG
from tests.vectors.world import CMID, HARDWARE, ISSUER_FROM, PUBLISHER, SECRET, SKU_ID, TIME

REFERENCE = 5


def exchanges() -> dict[str, Any]:
    """docs/files.md, "Machine request" and "Machine activation"."""
    return {"specification": "docs/files.md", "exchanges": [_make(SECRET, 0), _make(SECRET[::-1], 4711)]}


def _make(secret: bytes, customer_id: int) -> dict[str, Any]:
    key = spell(3, TAG, REFERENCE, secret)
    request = make_machine_request(
        PUBLISHER.publisher_id, secret, str(UUID(bytes=SKU_ID)), str(UUID(bytes=CMID)), HARDWARE, TIME
    )
    activation = make_machine_activation(
        request, key[-5:], customer_id, PUBLISHER.issuer_key, PUBLISHER.issue_issuer(ISSUER_FROM), TIME + 800
    )
    return {"key": key, "root": PUBLISHER.root.hex(), "request": request, "activation": activation}
