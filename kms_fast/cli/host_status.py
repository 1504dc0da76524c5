"""``kms-fast host status``: what this host is certified for, what counts, and what it has answered."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from kms_fast.cli.output import Output, following, home_option, json_option, list_fields
from kms_fast.cli.settings import LoadedSettings, config_option
from kms_fast.cli.stores import has_counts, has_inventory, using_counts, using_inventory
from kms_fast.clock import wall_clock_ms
from kms_fast.host.enrolment import Installation, read_installation
from kms_fast.host.host_keys import read_keys
from kms_fast.host.presence import HostProcess, list_running
from kms_fast.model.policy import CERTIFICATE_WARNING_DAYS, LicenceState, days_until, format_time
from kms_fast.model.settings import HostSettings, host_options
from kms_fast.results import find_result
from kms_fast.store import Total


@click.command
@click.option("--verbose", is_flag=True, help="Also what it has answered so far, and how it runs.")
@home_option
@config_option
@json_option
def status(verbose: bool, home: Path, loaded: LoadedSettings, out: Output) -> None:
    """Show what this host is certified for, until when, and how many machines count.

    Exit code 1 while the host has no valid certificate.

    \b
    Examples:
      kms-fast host status
      kms-fast host status --verbose --json
    """
    now_ms = wall_clock_ms()
    installation = read_installation(home / "host")
    installation.check_dates(now_ms)
    days_left = days_until(installation.certificate.not_after_ms, now_ms)
    if days_left < CERTIFICATE_WARNING_DAYS:
        out.warning(
            f"The certificate ends in {days_left} days; renew it: {following('kms-fast host renew')}, or by files."
        )
    running = list_running(home / "host")
    failed = next((process.renewal_failed for process in running if process.renewal_failed), None)
    if failed is not None:
        out.warning(f"It was not renewed at {format_time(failed['time_ms'])}: {failed['message']} {failed['cure']}")
    described = {
        **_describe_certificate(installation, home / "host", days_left),
        "renewal_failed": failed,
        "families": asyncio.run(_describe_families(installation, loaded.settings, home, now_ms)),
    }
    if verbose:
        described |= _describe_service(loaded.settings, running)
        described |= {"requests": asyncio.run(_describe_requests(installation, loaded.settings, home))}
    # Why it was not renewed is among the warnings, in words.
    shown = {name: value for name, value in described.items() if name != "renewal_failed"}
    out.result(described, "\n".join(list_fields(shown)))


def _describe_certificate(installation: Installation, folder: Path, days_left: int) -> dict[str, Any]:
    certificate, stored = installation.certificate, read_keys(folder)
    return {
        "publisher": installation.publisher.name,
        "host_id": uuid.UUID(bytes=certificate.host_id),
        "licence_state": "licensed",
        "serial": certificate.serial,
        "valid_until": format_time(certificate.not_after_ms),
        "days_left": days_left,
        "host_keys": [f"…{key.last_five}" for key in stored.keys] if stored else [],
        "key_channel": "volume host key",
        "products": len(installation.catalog.skus),
        "catalog": installation.catalog.number,
        "publisher_file": installation.publisher.number,
    }


def _describe_service(settings: HostSettings, running: Sequence[HostProcess]) -> dict[str, Any]:
    return {
        "listen": list(settings.listen),
        "activation_interval": _show_interval("activation_interval", settings.activation_interval_min),
        "renewal_interval": _show_interval("renewal_interval", settings.renewal_interval_min),
        "dns_domain": list(settings.dns_domain),
        "running": [
            {
                "pid": process.pid,
                "version": process.version,
                "since": format_time(process.started_ms),
                "addresses": list(process.addresses),
                "workers": process.workers,
            }
            for process in running
        ],
    }


def _show_interval(name: str, minutes: int | None) -> str:
    return "as the catalog says" if minutes is None else str(msgspec.json.decode(host_options()[name].show(minutes)))


async def _describe_families(
    installation: Installation, settings: HostSettings, home: Path, now_ms: int
) -> dict[str, dict[str, int]]:
    """For each certified family its generation, threshold, cap, and the machines that count now."""
    counted = await _count_machines(installation, settings, home, now_ms)
    families = {}
    for certified in installation.certificate.families:
        family = installation.catalog.family(certified.number)
        if family is not None:
            families[family.name] = {
                "generation": certified.generation,
                "count": counted.get(family.number, 0),
                "threshold": family.threshold,
                "cap": family.cap,
            }
    return families


async def _count_machines(
    installation: Installation, settings: HostSettings, home: Path, now_ms: int
) -> dict[int, int]:
    if not has_counts(settings, home):
        return {}
    retention_ms = settings.retention_s * 1000
    async with using_counts(settings, home, reading=True) as counts:
        return {
            family.number: len(await counts.load(family.number, now_ms, cap=family.cap, retention_ms=retention_ms))
            for family in installation.catalog.families
        }


async def _describe_requests(installation: Installation, settings: HostSettings, home: Path) -> dict[str, Any]:
    if not has_inventory(settings, home):
        return _add_up([])
    async with using_inventory(settings, home, reading=True) as inventory:
        return _add_up(await inventory.totals(installation.certificate.host_id))


def _add_up(totals: Sequence[Total]) -> dict[str, Any]:
    """What a host has answered: all, those refused, and both by result and by the licence state of who asked."""
    by_result: Counter[str] = Counter()
    by_state: Counter[str] = Counter()
    for total in totals:
        by_result[find_result(total.result).name] += total.requests
        by_state[_name_state(total.state)] += total.requests
    failed = sum(total.requests for total in totals if total.result)
    answered = sum(by_state.values())
    return {"all": answered, "failed": failed, "results": dict(by_result), "licence_states": dict(by_state)}


def _name_state(state: int) -> str:
    known = {int(one): one.name.lower() for one in LicenceState}
    return known.get(state, str(state))
