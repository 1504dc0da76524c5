"""Which hosts there are to look at: those that were named, set, or are found in DNS."""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

import dns.resolver

from kms_fast.cli.doctor.client import ClientContext
from kms_fast.cli.doctor.host import HostContext
from kms_fast.cli.doctor.ladder import Finding, describe_error, ok, warn
from kms_fast.discovery.address import HostAddress, parse_address
from kms_fast.discovery.srv import Service, find_hosts
from kms_fast.errors import NoHost
from kms_fast.model.names import parse_domain
from kms_fast.model.settings import DEFAULT_PORT


@dataclass(frozen=True, slots=True)
class Lookup:
    """What was found of hosts, and the hosts to look at."""

    finding: Finding
    hosts: Sequence[HostAddress] = ()

    @classmethod
    def of(cls, finding: Finding, hosts: Sequence[HostAddress] = ()) -> "Lookup":
        """Under the name of its check."""
        return cls(replace(finding, about="hosts", check="lookup"), hosts)


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


def find_set_hosts(client: ClientContext, service: str, resolver: dns.resolver.Resolver | None = None) -> Lookup:
    """The hosts that a client would ask: the one that was set, else those in DNS, else the one that answered last."""
    set_hosts = list(dict.fromkeys(status.host for status in client.statuses if status.host is not None))
    if set_hosts:
        hosts = [parse_address(host) for host in set_hosts]
        return Lookup.of(ok(f"Set by client set-host, so nothing is looked up: {', '.join(set_hosts)}."), hosts)
    domain = next((status.domain for status in client.statuses if status.domain is not None), None)
    try:
        return _list_records(find_hosts(Service(service, domain), resolver), service)
    except NoHost as error:
        cached = list(dict.fromkeys(status.cached_host for status in client.statuses if status.cached_host))
        if not cached:
            return Lookup.of(describe_error(error))
        said = f"{error.message} The host that answered last is still known: {', '.join(cached)}."
        return Lookup.of(warn(said, error.result.cure, **error.details), [parse_address(host) for host in cached])


def find_host_records(host: HostContext, service: str, resolver: dns.resolver.Resolver | None = None) -> Lookup:
    """The records that this host's clients find: in the first domain that it publishes in, else in this machine's own.

    Without any, clients have to be told where it is.
    """
    domain = next((parse_domain(text).name for text in host.settings.dns_domain), None)
    try:
        return _list_records(find_hosts(Service(service, domain), resolver), service)
    except NoHost as error:
        port = host.addresses[0][1] if host.addresses else DEFAULT_PORT
        owner = next(iter(error.details["names"]), f"{service}.DOMAIN.")
        record = f"{owner} 3600 IN SRV 0 0 {port} {socket.getfqdn()}."
        return Lookup.of(
            warn(
                error.message,
                f"Make the record: {record} Or tell each client: kms-fast client set-host HOST.",
                record=record,
                **error.details,
            )
        )


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
