"""The zone that a record set lies in: found by its SOA record, read and changed at its primary server (RFC 2136).

Every failure is a `KmsFastError` in words of its own; its details have the zone and the server.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.resolver
import dns.tsig
import dns.update

from kms_fast.discovery.srv import LOOKUP_S, describe_failure
from kms_fast.discovery.tsig import TsigKey
from kms_fast.errors import KmsFastError
from kms_fast.model.names import DNS_PORT, format_address

ANSWER_S: Final = 5.0

# RFC 2136 section 2.2: what each code says of an update.
_RCODES: Final = {
    dns.rcode.REFUSED: ("DNS_UPDATE_REFUSED", "refuses the change"),
    dns.rcode.NOTAUTH: ("DNS_UPDATE_REFUSED", "is not the zone's primary, or does not allow the change"),
    dns.rcode.NOTZONE: ("DNS_ZONE_NOT_FOUND", "says that the name is not in the zone"),
    dns.rcode.NOTIMP: ("DNS_SERVER_FAILED", "does not know dynamic updates"),
    dns.rcode.FORMERR: ("DNS_SERVER_FAILED", "could not read the update"),
    dns.rcode.SERVFAIL: ("DNS_SERVER_FAILED", "failed at the update"),
    dns.rcode.YXDOMAIN: ("DNS_SET_CHANGED", "has a name there that was not there before"),
    dns.rcode.NXDOMAIN: ("DNS_SET_CHANGED", "has no such name any more"),
    dns.rcode.YXRRSET: ("DNS_SET_CHANGED", "has a record set there that was not there before"),
    dns.rcode.NXRRSET: ("DNS_SET_CHANGED", "has another record set by now"),
}
# RFC 8945 section 5.2: what the peer says of a signature.
_PEER_ERRORS: Final = {
    # Knot also says so of a key that it knows and that may not change this name.
    dns.tsig.PeerBadKey: ("DNS_KEY_REFUSED", "does not know the key {key}, or does not let it change this name"),
    dns.tsig.PeerBadSignature: ("DNS_KEY_REFUSED", "has another secret or algorithm for the key {key}"),
    dns.tsig.PeerBadTruncation: ("DNS_KEY_REFUSED", "does not accept signatures of this length by the key {key}"),
    dns.tsig.PeerBadTime: ("DNS_CLOCKS_DIFFER", "has a clock that differs too much from this machine's"),
}


def make_resolver() -> dns.asyncresolver.Resolver:
    """This machine's resolver; one that knows no name server where none is configured."""
    try:
        return dns.asyncresolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        return dns.asyncresolver.Resolver(configure=False)


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach and change a zone. ``server``: host and port; None for the primary that the SOA record names."""

    server: tuple[str, int] | None = None
    key: TsigKey | None = None
    resolver: dns.asyncresolver.Resolver = field(default_factory=make_resolver)


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone and its primary server: ``server`` as people write it, ``addresses`` and ``port`` to talk to."""

    apex: dns.name.Name
    server: str
    addresses: tuple[str, ...]
    port: int
    key: TsigKey | None

    async def read_set(self, name: dns.name.Name) -> dns.rdataset.Rdataset | None:
        """The SRV records of a name as the primary has them; None when there are none. Raises `KmsFastError`."""
        # Without recursion: an answer from a cache would be no base for a change. Without a signature: name servers
        # have rights for queries with keys of their own.
        answer = await self._ask(dns.message.make_query(name, dns.rdatatype.SRV, flags=0))
        if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            said = dns.rcode.to_text(answer.rcode())
            self._refuse("DNS_ZONE_NOT_FOUND", f"answers a question for {name} by {said}", rcode=said)
        if not answer.flags & dns.flags.AA:
            self._refuse("DNS_ZONE_NOT_FOUND", f"is not responsible for {self.apex}")
        return answer.get_rrset(answer.answer, name, dns.rdataclass.IN, dns.rdatatype.SRV)

    def begin_update(self) -> dns.update.UpdateMessage:
        """A change of this zone, to fill and to `send`."""
        return dns.update.UpdateMessage(self.apex, keyring=self.key.to_dns() if self.key else None)

    async def send(self, update: dns.update.UpdateMessage) -> None:
        """Make a change, whole or not at all. Raises `KmsFastError`: DNS_SET_CHANGED when a prerequisite failed."""
        answer = await self._ask(update)
        rcode = answer.rcode()
        if rcode != dns.rcode.NOERROR:
            said = dns.rcode.to_text(rcode)
            name, words = _RCODES.get(rcode, ("DNS_SERVER_FAILED", "did not take the update"))
            self._refuse(name, f"{words} ({said})", rcode=said)
        if self.key is not None and not answer.had_tsig:
            self._refuse("DNS_KEY_REFUSED", "answered without a signature")

    async def _ask(self, message: dns.message.Message) -> dns.message.Message:
        """The answer of the first address that can be reached; one that is not signed as it should be says no."""
        for number, address in enumerate(self.addresses, 1):
            try:
                data = await _exchange(message.to_wire(), address, self.port)
                break
            except TimeoutError:
                why = f"did not answer within {ANSWER_S:.0f} s"
            except EOFError:
                why = "closed the connection without an answer"
            except OSError as error:
                why = f"cannot be reached: {os.strerror(error.errno) if error.errno else error}"
            if number == len(self.addresses):
                self._refuse("DNS_SERVER_UNREACHABLE", why)
        try:
            answer = dns.message.from_wire(data, keyring=message.keyring, request_mac=message.mac)
        except dns.tsig.PeerError as error:
            name, words = _PEER_ERRORS.get(type(error), ("DNS_KEY_REFUSED", "does not accept the key {key}"))
            self._refuse(name, words.format(key=self.key.name if self.key else ""), tsig=type(error).__name__[4:])
        except (dns.tsig.BadSignature, dns.tsig.BadTime, dns.message.UnknownTSIGKey):
            self._refuse("DNS_KEY_REFUSED", "answered with a signature that is not the key's")
        except dns.exception.DNSException:
            answer = self._read_unsigned(data)
        if not message.is_response(answer):
            self._refuse("DNS_SERVER_FAILED", "sent an answer to another question")
        return answer

    def _read_unsigned(self, data: bytes) -> dns.message.Message:
        """Servers that know no signatures, or no updates, say so without one."""
        try:
            return dns.message.from_wire(data, keyring=False)
        except dns.exception.DNSException:
            self._refuse("DNS_SERVER_FAILED", "sent what is no answer of a name server")

    def _refuse(self, name: str, words: str, **details: Any) -> NoReturn:
        apex = self.apex.to_text(omit_final_dot=True)
        raise KmsFastError(
            f"The name server {self.server} {words}.", name=name, zone=apex, server=self.server, **details
        )


async def _exchange(message: bytes, address: str, port: int) -> bytes:
    """One message over TCP (RFC 1035 section 4.2.2), and the answer. Raises OSError, TimeoutError, EOFError."""
    async with asyncio.timeout(ANSWER_S):
        reader, writer = await asyncio.open_connection(address, port)
        try:
            writer.write(len(message).to_bytes(2) + message)
            return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        finally:
            writer.close()


async def choose_resolver(access: Access) -> dns.asyncresolver.Resolver:
    """One that asks the server that was set, else this machine's. Raises `KmsFastError` (DNS_SERVER_UNREACHABLE)."""
    if access.server is None:
        return access.resolver
    host, port = access.server
    return _make_resolver_at(await _resolve(host, lambda: _ask_system(host)), port)


async def find_addresses(host: str, access: Access) -> list[str]:
    """Where a host is as the server that was set has it, which may be nowhere. The name itself, for the system to
    resolve, where none was set or that server is silent or not responsible. Raises as `choose_resolver`.
    """
    if access.server is None or dns.inet.is_address(host):
        return [host]
    try:
        return await _look_up(host, await choose_resolver(access))
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []
    except dns.exception.DNSException:
        return [host]


async def find_zone(name: dns.name.Name, access: Access) -> Zone:
    """The zone that a name belongs to, and its primary. Raises `KmsFastError`: DNS_ZONE_NOT_FOUND, DNS_SERVER_*."""
    if access.server is None:
        apex = await _find_apex(name, access.resolver)
        if len(apex) <= 2:  # the root or a top-level domain: the domain does not exist
            raise _no_zone(name, f"the nearest zone is {apex}")
        host, port = await _find_primary(apex, access.resolver), DNS_PORT
        addresses = await _resolve(host, lambda: _look_up(host, access.resolver))
    else:
        host, port = access.server
        addresses = await _resolve(host, lambda: _ask_system(host))
        apex = await _find_apex(name, _make_resolver_at(addresses, port), over_tcp=True)
    return Zone(apex, format_address(host, port), addresses, port, access.key)


def _make_resolver_at(addresses: Sequence[str], port: int) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = list(addresses), port
    return resolver


async def _find_apex(
    name: dns.name.Name, resolver: dns.asyncresolver.Resolver, *, over_tcp: bool = False
) -> dns.name.Name:
    try:
        return await dns.asyncresolver.zone_for_name(name, tcp=over_tcp, resolver=resolver, lifetime=LOOKUP_S)
    except dns.exception.DNSException as error:
        said = [told for *_, told, _ in error.kwargs.get("errors", ())]
        silent = isinstance(error, dns.exception.Timeout) or (said and all(isinstance(one, OSError) for one in said))
        result = "DNS_SERVER_UNREACHABLE" if silent else "DNS_ZONE_NOT_FOUND"
        raise _no_zone(name, describe_failure(error), result) from None


async def _find_primary(apex: dns.name.Name, resolver: dns.asyncresolver.Resolver) -> str:
    try:
        (record, *_) = await resolver.resolve(apex, dns.rdatatype.SOA, lifetime=LOOKUP_S)
    except dns.exception.DNSException as error:
        raise _no_zone(apex, describe_failure(error)) from None
    return str(record.mname.to_text(omit_final_dot=True))


async def _resolve(host: str, look_up: Callable[[], Awaitable[list[str]]]) -> tuple[str, ...]:
    """Addresses of a name server; a literal address is its own."""
    if dns.inet.is_address(host):
        return (host,)
    try:
        return tuple(dict.fromkeys(await look_up()))
    except dns.exception.DNSException as error:
        why = describe_failure(error)
    except OSError as error:
        why = error.strerror or str(error)
    raise KmsFastError(f"The name server {host} has no address: {why}.", name="DNS_SERVER_UNREACHABLE", server=host)


async def _look_up(host: str, resolver: dns.asyncresolver.Resolver) -> list[str]:
    return list((await resolver.resolve_name(host, lifetime=LOOKUP_S)).addresses())


async def _ask_system(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _no_zone(name: dns.name.Name, why: str, result: str = "DNS_ZONE_NOT_FOUND") -> KmsFastError:
    return KmsFastError(f"The zone of {name} was not found: {why}.", name=result)
