"""Hosts from SRV records, in the order of RFC 2782: by priority, and at random by weight within one priority.

The names asked for are the publisher's service name in the machine's DNS domain, then in each domain of its search
list; a domain that was set explicitly replaces them all. The first name with records ends the search.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

from kms_fast.discovery.address import HostAddress
from kms_fast.errors import NoHost

LOOKUP_S = 5.0


@dataclass(frozen=True, slots=True)
class Service:
    """What to look up: a service name such as ``_kms-fast._tcp``, and the domain if one was set."""

    name: str
    domain: str | None = None


def find_hosts(service: Service, resolver: dns.resolver.Resolver | None = None) -> list[HostAddress]:
    """Hosts in the order to try them. Raises `NoHost` (``NO_SRV_RECORD``) with what each name asked for gave."""
    failures: dict[str, str] = {}
    try:
        resolver = resolver or dns.resolver.Resolver()
        for name in query_names(service, resolver):
            try:
                answer = resolver.resolve(name, "SRV", lifetime=LOOKUP_S, search=False)
            except dns.exception.DNSException as error:
                failures[name] = _describe(error)
            else:
                if hosts := order_records(answer, random.Random()):
                    return hosts
                failures[name] = "the service is not offered here"
    except dns.resolver.NoResolverConfiguration as error:
        failures[service.name] = _describe(error)
    raise _no_record(service, failures)


async def find_hosts_async(service: Service, resolver: dns.asyncresolver.Resolver | None = None) -> list[HostAddress]:
    """As `find_hosts`, without blocking the event loop."""
    failures: dict[str, str] = {}
    try:
        resolver = resolver or dns.asyncresolver.Resolver()
        for name in query_names(service, resolver):
            try:
                answer = await resolver.resolve(name, "SRV", lifetime=LOOKUP_S, search=False)
            except dns.exception.DNSException as error:
                failures[name] = _describe(error)
            else:
                if hosts := order_records(answer, random.Random()):
                    return hosts
                failures[name] = "the service is not offered here"
    except dns.resolver.NoResolverConfiguration as error:
        failures[service.name] = _describe(error)
    raise _no_record(service, failures)


def query_names(service: Service, resolver: dns.resolver.BaseResolver) -> list[str]:
    """The absolute names to ask for, in order, each once."""
    if service.domain is not None:
        return [f"{service.name}.{service.domain.strip('.')}."]
    domains = [resolver.domain, *resolver.search]
    names = [f"{service.name}.{domain.to_text()}" for domain in domains if domain != dns.name.root]
    return list(dict.fromkeys(name if name.endswith(".") else f"{name}." for name in names))


def order_records(records: Iterable[SRV], chance: random.Random) -> list[HostAddress]:
    """The targets of SRV records in the order of RFC 2782; the target ``.`` says that the service is not offered."""
    left = [record for record in records if record.target != dns.name.root]
    ordered: list[HostAddress] = []
    while left:
        priority = min(record.priority for record in left)
        record = _draw([record for record in left if record.priority == priority], chance)
        left.remove(record)
        ordered.append(HostAddress(record.target.to_text(omit_final_dot=True), record.port))
    return ordered


def _draw(records: Sequence[SRV], chance: random.Random) -> SRV:
    """One record of one priority: those of weight 0 first, then the running sum of weights against a random number."""
    by_weight = sorted(records, key=lambda record: record.weight > 0)
    place = chance.randint(0, sum(record.weight for record in by_weight))
    for record in by_weight:
        place -= record.weight
        if place <= 0:
            return record
    raise AssertionError("the running sum reaches the sum of weights")


def _describe(error: dns.exception.DNSException) -> str:
    if isinstance(error, dns.resolver.NXDOMAIN):
        return "the name does not exist"
    if isinstance(error, dns.resolver.NoAnswer):
        return "the name has no SRV record"
    if isinstance(error, dns.exception.Timeout):
        return "the name servers did not answer in time"
    return str(error)


def _no_record(service: Service, failures: dict[str, str]) -> NoHost:
    if not failures:
        return NoHost(
            f"This machine has no DNS domain and no search list to look up {service.name} in.",
            name="NO_SRV_RECORD",
            names={},
        )
    asked = "; ".join(f"{name} ({why})" for name, why in failures.items())
    return NoHost(f"No SRV record was found. Asked for: {asked}.", name="NO_SRV_RECORD", names=failures)
