"""A host's records in DNS, put together: settings, key file, probes, and the chore that `serve` does daily."""

import asyncio
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kms_fast.client import aio
from kms_fast.client.exchange import Kind, Outcome
from kms_fast.client.machine import SystemClock
from kms_fast.client.probe import build_probe
from kms_fast.client.trust import Trust
from kms_fast.discovery.address import HostAddress
from kms_fast.discovery.audit import Condition, Finding, Look, Sight, look_at
from kms_fast.discovery.publishing import Change, HostRecord, check_target, publish
from kms_fast.discovery.tsig import TsigKey, parse_key_file
from kms_fast.discovery.zone import Access, find_addresses
from kms_fast.errors import ConfigurationError, KmsFastError, explain_error
from kms_fast.files import SMALL_BYTES, read_bounded
from kms_fast.host.chores import Chore
from kms_fast.host.enrolment import Installation, read_installation
from kms_fast.host.presence import HostProcess
from kms_fast.messages import log
from kms_fast.model.events import DnsFailed, DnsPublished
from kms_fast.model.names import PublishedDomain, check_name, parse_listen_address, parse_published_domain, parse_server
from kms_fast.model.settings import HostSettings
from kms_fast.results import BY_NAME, find_result

REFRESH_S: Final = 86_400.0
RETRY_S: Final = 3_600.0
_RPC_REFUSED: Final = BY_NAME["RPC_REFUSED"].code
# Unsigned results of a host that is not this publisher's; with the others it only cannot sign now.
_NOT_OURS: Final = {BY_NAME[name].code for name in ("REQUEST_UNREADABLE", "PRODUCT_UNKNOWN", "RPC_REFUSED")}


def make_look(installation: Installation, access: Access) -> Look:
    """How to look at another host: by a probe with the setup key of the publisher's first product, at the addresses
    that the name server which was set has of it.
    """
    publisher, catalog = installation.publisher, installation.catalog
    sku = min(catalog.skus, key=lambda sku: sku.reference)
    trust = Trust(publisher, sku, sku.setup_key(publisher.publisher_id))

    async def look(host: HostAddress) -> Sight:
        sight = Sight(Condition.STALE, "its name has no address")
        for address in await find_addresses(host.name, access):
            exchange = build_probe(HostAddress(address, host.port), trust, SystemClock())
            await aio.ask(exchange)
            assert exchange.outcome is not None
            sight = judge(exchange.outcome)
            if exchange.outcome.kind is not Kind.UNREACHABLE:
                break
        return sight

    return look


def judge(outcome: Outcome) -> Sight:
    """What the outcome of a probe says of a host."""
    match outcome.kind:
        case Kind.GRANTED | Kind.REFUSED:
            return Sight(Condition.OK, "a host that the publisher certified")
        case Kind.UNREACHABLE:
            return Sight(Condition.STALE, outcome.text)
        case Kind.FOREIGN:
            return Sight(Condition.FOREIGN, outcome.text)
        case Kind.REJECTED if outcome.code == _RPC_REFUSED:
            return Sight(Condition.FOREIGN, outcome.text)
        case Kind.UNSIGNED if outcome.code in _NOT_OURS:
            return Sight(Condition.ROGUE, f"it does not know this publisher's products: {outcome.text}")
        case Kind.UNSIGNED | Kind.BOUND:
            return Sight(Condition.UNPROVEN, outcome.text)
        case Kind.REJECTED:
            return Sight(Condition.ROGUE, find_result(outcome.code or 0).meaning)


def make_access(settings: HostSettings) -> Access:
    """How to reach and change zones by these settings. Raises OSError or `ConfigurationError` for the key file."""
    server = parse_server(settings.dns_server) if settings.dns_server is not None else None
    key = read_tsig_key(Path(settings.dns_key)) if settings.dns_key is not None else None
    return Access(server, key)


def read_tsig_key(path: Path) -> TsigKey:
    """The TSIG key of a file that nobody else may read, nor his group write. Raises OSError or `ConfigurationError`."""
    mode = stat.S_IMODE(path.stat().st_mode)
    # A group may read it: that of the name server, or of whom a service manager hands it to.
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise ConfigurationError(
            f"{path} holds a key and has mode {mode:04o}: others may have read or changed it. Make a new key, "
            "and a file of mode 0600 or 0640 for it.",
            file=str(path),
        )
    return parse_key_file(read_bounded(path, SMALL_BYTES).decode("utf-8", "replace"), str(path))


def list_domains(settings: HostSettings) -> list[str]:
    """The domains to publish in that are set."""
    return [parse_published_domain(text).name for text in settings.dns_domain]


async def list_records(settings: HostSettings, service: str, running: Sequence[HostProcess]) -> list[HostRecord]:
    """This host's record in each domain; in the one of its own name where none is set.

    Its port is the one to publish, else that on which a host that runs listens, else on which one would.

    Raises `KmsFastError` (DNS_TARGET_INVALID) when the machine has no full name, `ConfigurationError` when the port is
    any free one.
    """
    addresses = running[0].addresses if running else settings.listen
    port = settings.dns_port or parse_listen_address(addresses[0])[1]
    if port == 0:
        raise ConfigurationError("The host takes any free port: say which one to publish (--port).")
    target = settings.dns_target
    if target is None:
        target = await asyncio.to_thread(_find_own_name)
    target = target.rstrip(".").lower()
    domains = [parse_published_domain(text) for text in settings.dns_domain] or [
        PublishedDomain(target.partition(".")[2])
    ]
    return [HostRecord(service, domain, target, port, settings.dns_ttl_s) for domain in domains]


async def plan_records(
    settings: HostSettings, service: str, running: Sequence[HostProcess], access: Access
) -> list[HostRecord]:
    """The same to publish, so that the machine's own name must lead clients to it; one that was set is taken as it is.

    Raises as `list_records` and `check_target`.
    """
    records = await list_records(settings, service, running)
    if settings.dns_target is None:
        await check_target(records[0].target, access)
    return records


def _find_own_name() -> str:
    # Asking for the full name may take as long as name servers are silent.
    name = socket.gethostname()
    name = name if "." in name else socket.getfqdn(name)
    try:
        check_name(name)
    except ValueError as error:
        raise KmsFastError(f"This machine's name is not full: {error}.", name="DNS_TARGET_INVALID") from None
    if name.partition(".")[0] == "localhost":
        raise KmsFastError(f"This machine's name is {name}.", name="DNS_TARGET_INVALID")
    return name


def make_chore(folder: Path, process: HostProcess) -> Chore:
    """Publish this host's records and look at the sets they are in; failures again after an hour.

    ``folder`` is the host's; ``process`` this one.
    """
    told: set[Finding] = set()

    async def do(settings: HostSettings) -> float | None:
        if not settings.dns_domain:
            return None
        try:
            installation = await asyncio.to_thread(read_installation, folder)
            access = make_access(settings)
            records = await plan_records(settings, installation.publisher.srv_name, [process], access)
        except (OSError, KmsFastError) as error:
            _log_failure(explain_error(error), list_domains(settings))
            return RETRY_S
        look = make_look(installation, access)
        findings: list[Finding] = []
        failed = False
        for record in records:
            try:
                change = await publish(record, access, look, share=settings.dns_share)
            except KmsFastError as error:
                _log_failure(error, [record.domain.name])
                failed = True
            else:
                _log_change(change)
                findings += change.beside
                findings += await look_at(str(record.name), [record.data], look)
        _tell_new(findings, told)
        return RETRY_S if failed else None

    return Chore("publishing in DNS", REFRESH_S, do)


def _log_failure(error: KmsFastError, domains: Sequence[str]) -> None:
    for domain in domains:
        log("DNS_FAILED", event=DnsFailed(result=error.result.code, domain=domain), error=error)


def _log_change(change: Change) -> None:
    event = DnsPublished(domain=change.record.domain.name)
    log("DNS_PUBLISHED", event=event, record=change.record, server=change.zone.server)


def _tell_new(findings: Sequence[Finding], told: set[Finding]) -> None:
    """Log what is wrong with other hosts of the sets once, and again only when it was well in between."""
    wrong = {finding for finding in findings if finding.sight.condition is not Condition.OK}
    for finding in sorted(wrong - told, key=str):
        log("DNS_RECORD_WRONG", finding=finding, name=finding.name.removesuffix("."))
    told.clear()
    told.update(wrong)
