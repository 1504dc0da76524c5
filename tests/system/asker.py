"""Asks a real host with the reference's client: requests of random machines, and the checks of their answers."""

import os
import time
from typing import Any, NamedTuple

from tests.hosts import PUBLISHER_ID, Realm
from tests.reference.request import Fields, SkuKeys, digest_hardware, seal_request
from tests.reference.verify import Asked, Clock, Product, Verified, verify


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


class Asker(NamedTuple):
    """Knows what a client knows of one SKU."""

    product: Product

    @classmethod
    def of(cls, realm: Realm, name: str, *, secret: bytes | None = None) -> "Asker":
        """For one of the realm's SKUs; ``secret`` is that of another setup key."""
        sku = realm.skus[name]
        keys = SkuKeys.derive(secret or sku.secret, PUBLISHER_ID, sku.id.bytes)
        return cls(Product(PUBLISHER_ID, (realm.root,), keys, sku.family, sku.generation))

    def ask(self, **changes: Any) -> Asked:
        """A request of a machine that nobody has seen before, with ``changes`` to its fields."""
        cmid = os.urandom(16)
        fields = Fields(
            cmid,
            name=f"machine-{cmid.hex()[:8]}".encode(),
            client_time=now_ms(),
            licence_state=cmid[0] % 4,
            virtual_machine=cmid[1] % 2,
            hardware_digest=digest_hardware(cmid, PUBLISHER_ID, cmid),
        )._replace(**changes)
        return Asked(
            seal_request(self.product.keys, fields.to_bytes(), os.urandom(16)), fields.cmid, fields.hardware_digest
        )

    def check(self, asked: Asked, answer: bytes | None, *, mark_ms: int = 0) -> Verified:
        """All 25 steps, now. Raises Rejected."""
        assert answer is not None
        return verify(self.product, asked, answer, Clock(now_ms(), mark_ms))
