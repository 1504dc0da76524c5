"""Leases and licence states: what a stored grant is worth now (docs/client.md, "Licence states")."""

import uuid
from dataclasses import dataclass, replace
from typing import Any

from kms_fast.client.direct import DirectActivation, verify_direct
from kms_fast.client.machine import Clock
from kms_fast.client.request import RequestFields
from kms_fast.client.state import Product, StoredActivation, StoredLease
from kms_fast.client.trust import Trust
from kms_fast.errors import AnswerRejected, ConfigurationError, KmsFastError
from kms_fast.model.catalog import Sku
from kms_fast.model.lease import Answer, BatchHeader, Leaf
from kms_fast.model.policy import (
    MINUTE_MS,
    SET_BACK_TOLERANCE_MS,
    LicenceState,
    LicenceStatus,
    format_time,
    licence_status,
)


@dataclass(frozen=True, slots=True)
class Lease:
    """A verified grant. Times are milliseconds since 1970; (host ID, segment, number) names the batch that holds it."""

    leaf: Leaf
    header: BatchHeader
    leaf_hash: bytes
    received_ms: int

    @property
    def expires_ms(self) -> int:
        """When the validity, which runs from receipt, ends."""
        return self.received_ms + self.leaf.validity_min * MINUTE_MS

    def to_json(self) -> dict[str, Any]:
        """The lease for ``--json`` and status pages."""
        return {
            "sku": str(self.leaf.sku),
            "cmid": str(self.leaf.machine),
            "issued": format_time(self.header.time_ms),
            "received": format_time(self.received_ms),
            "expires": format_time(self.expires_ms),
            "validity_min": self.leaf.validity_min,
            "activation_interval_min": self.leaf.activation_interval_min,
            "renewal_interval_min": self.leaf.renewal_interval_min,
            "count": self.leaf.count,
            "threshold": self.leaf.threshold,
            "host_id": str(uuid.UUID(bytes=self.header.host_id)),
            "batch": f"{self.header.segment}/{self.header.number}",
            "leaf_hash": self.leaf_hash.hex(),
        }


def verify_lease(stored: StoredLease, trust: Trust) -> Lease:
    """The lease in a stored grant, by the checks of docs/protocol.md without those that belong to acceptance.

    Needs the setup key and the root keys alone; says nothing of revocation. Raises `AnswerRejected`.
    """
    fields = RequestFields.open(stored.request, trust.keys)
    if fields is None:
        raise AnswerRejected(
            "The stored activation was not requested with the installed setup key.", name="ANSWER_UNREADABLE"
        )
    checked = trust.make_verifier().check(
        stored.request, fields.cmid, fields.hardware_digest, stored.answer, now_ms=0, accept=False
    )
    if checked.result != 0:
        raise AnswerRejected("The stored answer is a refusal.", name="ANSWER_MALFORMED")
    return Lease(Leaf.parse(checked.leaf), BatchHeader.parse(checked.header), checked.leaf_hash, stored.received_ms)


def read_serial(stored: StoredLease) -> int | None:
    """The serial of the host's certificate, None in an answer that cannot be read. Verifies nothing."""
    try:
        return Answer.parse(stored.answer).host_certificate.serial
    except ConfigurationError:
        return None


@dataclass(frozen=True, slots=True)
class Licence:
    """The licence state of one product now. ``reason``: what is wrong; None also while a grace runs after an expiry."""

    status: LicenceStatus
    lease: Lease | None = None
    reason: KmsFastError | None = None
    direct: DirectActivation | None = None

    @property
    def needs_no_host(self) -> bool:
        """Whether it is licensed by the publisher itself, and so has no end."""
        return self.status.state is LicenceState.LICENSED and self.lease is None


def judge(
    product: Product, trust: Trust, *, cmid: bytes, hardware_digest: bytes, clock: Clock, mark_ms: int
) -> Licence:
    """What a product's stored state is worth on this machine now: the better of its activation and its lease."""
    direct = None
    if product.direct is not None:
        direct = _judge_direct(product, product.direct, trust, cmid, hardware_digest, clock.now_ms())
    if direct is not None and (product.lease is None or direct.status.state is LicenceState.LICENSED):
        return direct
    licence = _judge_lease(product, trust, cmid, hardware_digest, clock, mark_ms)
    return replace(licence, direct=direct.direct) if direct else licence


def _judge_lease(
    product: Product, trust: Trust, cmid: bytes, hardware_digest: bytes, clock: Clock, mark_ms: int
) -> Licence:
    sku = trust.sku
    if product.lease is None:
        return _with_reason(_initial_grace(product, sku, clock.now_ms()), None, None)
    try:
        lease = verify_lease(product.lease, trust)
    except AnswerRejected as error:
        return _with_reason(_initial_grace(product, sku, clock.now_ms()), None, error)
    now_ms = effective_now_ms(product.lease, clock, mark_ms)
    if now_ms is None:
        return Licence(LicenceStatus(LicenceState.NOTIFICATION, 0), lease, _clock_set_back(clock.now_ms(), mark_ms))
    ended_ms, reason = product.lease.revoked_ms, None
    if ended_ms is not None:
        reason = KmsFastError(
            f"The publisher revoked the certificate of the host that activated {sku.name}.", name="CERTIFICATE_REVOKED"
        )
    elif (lease.leaf.cmid, lease.leaf.hardware_digest) != (cmid, hardware_digest):
        # Here the lease never counted, so the grace runs from its receipt: copying the file gains no time.
        ended_ms = lease.received_ms
        reason = _hardware_changed(sku)
    status = licence_status(
        now_ms,
        grace_started_ms=product.grace_started_ms,
        received_ms=lease.received_ms,
        validity_min=lease.leaf.validity_min,
        grace_min=sku.grace_min,
        revoked_ms=ended_ms,
    )
    return _with_reason(status, lease, reason)


def _judge_direct(
    product: Product, stored: StoredActivation, trust: Trust, cmid: bytes, hardware_digest: bytes, now_ms: int
) -> Licence:
    """What an activation by the publisher itself is worth: it has no end, and counts on its machine only."""
    try:
        direct = verify_direct(stored, trust)
    except ConfigurationError as error:
        return _with_reason(_initial_grace(product, trust.sku, now_ms), None, error)
    if direct.is_of(cmid, hardware_digest):
        return Licence(LicenceStatus(LicenceState.LICENSED, 0), direct=direct)
    issued_ms = direct.activation.issued_ms
    if now_ms + SET_BACK_TOLERANCE_MS < issued_ms:
        status = LicenceStatus(LicenceState.NOTIFICATION, 0)
        return Licence(status, reason=_clock_set_back(now_ms, issued_ms), direct=direct)
    status = licence_status(
        max(now_ms, stored.received_ms),
        grace_started_ms=product.grace_started_ms,
        received_ms=stored.received_ms,
        validity_min=trust.sku.validity_min,
        grace_min=trust.sku.grace_min,
        revoked_ms=stored.received_ms,
    )
    return Licence(status, reason=_hardware_changed(trust.sku), direct=direct)


def effective_now_ms(stored: StoredLease, clock: Clock, mark_ms: int) -> int | None:
    """The receipt plus what has passed since: on the clock that counts from boot, after a reboot on the wall clock.

    None when only the wall clock could tell and it was set back behind a signed time.
    """
    boot = clock.since_boot()
    if boot is not None and boot[0] == stored.boot_id and boot[1] >= stored.boot_ms:
        return stored.received_ms + boot[1] - stored.boot_ms
    now_ms = clock.now_ms()
    if now_ms + SET_BACK_TOLERANCE_MS < mark_ms:
        return None
    return max(now_ms, stored.received_ms)


def _initial_grace(product: Product, sku: Sku, now_ms: int) -> LicenceStatus:
    return licence_status(now_ms, grace_started_ms=product.grace_started_ms, initial_grace_min=sku.initial_grace_min)


def _with_reason(status: LicenceStatus, lease: Lease | None, reason: KmsFastError | None) -> Licence:
    if reason is None and status.state is LicenceState.NOTIFICATION:
        reason = KmsFastError("The grace period has ended.", name="GRACE_ENDED")
    return Licence(status, lease, reason)


def _hardware_changed(sku: Sku) -> KmsFastError:
    return KmsFastError(f"The activation of {sku.name} was made on other hardware.", name="HARDWARE_CHANGED")


def _clock_set_back(now_ms: int, mark_ms: int) -> KmsFastError:
    return KmsFastError(
        f"This machine's clock shows {format_time(now_ms)}, but an activation was signed at {format_time(mark_ms)}.",
        name="CLOCK_SET_BACK",
    )
