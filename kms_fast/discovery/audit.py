"""Whether the records of a service lead clients to hosts of the publisher: each target is looked at.

How a host is looked at is handed in (`Look`): it takes the client's exchange, which nothing here knows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import dns.asyncresolver
import dns.exception
from dns.rdtypes.IN.SRV import SRV

from kms_fast.discovery.address import HostAddress
from kms_fast.discovery.srv import LOOKUP_S, Failures, address_of, list_offered

AT_ONCE: Final = 16


class Condition(Enum):
    """What a record leads to."""

    OK = "ok"  # a host that the publisher certified
    STALE = "stale"  # nothing: the name does not resolve, or nobody answers
    ROGUE = "rogue"  # a host that the publisher did not certify, or no longer
    FOREIGN = "foreign"  # a server that is no kms_fast host
    UNPROVEN = "unproven"  # a kms_fast host that signs nothing now


_REMOVE: Final = "kms-fast host withdraw-dns --domain {domain} --target {name} --port {port}"
CURES: Final = {
    Condition.OK: "",
    Condition.STALE: f"Start that host and open its port; if it is gone, remove its record: {_REMOVE}",
    Condition.ROGUE: f"Find out who runs it. Remove its record unless the publisher certifies it: {_REMOVE}",
    Condition.FOREIGN: "If it belongs there, give the publisher's hosts another service name; "
    f"if not, remove its record: {_REMOVE}",
    Condition.UNPROVEN: "See that host's log; kms-fast host status there says what it lacks.",
}


@dataclass(frozen=True, slots=True)
class Sight:
    """How one host looked, and why so."""

    condition: Condition
    text: str

    def __str__(self) -> str:
        return f"{self.condition.value}, {self.text.rstrip('.')}"


Look = Callable[[HostAddress], Awaitable[Sight]]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one record leads to. ``name``: the record set's; ``host``: the record's target and port."""

    name: str
    host: HostAddress
    sight: Sight

    @property
    def cure(self) -> str:
        """What to do; empty when all is well."""
        # _Service._Proto.Domain. (RFC 2782)
        domain = self.name.split(".", 2)[-1].removesuffix(".")
        return CURES[self.sight.condition].format(domain=domain, name=self.host.name, port=self.host.port)

    def __str__(self) -> str:
        return f"{self.host}: {self.sight}"

    def to_json(self) -> dict[str, Any]:
        """The finding as an object."""
        condition, text = self.sight.condition.value, self.sight.text
        return {"name": self.name, "host": str(self.host), "condition": condition, "text": text, "cure": self.cure}


async def look_at(name: str, records: Iterable[SRV], look: Look) -> list[Finding]:
    """Look at the target of each record of a set, some at once."""
    places = asyncio.Semaphore(AT_ONCE)

    async def find(record: SRV) -> Finding:
        host = address_of(record)
        async with places:
            return Finding(name, host, await look(host))

    return await asyncio.gather(*map(find, list_offered(records)))


async def audit(
    names: Sequence[str], look: Look, resolver: dns.asyncresolver.Resolver
) -> tuple[list[Finding], dict[str, str]]:
    """Look at every record under these names; also gives why there is none under which name.

    Raises `NoHost` (NO_SRV_RECORD, DNS_UNANSWERED) when none was found under any.
    """
    findings: list[Finding] = []
    failures = Failures()
    for name in names:
        try:
            answer = await resolver.resolve(name, "SRV", lifetime=LOOKUP_S, search=False)
        except dns.exception.DNSException as error:
            failures.note(name, error)
        else:
            findings += await look_at(name, answer, look)
    if not findings:
        raise failures.explain("No SRV record to audit was found.")
    return findings, failures.names
