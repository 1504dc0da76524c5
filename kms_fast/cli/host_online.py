"""``kms-fast host install-key | activate | renew``: a certificate from the publisher's activation service."""

import asyncio
import functools
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kms_fast.cli.given import make_publisher_option, read_keys
from kms_fast.cli.output import Output, following, home_option, json_option
from kms_fast.cli.settings import LoadedSettings, config_option
from kms_fast.clock import wall_clock_ms
from kms_fast.errors import ConfigurationError
from kms_fast.host.enrolment import apply_answer, find_publisher, install_keys, make_request, read_installation
from kms_fast.host.presence import list_running, reload_running
from kms_fast.model.compact import CompactAnswer
from kms_fast.model.policy import format_time

RELOAD_LIMIT_S = 90.0


publisher_option = make_publisher_option("The publisher's publisher.json; not needed once the host has it.")
keys_option = click.option(
    "--key",
    "keys",
    multiple=True,
    callback=read_keys,
    help="Host key, or @FILE that holds it; repeatable; else those installed.",
)


@dataclass(frozen=True, slots=True)
class ServiceChoice:
    """The activation service to ask. ``unkept``: the options of host configure that renewals need to find it too."""

    url: str | None
    ca: Path | None
    unkept: Sequence[str]


def service_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--url`` and ``--ca``, which stand above the settings, to a command that takes ``service``."""

    @click.option("--url", help="Address of the activation service, else the publisher file's.")
    @click.option(
        "--ca",
        type=click.Path(dir_okay=False, path_type=Path),
        help="PEM file of an authority to trust for its TLS certificate, beside the system's.",
    )
    @config_option
    @functools.wraps(function)
    def command(*args: Any, url: str | None, ca: Path | None, loaded: LoadedSettings, **options: Any) -> None:
        settings = loaded.settings
        kept = Path(settings.activation_ca) if settings.activation_ca else None
        unkept = [f"--activation-url {url}"] if url and url != settings.activation_url else []
        unkept += [f"--activation-ca {ca}"] if ca and ca.absolute() != kept else []
        choice = ServiceChoice(url or settings.activation_url, ca or kept, unkept if settings.auto_renew else ())
        function(*args, service=choice, **options)

    return command


@click.command("install-key")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True, callback=read_keys)
@publisher_option
@home_option
@json_option
def install_key(keys: list[str], publisher_data: bytes | None, home: Path, out: Output) -> None:
    """Keep what is derived from each host KEY, or from @FILE that holds it; the keys themselves are kept nowhere.

    They replace at once those that were installed before. Keys given to host activate or host request replace those
    only when the publisher has certified this host with them.

    \b
    Examples:
      kms-fast host install-key --publisher publisher.json HOSTKEY
      kms-fast host install-key @hostkey.txt
    """
    kept = install_keys(home / "host", keys, publisher_data=publisher_data)
    used = [key.last_five for key in kept.keys]
    out.result(
        {"keys": used, "folder": home / "host"},
        f"Installed the host key that ends in {', '.join(used)}.\n"
        f"Next: {following('kms-fast host activate')}, or offline: "
        f"{following('kms-fast host request --out host.request')}",
    )


@click.command
@publisher_option
@keys_option
@service_options
@home_option
@json_option
def activate(publisher_data: bytes | None, keys: list[str], service: ServiceChoice, home: Path, out: Output) -> None:
    """Get a certificate from the publisher's activation service and install it; a host that runs reloads.

    The host key itself never leaves this machine. Proxies are those of HTTPS_PROXY and NO_PROXY.

    \b
    Examples:
      kms-fast host activate --publisher publisher.json --key HOSTKEY
      kms-fast host activate --url https://activation.example --ca authority.pem
    """
    _certify(home, out, service, keys=keys, publisher_data=publisher_data)


@click.command
@service_options
@home_option
@json_option
def renew(service: ServiceChoice, home: Path, out: Output) -> None:
    """Get the next certificate, catalog and publisher file, which costs no activation; a host that runs reloads.

    It does so by itself when its certificate ends in less than 60 days.

    \b
    Examples:
      kms-fast host renew
    """
    _certify(home, out, service)


def _certify(
    home: Path,
    out: Output,
    service: ServiceChoice,
    *,
    keys: Sequence[str] = (),
    publisher_data: bytes | None = None,
) -> None:
    # Commands that need no network need not wait for its modules.
    from kms_fast.cli.online import ActivationClient

    folder, now_ms = home / "host", wall_clock_ms()
    request = make_request(folder, keys, publisher_data=publisher_data, now_ms=now_ms)
    client = ActivationClient(service.url or find_publisher(folder).activation_url, service.ca)
    out.progress(f"asking {client.url}")
    fields, text = install_answer(folder, asyncio.run(client.certify(request)), out)
    pids = [process.pid for process in list_running(folder)]
    if pids:
        reload_running(folder, limit_s=RELOAD_LIMIT_S)
    serve = f"Next: {following('kms-fast serve', 'config')}"
    done = f"Reloaded (process {', '.join(map(str, pids))})." if pids else serve
    out.result({**fields, "reloaded": pids}, f"{text}\n{done}")
    if service.unkept:
        configure = following(f"kms-fast host configure {' '.join(service.unkept)}", "config")
        out.warning(f"Renewals need that too: {configure}")


def install_answer(
    folder: Path, answer: bytes | CompactAnswer, out: Output, catalog_file: bytes | None = None
) -> tuple[dict[str, Any], str]:
    """Check and install a host answer: what it brought, as an object and in words. Warns of families that it takes."""
    former = _read_families(folder)
    applied = apply_answer(folder, answer, catalog_file, now_ms=wall_clock_ms())
    certificate, catalog = applied.certificate, applied.catalog
    names = {family.number: family.name for family in catalog.families}
    families = {names.get(family.number, str(family.number)): family.generation for family in certificate.families}
    until = format_time(certificate.not_after_ms)
    listed = ", ".join(f"{name} up to generation {generation}" for name, generation in families.items())
    covered = {family.number for family in certificate.families}
    lost = [name for number, name in former.items() if number not in covered]
    if lost:
        out.warning(
            f"This host no longer activates {', '.join(lost)}: the host key that was used does not cover that. To "
            f"have all, give every key at once: {following('kms-fast host activate --key KEY --key KEY')}"
        )
    fields = {
        "host_id": uuid.UUID(bytes=certificate.host_id),
        "serial": certificate.serial,
        "not_after": until,
        "families": families,
        "families_lost": lost,
        "products": len(catalog.skus),
        "catalog": catalog.number,
        "publisher_file": applied.publisher.number,
    }
    text = (
        f"This host may activate {applied.publisher.name}'s products until {until}: {listed}.\n"
        f"Certificate {certificate.serial}, catalog {catalog.number}, products: {len(catalog.skus)}."
    )
    return fields, text


def _read_families(folder: Path) -> dict[int, str]:
    """The families that the host's certificate covers, with their names; none without one that can be used."""
    try:
        installed = read_installation(folder)
    except ConfigurationError:
        return {}
    covered = {family.number for family in installed.certificate.families}
    return {family.number: family.name for family in installed.catalog.families if family.number in covered}
