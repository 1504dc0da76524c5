"""Activation by the publisher itself, with a multiple-activation key: what is asked, what a stored one is worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kms_fast.client.state import StoredActivation
from kms_fast.client.trust import Trust
from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.model.catalog import Sku
from kms_fast.model.document import malformed
from kms_fast.model.machine_activation import SERVICE_PATH, MachineActivation, MachineRequest
from kms_fast.model.policy import format_time


@dataclass(frozen=True, slots=True)
class DirectRequest:
    """What goes to the publisher, to its activation service (docs/publisher.md) or as a file.

    ``service``: the address of the service by the publisher file, empty for none.
    """

    sku: Sku
    service: str
    machine: MachineRequest

    @property
    def url(self) -> str:
        """Where to POST `data`; empty when the publisher has no service, and the request goes there as a file."""
        return self.service and self.service.rstrip("/") + SERVICE_PATH

    @property
    def data(self) -> bytes:
        """The bytes to send."""
        return self.machine.to_json()


@dataclass(frozen=True, slots=True)
class DirectActivation:
    """A verified activation by the publisher itself, which has no end. Times are milliseconds since 1970."""

    activation: MachineActivation
    received_ms: int

    def is_of(self, cmid: bytes, hardware_digest: bytes) -> bool:
        """Whether it was made for this installation on this hardware."""
        return (self.activation.cmid.bytes, self.activation.hardware_digest) == (cmid, hardware_digest)

    def to_json(self) -> dict[str, Any]:
        """The activation for ``--json`` and status pages."""
        return {
            "key_last_five": self.activation.key_last_five,
            "cmid": str(self.activation.cmid),
            "issued": format_time(self.activation.issued_ms),
            "received": format_time(self.received_ms),
        }


def verify_direct(stored: StoredActivation, trust: Trust) -> DirectActivation:
    """A stored activation, verified from the root keys up, if it is one of this product and customer.

    Raises `ConfigurationError`: ROOT_UNKNOWN, ISSUER_*, CERTIFICATE_KIND (another customer) or OFFLINE_DATA_MALFORMED.
    """
    activation = MachineActivation.parse(stored.answer)
    activation.verify(trust.publisher)
    if activation.sku != trust.sku.id:
        raise malformed(f"The activation is of another product than {trust.sku.name}.")
    if trust.customer_id not in (0, activation.customer_id):
        raise ConfigurationError(
            f"The activation is made out to customer {activation.customer_id}; {trust.sku.name} accepts "
            f"{trust.customer_id} only.",
            name="CERTIFICATE_KIND",
        )
    return DirectActivation(activation, stored.received_ms)


def check_hardware(sources: Sequence[str]) -> None:
    """Refuse what would be worth as much on every machine. Raises `KmsFastError` (HARDWARE_UNKNOWN)."""
    if not sources:
        raise KmsFastError(
            "This machine has neither a machine ID nor a firmware UUID that this user may read, nor a MAC address.",
            name="HARDWARE_UNKNOWN",
        )
