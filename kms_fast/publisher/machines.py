"""Multiple-activation keys: making one, and from a machine request to an activation within what it allows."""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.model.catalog import Sku
from kms_fast.model.keys import KeyKind, ProductKey, new_key
from kms_fast.model.machine_activation import (
    ActivationKeySecrets,
    MachineActivation,
    MachineRequest,
    issue_machine_activation,
)
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.records import ActivationKeyRecord, RequestRecord


@dataclass(frozen=True, slots=True)
class ActivatedMachine:
    """What `activate_machine` did. ``again``: the machine was activated before, so nothing was taken from the key."""

    activation: MachineActivation
    key: ActivationKeyRecord
    machines: int
    again: bool


def make_activation_key(
    publisher: Publisher, wanted: str, *, now_ms: int, machines: int, customer_id: int = 0, note: str = ""
) -> tuple[ProductKey, Sku]:
    """A new multiple-activation key of a SKU, named by name, ID or reference; only what is derived of it is stored.

    Raises `ConfigurationError`.
    """
    sku = publisher.find_sku(wanted)
    key = new_key(KeyKind.MULTIPLE_ACTIVATION, publisher.publisher_id, sku.reference)
    secrets = ActivationKeySecrets.derive(key, publisher.publisher_id)
    record = ActivationKeyRecord(secrets, sku.id, machines, customer_id, note, now_ms)
    publisher.records.add_activation_key(record)
    return key, sku


def activate_machine(
    publisher: Publisher,
    request_data: bytes,
    issuer_key: Ed25519PrivateKey,
    *,
    now_ms: int,
    peer: str = "",
) -> ActivatedMachine:
    """Check a machine request, take a machine from its key, and issue the activation.

    A machine is a CMID on its hardware: one that asks again gets its activation again, costs none and is no news for
    the log, which it could fill. ``peer``: the address that asked, for the log. Raises OSError or `KmsFastError`:
    OFFLINE_DATA_MALFORMED (the request), KEY_INVALID (an unknown key, or a MAC that is not its own),
    MULTIPLE_ACTIVATION_KEY_USED_UP, KEY_DISABLED, ISSUER_DATES. But for the log, records change only on success.
    """
    request: MachineRequest | None = None
    try:
        request = MachineRequest.parse(request_data)
        return _activate(publisher, request, issuer_key, now_ms, peer)
    except KmsFastError as error:
        publisher.records.add_request(_describe_request(publisher, request, now_ms, peer, error.result.code))
        raise


def _activate(
    publisher: Publisher,
    request: MachineRequest,
    issuer_key: Ed25519PrivateKey,
    now_ms: int,
    peer: str,
) -> ActivatedMachine:
    if request.publisher_id != publisher.publisher_id:
        raise ConfigurationError("The machine request is meant for another publisher.", name="OFFLINE_DATA_MALFORMED")
    records = publisher.records
    with records.transaction():
        publisher.issuer.check_dates(now_ms)
        key = _check_key(publisher, request)
        used = records.count_machines(key.secrets.key_id)
        again = records.has_machine(key.secrets.key_id, request.hardware_digest)
        if not again:
            _check_room(key, used)
            records.add_machine(key.secrets.key_id, request.hardware_digest, request.cmid.bytes, now_ms)
            records.add_request(_describe_request(publisher, request, now_ms, peer, 0))
    activation = issue_machine_activation(
        issuer_key,
        publisher.issuer,
        request,
        key_last_five=key.secrets.last_five,
        customer_id=key.customer_id,
        issued_ms=now_ms,
    )
    return ActivatedMachine(activation, key, used if again else used + 1, again)


def _describe_request(
    publisher: Publisher, request: MachineRequest | None, now_ms: int, peer: str, result: int
) -> RequestRecord:
    """The row of the log: the CMID is the installation ID; what was no request has no key."""
    if request is None:
        return RequestRecord(now_ms, peer, "", None, None, result, None)
    key = publisher.records.find_activation_key(request.key_id)
    shown = key.secrets.last_five if key else request.key_id.hex()
    return RequestRecord(now_ms, peer, shown, request.cmid.bytes, None, result, None)


def _check_key(publisher: Publisher, request: MachineRequest) -> ActivationKeyRecord:
    key = publisher.records.find_activation_key(request.key_id)
    if key is None:
        raise ConfigurationError(
            f"The machine request names a multiple-activation key (ID {request.key_id.hex()}) that this publisher did "
            "not make.",
            name="KEY_INVALID",
        )
    request.check_mac(key.secrets)
    if key.disabled_ms is not None:
        raise ConfigurationError(
            f"The publisher has disabled the multiple-activation key that ends in {key.secrets.last_five}.",
            name="KEY_DISABLED",
        )
    if request.sku != key.sku:
        raise ConfigurationError(
            f"The multiple-activation key that ends in {key.secrets.last_five} activates another product.",
            name="KEY_INVALID",
        )
    return key


def _check_room(key: ActivationKeyRecord, used: int) -> None:
    if used >= key.machines:
        raise ConfigurationError(
            f"The multiple-activation key that ends in {key.secrets.last_five} has activated {used} of {key.machines} "
            "machines.",
            name="MULTIPLE_ACTIVATION_KEY_USED_UP",
            machines=used,
            machines_allowed=key.machines,
        )
