"""Which hosts there are to look at: those that were named, set, or are found in DNS."""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

import dns.resolver

from kms_fast.cli.dns_records import list_domains, plan_records
from kms_fast.cli.doctor.client import ClientContext
from kms_fast.cli.doctor.host import HostContext
from kms_fast.cli.doctor.ladder import Finding, Verdict, describe_error, ok, warn
from kms_fast.client.trust import Trust
from kms_fast.discovery.address import HostAddress, parse_address
from kms_fast.discovery.srv import Service, find_hosts
from kms_fast.discovery.zone import Access
from kms_fast.errors import KmsFastError, NoHost


@dataclass(frozen=True, slots=True)
class Lookup:
    """What was found of hosts, the hosts to look at, and of a client the products that ask them."""

    finding: Finding
    hosts: Sequence[HostAddress] = ()
    trusts: Sequence[Trust] = ()

    @classmethod
    def of(cls, finding: Finding, hosts: Sequence[HostAddress] = ()) -> "Lookup":
        """Under the name of its check."""
        return cls(replace(finding, about="hosts", check="lookup"), hosts)

    def of_products(self, trusts: Sequence[Trust]) -> "Lookup":
        """The same, for these products; they are named."""
        names = ", ".join(trust.sku.name for trust in trusts)
        return Lookup(replace(self.finding, what=f"{names}: {self.finding.what}"), self.hosts, trusts)


def find_named(where: str, service: str, resolver: dns.resolver.Resolver | None = None) -> Lookup:
    """A host by its address or with a port; else those that the records of a domain name; else a host by its name.

    Raises `ConfigurationError` for what is neither.
    """
    host = parse_address(where)
    if ":" in where or _is_literal(host.name):
        return Lookup.of(ok(f"{host} was named."), [host])
    try:
        return _list_records(find_hosts(Service(service, where), resolver), service)
    except NoHost as error:
        if not _resolves(host.name):
            return Lookup.of(describe_error(error))
        said = f"{service}.{where} has no SRV record; {where} is looked at as a host."
        return Lookup.of(ok(said, names=error.details["names"]), [host])


def find_set_hosts(client: ClientContext, service: str, resolver: dns.resolver.Resolver | None = None) -> list[Lookup]:
    """The hosts that each product of a client would ask: the one that was set, else the one that answered last and
    those in DNS. Products that ask alike are one lookup.
    """
    assert client.state is not None
    alike: dict[tuple[str | None, ...], list[Trust]] = {}
    for trust in client.trusts:
        product = client.state.products[trust.sku.id]
        alike.setdefault((product.host, None, None) if product.host else product.route, []).append(trust)
    lookups = []
    for (host, domain, cached), trusts in alike.items():
        if host is not None:
            said = f"Set by client set-host, so nothing is looked up: {host}."
            lookup = Lookup.of(ok(said), [parse_address(host)])
        else:
            lookup = _find_in_dns(Service(service, domain), cached, resolver)
        lookups.append(lookup.of_products(trusts))
    return lookups


def _find_in_dns(service: Service, cached: str | None, resolver: dns.resolver.Resolver | None) -> Lookup:
    found = _find(service, resolver)
    if cached is None:
        return found
    said = f"The host that answered last is asked first: {cached}. {found.finding.what}"
    verdict = found.finding.verdict if found.hosts else Verdict.WARNING
    hosts = dict.fromkeys([parse_address(cached), *found.hosts])
    return Lookup.of(replace(found.finding, verdict=verdict, what=said), list(hosts))


def find_host_records(host: HostContext, service: str, resolver: dns.resolver.Resolver | None = None) -> list[Lookup]:
    """The records that this host's clients find, in each domain that it publishes in, else in this machine's own; and
    whether this host is among them. If not, clients have to be told where it is.
    """
    settings = host.settings
    try:
        records = asyncio.run(plan_records(settings, service, host.running, Access()))
    except KmsFastError as error:
        # Without a name and a port to publish nobody can say whether this host is among them.
        domains: Sequence[str | None] = list_domains(settings) or [None]
        found = [_find(Service(service, domain), resolver) for domain in domains]
        return [_warn_of(lookup, error.message, error.result.cure) for lookup in found]
    lookups = []
    for record in records:
        lookup = _find(Service(service, record.domain.name if settings.dns_domain else None), resolver)
        own = HostAddress(record.target, record.port)
        if own in [HostAddress(other.name.lower(), other.port) for other in lookup.hosts]:
            lookups.append(lookup)
        else:
            cure = f"Make the record: {record} Or let the host do so: kms-fast host publish-dns."
            lookups.append(_warn_of(lookup, f"None names this host, {own}.", cure, record=str(record)))
    return lookups


def _find(service: Service, resolver: dns.resolver.Resolver | None) -> Lookup:
    try:
        return _list_records(find_hosts(service, resolver), service.name)
    except NoHost as error:
        return Lookup.of(describe_error(error))


def _warn_of(found: Lookup, what: str, cure: str, **details: str) -> Lookup:
    """What was found, as a warning, with what is wrong with it."""
    cure = f"{cure} Without a record, tell each client: kms-fast client set-host HOST."
    finding = warn(f"{found.finding.what} {what}", cure, **details, **found.finding.details)
    return Lookup.of(finding, found.hosts)


def _list_records(hosts: Sequence[HostAddress], service: str) -> Lookup:
    listed = ", ".join(map(str, hosts))
    return Lookup.of(ok(f"SRV records of {service} name {listed}.", hosts=list(map(str, hosts))), hosts)


def _is_literal(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except (OSError, UnicodeError):
        return False
    return True
