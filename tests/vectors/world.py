"""The fixed publisher, product, host and client of the vectors, and :func:`build`, which makes an answer in one piece.

Nothing here is random: keys come from seeds, times are relative to :data:`TIME`.
"""

from typing import Any

from tests.reference.certificate import DAY_MS, Family
from tests.reference.host import Publisher, Scene, Sku, make_key
from tests.reference.request import Fields, SkuKeys, digest_hardware, seal_request
from tests.reference.verify import Asked, Clock, Product

# 2026-01-01T00:00:00Z
TIME = 1_767_225_600_000
ISSUER_FROM = TIME - 100 * DAY_MS
HOST_FROM = TIME - 10 * DAY_MS

PUBLISHER = Publisher.from_seed("vectors")
HOST_KEY = make_key("vectors host")
SECRET = bytes.fromhex("00112233445566778899")
SKU_ID = bytes.fromhex("5f0c7c1e96d24c0d8f0a3b1e2d4c6a88")
KEYS = SkuKeys.derive(SECRET, PUBLISHER.publisher_id, SKU_ID)
SKU = Sku(KEYS, family=6, generation=3)
CERTIFIED = Family(6, 4, 25, 259_200)
FAMILIES = tuple(CERTIFIED if number == 6 else Family(number, number, 5, 10_080) for number in range(1, 9))

CMID = bytes.fromhex("b34d7a66c9a94a5f9a0e2f2b8f6a0001")
HARDWARE = digest_hardware(CMID, PUBLISHER.publisher_id, b"board 1234")
FIELDS = Fields(
    CMID,
    name="büro-17".encode(),
    client_time=TIME - 1_500,
    minutes_to_expiry=43_200,
    library_version=1 << 16,
    licence_state=2,
    virtual_machine=1,
    hardware_digest=HARDWARE,
)
NONCE = bytes(range(16))
REQUEST = seal_request(KEYS, FIELDS.to_bytes(), NONCE)

PRODUCT = Product(PUBLISHER.publisher_id, (PUBLISHER.root,), KEYS, SKU.family, SKU.generation)
ASKED = Asked(REQUEST, CMID, HARDWARE)
CLOCK = Clock(TIME + 800)


SCENE = Scene(PUBLISHER, HOST_KEY, FAMILIES, SKU, FIELDS, REQUEST, TIME)


def build(**changes: Any) -> bytes:
    """The answer of :data:`SCENE`, with changes to the scene or, as :meth:`Scene.answer` takes them, to the answer."""
    scene = {name: changes.pop(name) for name in Scene._fields if name in changes}
    return SCENE._replace(**scene).answer(**changes)
