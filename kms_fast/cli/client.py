"""``kms-fast client``: setup key, host, activation and licence state of this machine."""

from collections.abc import Callable
from pathlib import Path

import click

from kms_fast.cli.address import check_address, check_domain, check_optional_address
from kms_fast.cli.client_direct import activate_directly, apply, mak_option, publisher_option, request
from kms_fast.cli.client_service import run_service
from kms_fast.cli.client_status import describe_history, describe_machine, describe_product, describe_state
from kms_fast.cli.logs import logging_options
from kms_fast.cli.output import Output, following, home_option, json_option
from kms_fast.client import Client, Status
from kms_fast.client.history import show_attempt
from kms_fast.errors import KmsFastError
from kms_fast.model.catalog import Sku
from kms_fast.model.policy import format_span, format_time


def sku_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--sku``, needed only where keys of several products are installed."""
    return click.option("--sku", metavar="NAME|ID", help="Which product, when keys of several are installed.")(function)


@click.group
def command() -> None:
    """Install a setup key, activate this machine, show its state.

    \b
    The usual order:
      kms-fast client install-key --publisher publisher.json XXXXX-XXXXX-XXXXX-XXXXX-XXXXX
      kms-fast client set-host kms.example.com      (only where DNS has no record)
      kms-fast client activate
      kms-fast client run                           (renews from now on; best as a service of the system)
    Without any host, once and for ever, with a multiple-activation key of the publisher:
      kms-fast client activate --publisher publisher.json --mak XXXXX-XXXXX-XXXXX-XXXXX-XXXXX
    """


for sub_command in (request, apply):
    command.add_command(sub_command)


@command.command("install-key")
@click.argument("key")
@publisher_option
@home_option
@json_option
def install_key(key: str, publisher_data: bytes | None, home: Path, out: Output) -> None:
    """Install the client setup KEY of a product.

    \b
    Example:
      kms-fast client install-key --publisher publisher.json XXXXX-XXXXX-XXXXX-XXXXX-XXXXX
    """
    client = Client(home=home, publisher=publisher_data)
    sku = client.install_key(key)
    status = client.status(sku.id)
    out.result(status.to_json(), f"Installed the setup key of {sku.name}. Next: {_say_activate(client, sku)}")


@command.command("uninstall-key")
@sku_option
@home_option
@json_option
def uninstall_key(sku: str | None, home: Path, out: Output) -> None:
    """Remove a product's setup key and activation; one with a multiple-activation key needs that key again.

    \b
    Example:
      kms-fast client uninstall-key
    """
    client = Client(home=home)
    names = {installed.id: installed.name for installed in client.skus()}
    removed = client.uninstall_key(client.find_sku(sku))
    name = names.get(removed)
    out.result({"product": name, "sku": str(removed)}, f"Removed the key and activation of {name or removed}.")


@command.command("set-host")
@click.argument("host", callback=check_address)
@sku_option
@home_option
@json_option
def set_host(host: str, sku: str | None, home: Path, out: Output) -> None:
    """Ask only HOST: a name, an IPv4 address or an IPv6 address in brackets; port 1688 unless given.

    \b
    Examples:
      kms-fast client set-host kms.example.com
      kms-fast client set-host [2001:db8::7]:1688
    """
    client = Client(home=home)
    address = client.set_host(host, client.find_sku(sku))
    out.result({"host": str(address)}, f"Hosts are no longer looked up; {address} is asked.")


@command.command("clear-host")
@sku_option
@home_option
@json_option
def clear_host(sku: str | None, home: Path, out: Output) -> None:
    """Find hosts by DNS again, and forget the one that answered last.

    \b
    Example:
      kms-fast client clear-host
    """
    client = Client(home=home)
    client.clear_host(client.find_sku(sku))
    out.result({"host": None}, "Hosts are looked up in DNS.")


@command.command("set-domain")
@click.argument("domain", callback=check_domain)
@sku_option
@home_option
@json_option
def set_domain(domain: str, sku: str | None, home: Path, out: Output) -> None:
    """Look the hosts' record up in DOMAIN, not in the machine's own domains. A host that was set is asked all the same.

    \b
    Example:
      kms-fast client set-domain lab.example.com
    """
    client = Client(home=home)
    kept = client.set_domain(domain, client.find_sku(sku))
    out.result({"domain": kept}, f"Hosts are looked up in {kept}.")


@command.command("clear-domain")
@sku_option
@home_option
@json_option
def clear_domain(sku: str | None, home: Path, out: Output) -> None:
    """Look the hosts' record up in the machine's own DNS domain and search list again.

    \b
    Example:
      kms-fast client clear-domain
    """
    client = Client(home=home)
    client.clear_domain(client.find_sku(sku))
    out.result({"domain": None}, "Hosts are looked up in this machine's DNS domains.")


@command.command("host-cache")
@click.argument("switch", type=click.Choice(["on", "off"]))
@sku_option
@home_option
@json_option
def host_cache(switch: str, sku: str | None, home: Path, out: Output) -> None:
    """Whether the host that granted last is remembered and asked first (on, as at first) or looked up each time (off).

    \b
    Example:
      kms-fast client host-cache off
    """
    client, enabled = Client(home=home), switch == "on"
    client.set_host_cache(enabled, client.find_sku(sku))
    texts = {True: "The host that grants is asked first the next time.", False: "Each attempt looks the hosts up anew."}
    out.result({"host_cache": enabled}, texts[enabled])


@command.command
@publisher_option
@click.option("--key", help="Install this setup key first, as install-key does.")
@click.option("--host", callback=check_optional_address, help="Ask only this host from now on, as set-host does.")
@mak_option
@click.option("--url", help="With --mak: address of the activation service, else the publisher file's.")
@click.option(
    "--ca",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --mak: PEM file of an authority to trust for its TLS certificate, beside the system's.",
)
@sku_option
@home_option
@json_option
def activate(
    publisher_data: bytes | None,
    key: str | None,
    host: str | None,
    mak: str | None,
    url: str | None,
    ca: Path | None,
    sku: str | None,
    home: Path,
    out: Output,
) -> None:
    """Ask the hosts now, or the publisher itself. Exit code 1 and the result's code when none grants.

    \b
    Examples:
      kms-fast client activate
      kms-fast client activate --publisher publisher.json --key XXXXX-XXXXX-XXXXX-XXXXX-XXXXX
      kms-fast client activate --host kms.example.com --json
      kms-fast client activate --publisher publisher.json --mak @mak.txt
    """
    client = Client(home=home, publisher=publisher_data)
    if mak is not None:
        if key is not None or host is not None or sku is not None:
            raise click.UsageError("With --mak no host is asked: leave out --key, --host and --sku.")
        activate_directly(client, mak, url, ca, out)
        return
    if url is not None or ca is not None:
        raise click.UsageError("--url and --ca are the publisher's, and go with --mak.")
    if key is not None:
        installed = client.install_key(key)
        if sku not in (None, installed.name, str(installed.id)):
            raise click.UsageError(f"--key is a key of the product {installed.name}, not of --sku.")
        sku = str(installed.id)
    chosen = client.find_sku(sku)
    if host is not None:
        client.set_host(host, chosen)
    if (status := client.status(chosen)).licence.needs_no_host:
        name = status.sku.name
        out.result(status.to_json(), f"{name} is activated by its publisher, without an end: no host is asked.")
        return
    out.progress("asking the activation hosts")
    lease = client.activate(chosen)
    status = client.status(lease.leaf.sku)
    text = f"{status.sku.name} is activated until {format_time(lease.expires_ms)} by {status.cached_host}."
    out.result(status.to_json(), text)


@command.command("status")
@click.option("--verbose", is_flag=True, help="Every fact, also of this machine, its publisher and the service.")
@click.option("--all", "removed_too", is_flag=True, help="Also products whose key was removed.")
@sku_option
@home_option
@json_option
def show_status(verbose: bool, removed_too: bool, sku: str | None, home: Path, out: Output) -> None:
    """Show the licence state of every product whose key is installed; verifies the stored activation anew.

    \b
    Examples:
      kms-fast client status
      kms-fast client status --all --verbose
    """
    statuses = _read_statuses(home, sku, out, removed_too=removed_too)
    client = Client(home=home)
    machine = client.machine()
    parts = [describe_product(status, verbose=verbose) for status in statuses]
    text = "\n\n".join([describe_machine(machine), *parts] if verbose else parts)
    products = [status.to_json() for status in statuses]
    unlisted = [str(id_) for id_ in client.unlisted()]
    out.result({"machine": machine.to_json(), "products": products, "unlisted": unlisted}, text)


@command.command("history")
@click.option("--sku", metavar="NAME|ID", help="Only this product.")
@home_option
@json_option
def show_history(sku: str | None, home: Path, out: Output) -> None:
    """Show the last attempts of every product: when, which host, what came of it, count and clocks.

    Attempts in a row that failed alike are one line. The newest hundred lines of a product are kept.

    \b
    Examples:
      kms-fast client history
      kms-fast client history --json
    """
    client = Client(home=home)
    if sku is None:
        for error in client.unlisted().values():
            out.warning(error.message)
    histories = client.history(client.find_sku(sku))
    products = [
        {"product": product.name, "sku": str(product.id), "attempts": [show_attempt(attempt) for attempt in attempts]}
        for product, attempts in histories
    ]
    text = "\n\n".join(describe_history(product.name, attempts) for product, attempts in histories)
    out.result({"products": products}, text)


@command.command
@logging_options
@home_option
@json_option
def run(home: Path, out: Output) -> None:
    """Renew every product of this home when it is due, until TERM; logs to stderr.

    It looks at clocks and state every 30 seconds, so a key or host that another command sets is taken up by itself;
    HUP lets it look at once. kms-fast client status shows what it does.

    \b
    Examples:
      kms-fast client run
      kms-fast client run --home /var/lib/product --log-format json
    """
    run_service(home)
    out.result({"event": "stopped"}, "stopped")


@command.command
@sku_option
@home_option
@json_option
def expiry(sku: str | None, home: Path, out: Output) -> None:
    """Show when the present licence state ends, one line for each product.

    \b
    Examples:
      kms-fast client expiry
      kms-fast client expiry --json
    """
    statuses = _read_statuses(home, sku, out)
    for status in statuses:
        if status.warning_days is not None:
            out.warning(f"{status.sku.name} has not been renewed and expires in {format_span(status.minutes_left)}.")
    products = [
        {"product": status.sku.name, "state": int(status.state), "minutes_left": status.minutes_left}
        for status in statuses
    ]
    lines = [f"{status.sku.name}: {describe_state(status)}" for status in statuses]
    out.result({"products": products}, "\n".join(lines))


@command.command
@home_option
@json_option
def rearm(home: Path, out: Output) -> None:
    """Make this a new machine: a new CMID, no activation, the grace anew. At most five times; for cloned images.

    \b
    Example:
      kms-fast client rearm
    """
    client = Client(home=home)
    left = client.rearm()
    skus = client.skus()
    following_command = _say_activate(client, skus[0]) if skus else following("kms-fast client activate --mak KEY")
    out.result({"rearms_left": left}, f"Rearmed; {left} more times are left. Next: {following_command}")


def _say_activate(client: Client, sku: Sku) -> str:
    """The command that activates a product, which is named where there are several."""
    named = f" --sku {sku.id}" if len(client.skus()) > 1 else ""
    return following(f"kms-fast client activate{named}")


def _read_statuses(home: Path, sku: str | None, out: Output, *, removed_too: bool = False) -> list[Status]:
    client = Client(home=home)
    chosen = client.find_sku(sku)
    removed = [status for status in client.removed() if chosen in (None, status.sku.id)] if removed_too else []
    if chosen is not None:
        return removed or [client.status(chosen)]
    statuses = [client.status(installed.id) for installed in client.skus()] + removed
    unlisted = client.unlisted()
    if not statuses:
        hint = ""
        if not removed_too and client.removed():
            hint = f"; removed ones are shown by {following('kms-fast client status --all')}"
        nothing = KmsFastError(f"No client setup key is installed{hint}.", name="NO_KEY_INSTALLED")
        raise next(iter(unlisted.values()), nothing)
    for error in unlisted.values():
        out.warning(error.message)
    return statuses
