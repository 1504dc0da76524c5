"""What users are told of a product and of its machine. Times are milliseconds since 1970."""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kms_fast.client.activation import InstalledProduct
from kms_fast.client.direct import DirectActivation
from kms_fast.client.lease import Lease, Licence
from kms_fast.client.machine import Machine
from kms_fast.client.presence import find_service
from kms_fast.client.state import Failure, Product, State
from kms_fast.model.catalog import Sku
from kms_fast.model.policy import MAX_REARMS, LicenceState, LicenceStatus, expiry_warning_days, format_time
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.revocation import RevocationList
from kms_fast.results import find_result


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of one product on this machine.

    ``key_last_five``: of the setup key, None without one. ``warned_days``: the last warning given for this lease.
    """

    sku: Sku
    licence: Licence
    cmid: uuid.UUID
    key_last_five: str | None
    host: str | None
    cached_host: str | None
    failure: Failure | None
    next_attempt_ms: int
    domain: str | None
    host_cache: bool
    warned_days: int | None

    @property
    def state(self) -> LicenceState:
        """The licence state."""
        return self.licence.status.state

    @property
    def minutes_left(self) -> int:
        """Minutes until the state ends, 0 for one that does not."""
        return self.licence.status.minutes_left

    @property
    def lease(self) -> Lease | None:
        """The stored lease, if there is one that verifies; it may have run out."""
        return self.licence.lease

    @property
    def direct(self) -> DirectActivation | None:
        """The stored activation by the publisher itself, if there is one that verifies."""
        return self.licence.direct

    @property
    def warning_days(self) -> int | None:
        """30, 7 or 1 when at most so many days are left of a lease that should have been renewed by now, else None."""
        if self.lease is None or self.state is not LicenceState.LICENSED:
            return None
        return expiry_warning_days(self.lease.leaf.validity_min, self.minutes_left)

    @property
    def warning_is_new(self) -> bool:
        """Whether there is a warning to give that was not given for this lease yet."""
        days = self.warning_days
        return days is not None and (self.warned_days is None or days < self.warned_days)

    @property
    def activation_interval_min(self) -> int:
        """How often the product asks while it has no activation: as the last grant said, at first the catalog."""
        return self.lease.leaf.activation_interval_min if self.lease else self.sku.activation_interval_min

    @property
    def renewal_interval_min(self) -> int:
        """How often the product renews: as the last grant said, at first the catalog."""
        return self.lease.leaf.renewal_interval_min if self.lease else self.sku.renewal_interval_min

    def to_json(self) -> dict[str, Any]:
        """The status for ``--json``."""
        reason, failure = self.licence.reason, self.failure
        next_ms = 0 if self.licence.needs_no_host else self.next_attempt_ms
        shown = ("code", "name", "message", "meaning", "cure")
        return {
            "product": self.sku.name,
            "sku": str(self.sku.id),
            "family": self.sku.family,
            "generation": self.sku.generation,
            "state": int(self.state),
            "state_name": self.state.name.lower(),
            "minutes_left": self.minutes_left,
            "reason": reason and {name: reason.to_json()[name] for name in shown},
            "key_last_five": self.key_last_five,
            "cmid": str(self.cmid),
            "host": self.host,
            "domain": self.domain,
            "host_cache": self.host_cache,
            "cached_host": self.cached_host,
            "activation_interval_min": self.activation_interval_min,
            "renewal_interval_min": self.renewal_interval_min,
            "next_attempt": format_time(next_ms) if next_ms else None,
            "last_failure": failure and _show_failure(failure),
            "lease": self.lease and self.lease.to_json(),
            "direct": self.direct and self.direct.to_json(),
        }


@dataclass(frozen=True, slots=True)
class MachineStatus:
    """What a home knows whichever product. ``service``: the process of ``client run``, None when none runs.

    ``trusted_ms``: the highest time that a host signed for this machine, 0 when none did. ``revocations``: the number
    of the newest list known.
    """

    publisher: str
    publisher_number: int
    srv_name: str
    revocations: int
    name: str
    virtual: bool
    cmid: uuid.UUID
    previous_cmid: uuid.UUID | None
    hardware: tuple[str, ...]
    rearms_left: int
    trusted_ms: int
    service: int | None
    state_file: Path

    def to_json(self) -> dict[str, Any]:
        """The facts for ``--json``."""
        return {
            "publisher": self.publisher,
            "publisher_number": self.publisher_number,
            "srv_name": self.srv_name,
            "revocations": self.revocations,
            "name": self.name,
            "virtual": self.virtual,
            "cmid": str(self.cmid),
            "previous_cmid": self.previous_cmid and str(self.previous_cmid),
            "hardware": list(self.hardware),
            "rearms_left": self.rearms_left,
            "trusted_time": format_time(self.trusted_ms) if self.trusted_ms else None,
            "service": self.service,
            "state_file": str(self.state_file),
        }


def describe_product(opened: InstalledProduct) -> Status:
    """The status of a product that is installed; verifies its lease or activation anew."""
    key = opened.trust.key
    return _make_status(opened.state, opened.trust.sku, opened.product, opened.judge(), key.last_five if key else None)


def describe_removed(state: State, sku: Sku, product: Product) -> Status:
    """The status of a product whose key was removed."""
    return _make_status(state, sku, product, Licence(LicenceStatus(LicenceState.UNLICENSED, 0)), None)


def describe_machine(state: State, publisher: PublisherFile, machine: Machine, path: Path) -> MachineStatus:
    """What the home whose state file is ``path`` knows whichever product."""
    return MachineStatus(
        publisher=publisher.name,
        publisher_number=publisher.number,
        srv_name=publisher.srv_name,
        revocations=max(publisher.revocations_number, _read_number(state.revocations)),
        name=machine.name,
        virtual=machine.virtual,
        cmid=state.cmid,
        previous_cmid=state.previous_cmid,
        hardware=tuple(state.hardware_sources),
        rearms_left=MAX_REARMS - state.rearms,
        trusted_ms=state.mark_ms,
        service=find_service(path.parent),
        state_file=path,
    )


def _make_status(state: State, sku: Sku, product: Product, licence: Licence, key_last_five: str | None) -> Status:
    return Status(
        sku,
        licence,
        state.cmid,
        key_last_five,
        product.host,
        product.cached_host,
        product.failure,
        product.next_attempt_ms,
        product.domain,
        product.host_cache,
        product.warned_days,
    )


def _read_number(revocations: bytes | None) -> int:
    return RevocationList.parse(revocations).number if revocations else 0


def _show_failure(failure: Failure) -> dict[str, str]:
    return {
        "time": format_time(failure.time_ms),
        "code": find_result(failure.code).hex,
        "message": failure.message,
    }
