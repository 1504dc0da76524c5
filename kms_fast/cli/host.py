"""``kms-fast host``: activating this host at its publisher, and its status."""

import asyncio
import time
import uuid
from pathlib import Path

import click

from kms_fast.cli.backup import backup, restore
from kms_fast.cli.clock_reset import clock_reset
from kms_fast.cli.configure import configure
from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.cli.settings import LoadedSettings, config_option
from kms_fast.cli.stores import open_counts
from kms_fast.files import PUBLIC, read_bounded, write_atomically
from kms_fast.host.enrolment import Installation, apply_answer, make_request, read_installation, read_keys
from kms_fast.host.presence import reload_running
from kms_fast.model.certificate import DAY_MS
from kms_fast.model.policy import CERTIFICATE_WARNING_DAYS, format_time
from kms_fast.model.settings import HostSettings

_LIMIT_BYTES = 64 << 20
RELOAD_LIMIT_S = 90.0


@click.group
def command() -> None:
    """Install a host key, ask for a certificate, apply it; back the host up.

    \b
    Examples:
      kms-fast host request --publisher publisher.json --key HOSTKEY --out host.request
      kms-fast host apply host.answer
      kms-fast host status
    """


command.add_command(backup)
command.add_command(restore)
command.add_command(clock_reset)
command.add_command(configure)


@command.command
@click.option(
    "--publisher",
    "publisher_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The publisher's publisher.json; not needed for a renewal.",
)
@click.option(
    "--key", "keys", multiple=True, help="Host key, or @FILE that holds it; repeatable; not needed for a renewal."
)
@click.option(
    "--out", "path", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The request file to write."
)
@home_option
@json_option
def request(publisher_path: Path | None, keys: tuple[str, ...], path: Path, home: Path, out: Output) -> None:
    """Write a request for a host certificate; the first one makes this host's private key.

    The file carries no secret: the host key itself never leaves this machine.

    \b
    Examples:
      kms-fast host request --publisher publisher.json --key HOSTKEY --out host.request
      kms-fast host request --out renewal.request
    """
    folder = home / "host"
    publisher_data = read_bounded(publisher_path, _LIMIT_BYTES) if publisher_path else None
    typed = [_read_key(key) for key in keys]
    data = make_request(folder, typed, publisher_data=publisher_data, now_ms=_now_ms())
    write_atomically(path, data, mode=PUBLIC)
    stored = read_keys(folder)
    used = [key.last_five for key in stored.keys] if stored else []
    out.result(
        {"file": path, "folder": folder, "keys": used},
        f"Wrote {path}, made with the host key that ends in {', '.join(used)}. Send it to the publisher.\n"
        f"Next, at the publisher: kms-fast publisher certify {path.name} --out host.answer",
    )


@command.command
@click.argument("answer", type=click.Path(dir_okay=False, path_type=Path))
@home_option
@json_option
def apply(answer: Path, home: Path, out: Output) -> None:
    """Check the publisher's ANSWER in every respect and install certificate, catalog and publisher file.

    \b
    Examples:
      kms-fast host apply host.answer
    """
    applied = apply_answer(home / "host", read_bounded(answer, _LIMIT_BYTES), now_ms=_now_ms())
    certificate, catalog = applied.certificate, applied.catalog
    names = {family.number: family.name for family in catalog.families}
    families = {names.get(family.number, str(family.number)): family.generation for family in certificate.families}
    until = format_time(certificate.not_after_ms)
    listed = ", ".join(f"{name} up to generation {generation}" for name, generation in families.items())
    out.result(
        {
            "host_id": uuid.UUID(bytes=certificate.host_id),
            "serial": certificate.serial,
            "not_after": until,
            "families": families,
            "products": len(catalog.skus),
            "catalog": catalog.number,
            "publisher_file": applied.publisher.number,
        },
        f"This host may activate {applied.publisher.name}'s products until {until}: {listed}.\n"
        f"Certificate {certificate.serial}, catalog {catalog.number}, products: {len(catalog.skus)}.\n"
        "Next: kms-fast serve, or if it runs: kms-fast host reload.",
    )


@command.command("reload")
@home_option
@json_option
def reload_command(home: Path, out: Output) -> None:
    """Let the running host take up certificate, catalog, keys and settings anew, without dropping a connection.

    It checks them first: when anything is wrong, exit code 1 says what, and the host goes on as before.

    \b
    Examples:
      kms-fast host apply host.answer && kms-fast host reload
    """
    running = reload_running(home / "host", limit_s=RELOAD_LIMIT_S)
    pids = [process.pid for process in running]
    out.result({"pids": pids}, f"Reloaded (process {', '.join(map(str, pids))}).")


@command.command
@home_option
@config_option
@json_option
def status(home: Path, loaded: LoadedSettings, out: Output) -> None:
    """Show what this host is certified for, until when, and how many machines count.

    Exit code 1 while the host has no valid certificate.

    \b
    Examples:
      kms-fast host status
    """
    folder, now_ms = home / "host", _now_ms()
    installation = read_installation(folder)
    certificate = installation.certificate
    installation.check_dates(now_ms)
    days_left = (certificate.not_after_ms - now_ms) // DAY_MS
    if days_left < CERTIFICATE_WARNING_DAYS:
        out.warning(f"The certificate ends in {days_left} days; renew it: kms-fast host request, certify, host apply.")
    stored = read_keys(folder)
    out.result(
        {
            "publisher": installation.publisher.name,
            "host_id": uuid.UUID(bytes=certificate.host_id),
            "serial": certificate.serial,
            "valid_until": format_time(certificate.not_after_ms),
            "days_left": days_left,
            "host_keys": [f"…{key.last_five}" for key in stored.keys] if stored else [],
            "products": len(installation.catalog.skus),
            "catalog": installation.catalog.number,
            "publisher_file": installation.publisher.number,
            "families": asyncio.run(_describe_families(installation, loaded.settings, home)),
        }
    )


async def _describe_families(
    installation: Installation, settings: HostSettings, home: Path
) -> dict[str, dict[str, int]]:
    """For each certified family its generation, threshold, cap, and the machines that count now."""
    counted = await _count_machines(installation, settings, home)
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


async def _count_machines(installation: Installation, settings: HostSettings, home: Path) -> dict[int, int]:
    # Asking must not make the file: it would belong to whoever asked.
    if settings.store is None and not (home / "host" / "counts.db").exists():
        return {}
    now_ms, retention_ms = _now_ms(), settings.retention_s * 1000
    counts = await open_counts(settings, home)
    try:
        return {
            family.number: len(await counts.load(family.number, now_ms, cap=family.cap, retention_ms=retention_ms))
            for family in installation.catalog.families
        }
    finally:
        await counts.close()


def _read_key(key: str) -> str:
    """The key itself; ``@FILE`` keeps it out of the shell's history and the list of processes."""
    return read_bounded(Path(key[1:]), 1 << 16).decode("utf-8", "replace") if key.startswith("@") else key


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
