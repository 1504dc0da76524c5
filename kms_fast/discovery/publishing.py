"""A host's own SRV record: published and withdrawn by dynamic update, beside the records of other hosts.

A record is this host's when target and port are; its priority, weight and time to live may change. A change is made on
the condition that the set is still the one whose other hosts were looked at, and read back afterwards.
"""

import ipaddress
from dataclasses import dataclass
from typing import Any, Final

import dns.exception
import dns.name
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

from kms_fast.discovery.audit import Condition, Finding, Look, look_at
from kms_fast.discovery.srv import LOOKUP_S, describe_failure
from kms_fast.discovery.zone import Access, Zone, find_zone
from kms_fast.errors import KmsFastError
from kms_fast.model.names import PublishedDomain

ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class HostRecord:
    """One host's record in one domain. ``service``: the publisher's name for it, such as ``_kms-fast._tcp``."""

    service: str
    domain: PublishedDomain
    target: str
    port: int
    ttl_s: int

    @property
    def name(self) -> dns.name.Name:
        """The record set's name."""
        return dns.name.from_text(f"{self.service}.{self.domain.name}.")

    @property
    def data(self) -> SRV:
        """The record itself."""
        target = dns.name.from_text(self.target)
        priority, weight = self.domain.priority, self.domain.weight
        return SRV(dns.rdataclass.IN, dns.rdatatype.SRV, priority, weight, self.port, target)  # type: ignore[no-untyped-call]

    def is_same_host(self, other: SRV) -> bool:
        """Whether another record of the set is this host's too."""
        return bool(other.target == self.data.target and other.port == self.port)

    def __str__(self) -> str:
        """The line that creates it by hand."""
        return f"{self.name} {self.ttl_s} IN SRV {self.data}"


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to a set. ``removed``: records of this host that are gone; ``beside``: the set's other hosts."""

    record: HostRecord
    zone: Zone
    removed: tuple[str, ...]
    beside: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The change as an object."""
        return {
            "domain": self.record.domain.name,
            "record": str(self.record),
            "zone": self.zone.apex.to_text(omit_final_dot=True),
            "server": self.zone.server,
            "removed": list(self.removed),
            "beside": [finding.to_json() for finding in self.beside],
        }


async def publish(record: HostRecord, access: Access, look: Look, *, share: bool = False) -> Change:
    """Add the record to its set, in place of what the set had of this host.

    Raises `KmsFastError`, whose details have the record to create by hand: DNS_SET_FOREIGN when the set names a server
    that is no kms_fast host, unless ``share``; otherwise what `withdraw` raises.
    """
    try:
        zone = await find_zone(record.name, access)
        for attempts_left in reversed(range(ATTEMPTS)):
            try:
                return await _publish_once(record, zone, look, share)
            except KmsFastError as error:
                if error.result.name != "DNS_SET_CHANGED" or not attempts_left:
                    raise
        raise AssertionError("the last attempt returns or raises")
    except KmsFastError as error:
        raise _add_record(error, record) from None


async def _publish_once(record: HostRecord, zone: Zone, look: Look, share: bool) -> Change:
    present = await zone.read_set(record.name)
    records = list(present or ())
    beside = await look_at(str(record.name), [other for other in records if not record.is_same_host(other)], look)
    foreign = [finding for finding in beside if finding.sight.condition is Condition.FOREIGN]
    if foreign and not share:
        raise KmsFastError(
            f"{record.name} names {', '.join(map(str, foreign))}.",
            name="DNS_SET_FOREIGN",
            hosts=[finding.to_json() for finding in foreign],
        )
    former = [other for other in records if record.is_same_host(other) and other != record.data]
    update = zone.begin_update()
    if present is None:
        update.absent(record.name, dns.rdatatype.SRV)
    else:
        update.present(record.name, *present)
    for other in former:
        update.delete(record.name, other)
    # Also when it is there already: servers that drop records which nobody refreshes are told that it is in use.
    update.add(record.name, record.ttl_s, record.data)
    await zone.send(update)
    if record.data not in (await zone.read_set(record.name) or ()):
        raise KmsFastError(
            f"The name server {zone.server} took the update, but the record is not there; "
            "perhaps the name is an alias (CNAME).",
            name="DNS_UPDATE_REFUSED",
        )
    return Change(record, zone, tuple(map(str, former)), tuple(beside))


async def withdraw(record: HostRecord, access: Access) -> Change:
    """Remove what the set has of this host, whatever its priority and weight; nothing when it has none.

    Raises `KmsFastError`, whose message says what to remove by hand: what `find_zone`, `Zone.read_set` and `Zone.send`
    raise.
    """
    try:
        zone = await find_zone(record.name, access)
        own = [other for other in await zone.read_set(record.name) or () if record.is_same_host(other)]
        if own:
            update = zone.begin_update()
            for other in own:
                update.delete(record.name, other)
            await zone.send(update)
    except KmsFastError as error:
        by_hand = f"To remove by hand: every record of {record.target}:{record.port} in {record.name}"
        message = f"{error.message} {by_hand}"
        raise KmsFastError(message, name=error.result.name, **error.details, domain=record.domain.name) from None
    return Change(record, zone, tuple(map(str, own)))


async def check_target(name: str, access: Access) -> None:
    """Check that clients can reach a host by this name. Raises `KmsFastError` (DNS_TARGET_INVALID): DNS says no."""
    try:
        found = list((await access.resolver.resolve_name(name, lifetime=LOOKUP_S)).addresses())
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer) as error:
        raise _refuse_target(name, f"it has no address in DNS: {describe_failure(error)}") from None
    except dns.exception.DNSException:
        # Silence says nothing of the name. Where the zone cannot be asked either, publishing fails by that.
        return
    if all(ipaddress.ip_address(address).is_loopback for address in found):
        raise _refuse_target(name, f"in DNS it is only this machine itself ({', '.join(found)})")


def _refuse_target(name: str, why: str) -> KmsFastError:
    return KmsFastError(f"{name} is not published: {why}.", name="DNS_TARGET_INVALID", target=name)


def _add_record(error: KmsFastError, record: HostRecord) -> KmsFastError:
    by_hand = "" if error.result.name == "DNS_SET_FOREIGN" else f" By hand: {record}"
    details = error.details | {"domain": record.domain.name, "record": str(record)}
    return KmsFastError(f"{error.message}{by_hand}", name=error.result.name, **details)
