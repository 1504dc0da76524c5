"""The rules of the activation service: what each request is answered, without the network (docs/publisher.md)."""

import ipaddress
import json
import uuid
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kms_fast.errors import KmsFastError
from kms_fast.files import read_bounded
from kms_fast.messages import log
from kms_fast.model import policy
from kms_fast.publisher.exporting import read_exported
from kms_fast.publisher.issuing import certify
from kms_fast.publisher.machines import activate_machine
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.rate_limit import RateLimit
from kms_fast.publisher.records import HostKeyRecord

# A host request with eight keys has about 2 KiB.
MAX_REQUEST_BYTES: Final = 1 << 16
PEER_BURST: Final = 30
KEY_BURST: Final = 20
LIMITED_LOG_S: Final = 60.0
# What who asks is told as it is; anything else is the publisher's own business, and goes to its log.
_STATUS: Final = {
    "OFFLINE_DATA_MALFORMED": 400,
    "KEY_INVALID": 403,
    "HOST_KEY_USED_UP": 403,
    "MULTIPLE_ACTIVATION_KEY_USED_UP": 403,
    "KEY_DISABLED": 403,
    "CERTIFICATE_REVOKED": 403,
    "TOO_MANY_REQUESTS": 429,
}
_UNAVAILABLE: Final = 503


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back: an HTTP status and a JSON file; ``retry_after_s`` where asking again makes sense only then."""

    status: int
    body: bytes
    retry_after_s: int | None = None


class ActivationService:
    """Answers hosts and machines with an issuer key that was opened once. One thread at a time may call its methods."""

    def __init__(
        self,
        publisher: Publisher,
        issuer_key: Ed25519PrivateKey,
        *,
        days: int = policy.HOST_CERTIFICATE_DAYS,
        peer_per_hour: int,
        key_per_hour: int,
    ) -> None:
        self._publisher = publisher
        self._issuer_key = issuer_key
        self._days = days
        self._peers = RateLimit(per_hour=peer_per_hour, burst=PEER_BURST)
        self._keys = RateLimit(per_hour=key_per_hour, burst=KEY_BURST)
        self._limited, self._limited_log_s = 0, 0.0

    def answer_host_request(self, data: bytes, peer: str, *, now_ms: int, now_s: float) -> Reply:
        """The host answer to a host request, or why there is none. ``now_s`` is a clock that never goes back."""
        try:
            self._admit_peer(peer, now_s)
            certified = certify(
                self._publisher,
                data,
                self._issuer_key,
                now_ms=now_ms,
                days=self._days,
                peer=peer,
                admit=lambda key: self._admit_key(key, now_s),
            )
        except (KmsFastError, OSError) as error:
            return self._refuse(error, peer)
        certificate = certified.certificate
        log(
            "CERTIFIED",
            peer=peer,
            host=uuid.UUID(bytes=certificate.host_id),
            until=policy.format_time(certificate.not_after_ms),
            serial=certificate.serial,
            how="renewed" if certified.renewal else "activated",
            keys=", ".join(f"…{key.secrets.last_five}" for key, _ in certified.uses),
        )
        return Reply(200, certified.answer)

    def answer_machine_request(self, data: bytes, peer: str, *, now_ms: int, now_s: float) -> Reply:
        """The activation that a machine asks for, or why there is none.

        Unlike a host key its key has no rate of its own: it may activate a site at once, and is limited by its number.
        """
        try:
            self._admit_peer(peer, now_s)
            activated = activate_machine(self._publisher, data, self._issuer_key, now_ms=now_ms, peer=peer)
        except (KmsFastError, OSError) as error:
            return self._refuse(error, peer)
        log(
            "MACHINE_ACTIVATED",
            peer=peer,
            machine=activated.activation.cmid,
            how="activated again" if activated.again else "activated",
            key=f"…{activated.key.secrets.last_five}",
            machines=activated.machines,
            allowed=activated.key.machines,
        )
        return Reply(200, activated.activation.to_json())

    def show_publisher_file(self, peer: str, *, now_s: float) -> Reply:
        """``publisher.json`` as exported last."""
        try:
            self._admit_peer(peer, now_s)
            return Reply(200, read_bounded(self._publisher.folder / "publisher.json"))
        except (KmsFastError, OSError) as error:
            return self._refuse(error, peer)

    def describe(self) -> str:
        """What is in force, in words for a line of the log."""
        try:
            exported = read_exported(self._publisher, self._publisher.read_catalog())[1]
        except KmsFastError as error:
            return f"{error.message} Until then no host is certified."
        until = policy.format_time(self._publisher.issuer.not_after_ms)
        return f"publisher file {exported.number}, revoked certificates: {len(exported.revoked)}, issuer until {until}"

    def _admit_peer(self, peer: str, now_s: float) -> None:
        self._admit(self._peers.take(_name_network(peer), now_s), f"the address {peer}", now_s)

    def _admit_key(self, key: HostKeyRecord, now_s: float) -> None:
        name = f"the host key that ends in {key.secrets.last_five}"
        self._admit(self._keys.take(key.secrets.key_id.hex(), now_s), name, now_s)

    def _admit(self, wait_s: int, who: str, now_s: float) -> None:
        if wait_s:
            self._limited += 1
            if now_s >= self._limited_log_s:
                # A flood must not fill the log.
                log("REQUESTS_LIMITED", who=who, refused=self._limited)
                self._limited, self._limited_log_s = 0, now_s + LIMITED_LOG_S
            raise KmsFastError(
                f"Too many requests of {who}: try again in {wait_s} s.", name="TOO_MANY_REQUESTS", retry_after_s=wait_s
            )

    def _refuse(self, error: KmsFastError | OSError, peer: str) -> Reply:
        if isinstance(error, KmsFastError) and (status := _STATUS.get(error.result.name)):
            if error.result.name != "TOO_MANY_REQUESTS":
                log("REQUEST_REFUSED", peer=peer, error=error)
            return Reply(status, render_error(error), error.details.get("retry_after_s"))
        log("REQUEST_FAILED", peer=peer, error=error)
        if isinstance(error, KmsFastError) and error.result.name == "EXPORT_DUE":
            told = KmsFastError(
                "The publisher has to export its publisher file before it certifies.", name="EXPORT_DUE"
            )
        else:
            told = KmsFastError("The publisher's activation service cannot activate now.", name="PUBLISHER_FAILED")
        return Reply(_UNAVAILABLE, render_error(told))


def render_error(error: KmsFastError) -> bytes:
    """A refusal as it is sent: the object of `KmsFastError.to_json`."""
    told: dict[str, Any] = error.to_json()
    return json.dumps(told, default=str).encode()


def _name_network(peer: str) -> str:
    """What counts as one peer: an IPv4 address, or the 64 bits of an IPv6 address that a site has at least."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address.ipv4_mapped if address.version == 6 else address)
