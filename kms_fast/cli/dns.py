"""``kms-fast host publish-dns``, ``withdraw-dns`` and ``audit-dns``: the host's record in DNS, and those beside it."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import click

from kms_fast.cli.dns_records import list_domains, list_records, make_access, make_look, plan_records
from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.cli.settings import LoadedSettings, settings_options
from kms_fast.discovery.audit import Condition, Finding, audit
from kms_fast.discovery.publishing import Change, HostRecord, publish, withdraw
from kms_fast.discovery.srv import Service, query_names
from kms_fast.discovery.zone import choose_resolver
from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.host.enrolment import Installation, read_installation
from kms_fast.host.presence import list_running
from kms_fast.model.settings import HostSettings


def dns_options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add ``--config`` and flags of these settings of ours, named without their ``dns_``."""
    return functools.partial(settings_options, prefix="dns_", names=[f"dns_{name}" for name in names])


@click.command("publish-dns")
@home_option
@dns_options("domain", "server", "key", "target", "port", "ttl", "share")
@json_option
def publish_dns(home: Path, loaded: LoadedSettings, out: Output) -> None:
    """Publish this host's SRV record in DNS, or make it anew with another priority, weight or time to live.

    Without --domain, in the domains of the setting dns_domain; without that either, in the one of its own name. Records
    of other hosts stay; a set that names a server which is no kms_fast host is left alone unless --share says
    otherwise. A host with dns_domain set does all of this by itself, at start and every 24 hours.

    \b
    Examples:
      kms-fast host publish-dns
      kms-fast host publish-dns --domain example.com --domain lab.example.com:10:5 --key /etc/kms-fast/dns.key
      kms-fast host publish-dns --server 192.0.2.53 --target kms.example.com --ttl 30m
    """
    settings, installation = loaded.settings, read_installation(home / "host")
    access = make_access(settings)
    look = make_look(installation, access)

    async def publish_one(record: HostRecord) -> Change:
        out.progress(f"publishing in {record.domain.name}")
        return await publish(record, access, look, share=settings.dns_share)

    records = plan_records(settings, installation.publisher.srv_name, list_running(home / "host"), access)
    changes = asyncio.run(_change_all(records, publish_one))
    lines = [line for change in changes for line in _describe_published(change)]
    out.result({"domains": [change.to_json() for change in changes]}, "\n".join(lines))


@click.command("withdraw-dns")
@home_option
@dns_options("domain", "server", "key", "target", "port")
@json_option
def withdraw_dns(home: Path, loaded: LoadedSettings, out: Output) -> None:
    """Remove this host's SRV record from DNS; those of other hosts stay.

    Without --domain, from where publish-dns would publish it. With --target and --port, the record of a host that is
    gone. A running host with dns_domain set publishes its
    record again within a day: unset that first.

    \b
    Examples:
      kms-fast host withdraw-dns
      kms-fast host withdraw-dns --domain example.com --target gone.example.com --port 1688
    """
    settings, installation = loaded.settings, read_installation(home / "host")
    access = make_access(settings)

    async def withdraw_one(record: HostRecord) -> Change:
        return await withdraw(record, access)

    running = list_running(home / "host")
    records = list_records(settings, installation.publisher.srv_name, running)
    changes = asyncio.run(_change_all(records, withdraw_one))
    if settings.dns_domain and loaded.sources["dns_domain"] != "--domain" and running:
        out.warning("A host runs in this home and publishes its record again: unset dns_domain.")
    lines = [_describe_withdrawn(change) for change in changes]
    out.result({"domains": [change.to_json() for change in changes]}, "\n".join(lines))


@click.command("audit-dns")
@home_option
@dns_options("domain", "server")
@json_option
def audit_dns(home: Path, loaded: LoadedSettings, out: Output) -> None:
    """Look at every host that the SRV records name: does it answer, and did the publisher certify it.

    Without --domain, in the domains of the setting dns_domain; without that either, where this machine would look hosts
    up. Exit code 1 when a record is stale (nobody there), rogue (a host of somebody else, or a revoked one), foreign
    (no kms_fast host) or unproven (a host that cannot sign now), and when a domain that was named shows no record.

    \b
    Examples:
      kms-fast host audit-dns
      kms-fast host audit-dns --domain example.com --server 192.0.2.53 --json
    """
    settings, installation = loaded.settings, read_installation(home / "host")
    findings, failures = asyncio.run(_audit(settings, installation))
    told = [finding.to_json() for finding in findings]
    wrong = [finding for finding in findings if finding.sight.condition is not Condition.OK]
    if not wrong and not failures:
        out.result({"records": told}, "\n".join(map(str, findings)))
        return
    for finding in findings:
        out.warning(f"{finding}. {finding.cure}".rstrip(" ."))
    missing = "".join(f" No record of {name} was found: {why}." for name, why in failures.items())
    raise KmsFastError(
        f"{len(wrong)} of {len(findings)} records are wrong.{missing}",
        name="DNS_RECORDS_WRONG" if wrong else "NO_SRV_RECORD",
        records=told,
        names=failures,
    )


async def _audit(settings: HostSettings, installation: Installation) -> tuple[list[Finding], dict[str, str]]:
    """What there is, and why there is nothing under which name; of names that nobody chose the latter is no matter."""
    access, service = make_access(settings), installation.publisher.srv_name
    resolver, look = await choose_resolver(access), make_look(installation, access)
    if domains := list_domains(settings):
        chosen = [name for domain in domains for name in query_names(Service(service, domain), resolver)]
        return await audit(chosen, look, resolver)
    names = query_names(Service(service), access.resolver)
    if not names:
        raise ConfigurationError("This machine has no DNS domain and no search list: name one with --domain.")
    findings, _ = await audit(names, look, resolver)
    return findings, {}


async def _change_all(
    records: Awaitable[Sequence[HostRecord]], change: Callable[[HostRecord], Awaitable[Change]]
) -> list[Change]:
    """Make a change in every domain. Raises `KmsFastError` of one that failed; several are told in its details."""
    changes: list[Change] = []
    errors: list[KmsFastError] = []
    for record in await records:
        try:
            changes.append(await change(record))
        except KmsFastError as error:
            errors.append(error)
    if errors:
        raise _join(errors, changes)
    return changes


def _join(errors: Sequence[KmsFastError], changes: Sequence[Change]) -> KmsFastError:
    if len(errors) == 1 and not changes:
        return errors[0]
    done = "".join(f" Done: {change.record.domain.name}." for change in changes)
    return KmsFastError(
        " ".join(error.message for error in errors) + done,
        name=errors[0].result.name,
        failed=[error.to_json() for error in errors],
        done=[change.to_json() for change in changes],
    )


def _describe_published(change: Change) -> list[str]:
    removed = f", in place of {', '.join(change.removed)}" if change.removed else ""
    beside = [f"  beside {finding}" for finding in change.beside]
    return [f"Published at {change.zone.server}: {change.record}{removed}", *beside]


def _describe_withdrawn(change: Change) -> str:
    host = f"{change.record.target}:{change.record.port}"
    if not change.removed:
        return f"{change.record.name} has no record of {host}; nothing was changed."
    return f"Removed from {change.record.name} at {change.zone.server}: {', '.join(change.removed)}"
