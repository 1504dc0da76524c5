"""Hosts from SRV records, in the order of RFC 2782: by priority, and at random by weight within one priority.

The names asked for are the publisher's service name in the machine's DNS domain, then in each domain of its search
list; a domain that was set explicitly replaces them all. The first name with records ends the search.
"""

import os
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

from kms_fast.discovery.address import HostAddress
from kms_fast.errors import NoHost

LOOKUP_S = 5.0
_UNANSWERED: Final = (dns.exception.Timeout, dns.resolver.NoNameservers, dns.resolver.NoResolverConfiguration)


@dataclass(frozen=True, slots=True)
class Service:
    """What to look up: a service name such as ``_kms-fast._tcp``, and the domain if one was set."""

    name: str
    domain: str | None = None


def find_hosts(service: Service, resolver: dns.resolver.Resolver | None = None) -> list[HostAddress]:
    """Hosts in the order to try them.

    Raises `NoHost` with what each name asked for gave: NO_SRV_RECORD, or DNS_UNANSWERED when the first got no answer.
    """
    search = _Search(service)
    with search.noting(service.name):
        resolver = resolver or dns.resolver.Resolver()
        for name in query_names(service, resolver):
            with search.noting(name):
                if hosts := search.take(name, resolver.resolve(name, "SRV", lifetime=LOOKUP_S, search=False)):
                    return hosts
    raise search.failure()


async def find_hosts_async(service: Service, resolver: dns.asyncresolver.Resolver | None = None) -> list[HostAddress]:
    """As `find_hosts`, without blocking the event loop."""
    search = _Search(service)
    with search.noting(service.name):
        resolver = resolver or dns.asyncresolver.Resolver()
        for name in query_names(service, resolver):
            with search.noting(name):
                if hosts := search.take(name, await resolver.resolve(name, "SRV", lifetime=LOOKUP_S, search=False)):
                    return hosts
    raise search.failure()


@dataclass(slots=True)
class Failures:
    """Why no host was found under which name. ``unanswered``: those names of which nobody knows whether they exist."""

    names: dict[str, str] = field(default_factory=dict)
    unanswered: set[str] = field(default_factory=set)

    def note(self, name: str, error: dns.exception.DNSException) -> None:
        """A lookup failed."""
        self.names[name] = describe_failure(error)
        self.unanswered |= {name} if isinstance(error, _UNANSWERED) else set()

    def explain(self, message: str) -> NoHost:
        """The error, with what to say when the first name got an answer."""
        name = "NO_SRV_RECORD"
        # The first is in the domain that was set, or in the machine's own: there the record belongs.
        if (first := next(iter(self.names))) in self.unanswered:
            message, name = f"No name server answered for {first}", "DNS_UNANSWERED"
        asked = "; ".join(f"{asked} ({why})" for asked, why in self.names.items())
        return NoHost(f"{message} Asked for: {asked}.", name=name, names=self.names)


class _Search:
    """What the names asked for so far gave; sans-I/O."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._failures = Failures()

    @contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """Keep why a name gave no answer, and go on."""
        try:
            yield
        except dns.exception.DNSException as error:
            self._failures.note(name, error)

    def take(self, name: str, answer: Iterable[SRV]) -> list[HostAddress]:
        """The hosts that an answer names."""
        hosts = order_records(answer, random.Random())
        if not hosts:
            self._failures.names[name] = "the service is not offered here"
        return hosts

    def failure(self) -> NoHost:
        """Why no host was found."""
        if self._failures.names:
            return self._failures.explain("No SRV record was found.")
        message = f"This machine has no DNS domain and no search list to look up {self._service.name} in."
        return NoHost(message, name="NO_SRV_RECORD", names={})


def query_names(service: Service, resolver: dns.resolver.BaseResolver) -> list[str]:
    """The absolute names to ask for, in order, each once."""
    if service.domain is not None:
        return [f"{service.name}.{service.domain.strip('.')}."]
    domains = [resolver.domain, *resolver.search]
    names = [f"{service.name}.{domain.to_text()}" for domain in domains if domain != dns.name.root]
    return list(dict.fromkeys(name if name.endswith(".") else f"{name}." for name in names))


def list_offered(records: Iterable[SRV]) -> list[SRV]:
    """The records that name a host; the target ``.`` says that the service is not offered."""
    return [record for record in records if record.target != dns.name.root]


def address_of(record: SRV) -> HostAddress:
    """The host that a record names."""
    return HostAddress(record.target.to_text(omit_final_dot=True), record.port)


def order_records(records: Iterable[SRV], chance: random.Random) -> list[HostAddress]:
    """The hosts of SRV records in the order of RFC 2782."""
    left = list_offered(records)
    ordered: list[HostAddress] = []
    while left:
        priority = min(record.priority for record in left)
        record = _draw([record for record in left if record.priority == priority], chance)
        left.remove(record)
        ordered.append(address_of(record))
    return ordered


def _draw(records: Sequence[SRV], chance: random.Random) -> SRV:
    """One record of one priority: those of weight 0 first, then the running sum of weights against a random number.

    Records are shuffled before: among equals the order they came in would decide, and with the usual weight of 0 all
    clients would ask the same host. The number 0 is drawn only where a weight of 0 gives it a meaning.
    """
    shuffled = chance.sample(records, len(records))
    by_weight = sorted(shuffled, key=lambda record: record.weight > 0)
    place = chance.randint(min(by_weight[0].weight, 1), sum(record.weight for record in by_weight))
    for record in by_weight:
        place -= record.weight
        if place <= 0:
            return record
    raise AssertionError("the running sum reaches the sum of weights")


def describe_failure(error: dns.exception.DNSException) -> str:
    """Why a lookup gave nothing, in words for people."""
    if isinstance(error, dns.resolver.NXDOMAIN):
        return "the name does not exist"
    if isinstance(error, dns.resolver.NoAnswer):
        wanted = error.response().question[0].rdtype  # type: ignore[no-untyped-call]
        return f"the name has no {dns.rdatatype.to_text(wanted)} record"
    # What each server said, where the resolver tells.
    if said := [_describe_server(*told) for told in error.kwargs.get("errors", ())]:
        return "; ".join(dict.fromkeys(said))
    if isinstance(error, dns.exception.Timeout):
        return "the name servers did not answer in time"
    if isinstance(error, dns.resolver.NoNameservers):
        return "no name server is known"
    return str(error).rstrip(".")


def _describe_server(server: Any, over_tcp: bool, port: int, error: Any, response: Any) -> str:
    """What one name server said: an exception, or a text such as REFUSED. The arguments are dnspython's."""
    said = f"the name server {str(server).removeprefix('Do53:').removesuffix('@53').replace('@', ' port ')}"
    if isinstance(error, dns.exception.Timeout):
        return f"{said} did not answer in time"
    if isinstance(error, OSError) and error.errno:
        return f"{said}: {os.strerror(error.errno)}"
    return f"{said} answered {error}" if isinstance(error, str) else f"{said}: {error}"
