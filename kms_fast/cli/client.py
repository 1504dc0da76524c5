"""``kms-fast client``: setup key, host, activation and licence state of this machine."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kms_fast.cli.address import check_address
from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.client import Client, LicenceState, Status
from kms_fast.model.policy import DAY_MIN, EXPIRY_WARNING_DAYS, format_time

_STATE_TEXTS = {
    LicenceState.UNLICENSED: "unlicensed",
    LicenceState.LICENSED: "licensed",
    LicenceState.INITIAL_GRACE: "initial grace",
    LicenceState.OUT_OF_TOLERANCE_GRACE: "out-of-tolerance grace",
    LicenceState.NOTIFICATION: "notification",
}


def sku_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--sku``, needed only where keys of several products are installed."""
    return click.option("--sku", type=click.UUID, help="Which product, when keys of several are installed.")(function)


@click.group
def command() -> None:
    """Install a setup key, activate this machine, show its state.

    \b
    The usual order:
      kms-fast client install-key --publisher publisher.json XXXXX-XXXXX-XXXXX-XXXXX-XXXXX
      kms-fast client set-host kms.example.com      (only where DNS has no record)
      kms-fast client activate
    """


@command.command("install-key")
@click.argument("key")
@click.option(
    "--publisher",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The publisher's publisher.json; needed once, it is kept with the key.",
)
@home_option
@json_option
def install_key(key: str, publisher: Path | None, home: Path, out: Output) -> None:
    """Install the client setup KEY of a product.

    \b
    Example:
      kms-fast client install-key --publisher publisher.json XXXXX-XXXXX-XXXXX-XXXXX-XXXXX
    """
    client = Client(home=home, publisher=publisher.read_bytes() if publisher else None)
    sku = client.install_key(key)
    status = client.status(sku.id)
    out.result(status.to_json(), f"Installed the setup key of {sku.name}. Next: kms-fast client activate")


@command.command("uninstall-key")
@sku_option
@home_option
@json_option
def uninstall_key(sku: uuid.UUID | None, home: Path, out: Output) -> None:
    """Remove a product's setup key and activation."""
    removed = Client(home=home).uninstall_key(sku)
    out.result({"product": removed.name, "sku": str(removed.id)}, f"Removed the key and activation of {removed.name}.")


@command.command("set-host")
@click.argument("host", callback=check_address)
@sku_option
@home_option
@json_option
def set_host(host: str, sku: uuid.UUID | None, home: Path, out: Output) -> None:
    """Ask only HOST: a name, an IPv4 address or an IPv6 address in brackets; port 1688 unless given.

    \b
    Examples:
      kms-fast client set-host kms.example.com
      kms-fast client set-host [2001:db8::7]:1688
    """
    address = Client(home=home).set_host(host, sku)
    out.result({"host": str(address)}, f"Hosts are no longer looked up; {address} is asked.")


@command.command("clear-host")
@sku_option
@home_option
@json_option
def clear_host(sku: uuid.UUID | None, home: Path, out: Output) -> None:
    """Find hosts by DNS again, and forget the one that answered last."""
    Client(home=home).clear_host(sku)
    out.result({"host": None}, "Hosts are looked up in DNS.")


@command.command
@sku_option
@home_option
@json_option
def activate(sku: uuid.UUID | None, home: Path, out: Output) -> None:
    """Ask the hosts now. Exit code 1 and the result's code when none grants.

    \b
    Examples:
      kms-fast client activate
      kms-fast client activate --json
    """
    client = Client(home=home)
    out.progress("asking the activation hosts")
    lease = client.activate(sku)
    status = client.status(lease.leaf.sku)
    text = f"{status.sku.name} is activated until {format_time(lease.expires_ms)} by {status.cached_host}."
    out.result(status.to_json(), text)


@command.command("status")
@sku_option
@home_option
@json_option
def show_status(sku: uuid.UUID | None, home: Path, out: Output) -> None:
    """Show the licence state of every product whose key is installed; verifies the stored activation anew."""
    statuses = _read_statuses(home, sku)
    text = "\n\n".join(_describe(status) for status in statuses)
    out.result({"products": [status.to_json() for status in statuses]}, text)


@command.command
@sku_option
@home_option
@json_option
def expiry(sku: uuid.UUID | None, home: Path, out: Output) -> None:
    """Show when the present licence state ends, one line for each product."""
    statuses = _read_statuses(home, sku)
    for status in statuses:
        if status.state is LicenceState.LICENSED and status.minutes_left <= EXPIRY_WARNING_DAYS[0] * DAY_MIN:
            out.warning(f"{status.sku.name} has not been renewed and expires in {_span(status.minutes_left)}.")
    products = [
        {"product": status.sku.name, "state": int(status.state), "minutes_left": status.minutes_left}
        for status in statuses
    ]
    lines = [f"{status.sku.name}: {_state_text(status)}" for status in statuses]
    out.result({"products": products}, "\n".join(lines))


@command.command
@home_option
@json_option
def rearm(home: Path, out: Output) -> None:
    """Make this a new machine: a new CMID, no activation, the grace anew. At most five times; for cloned images."""
    left = Client(home=home).rearm()
    out.result({"rearms_left": left}, f"Rearmed; {left} more times are left. Next: kms-fast client activate")


def _read_statuses(home: Path, sku: uuid.UUID | None) -> list[Status]:
    client = Client(home=home)
    return [client.status(id_) for id_ in ([sku] if sku else [installed.id for installed in client.skus()])]


def _describe(status: Status) -> str:
    fields: dict[str, Any] = {
        "product": f"{status.sku.name} ({status.sku.id})",
        "setup key": f"…{status.key_last_five}",
        "state": _state_text(status),
        "host": status.host or "looked up in DNS",
        "last host": status.cached_host,
        "machine (CMID)": status.cmid,
        "next attempt": format_time(status.next_attempt_ms) if status.next_attempt_ms else "now",
    }
    if (reason := status.licence.reason) is not None:
        fields["because"] = f"{reason.message} {reason.result.cure} ({reason.result.hex})"
    if (lease := status.lease) is not None:
        fields["activated"] = f"{format_time(lease.received_ms)}, for {_span(lease.leaf.validity_min)}"
        fields["count"] = f"{lease.leaf.count} machines, {lease.leaf.threshold} needed"
        fields["proof"] = f"host {uuid.UUID(bytes=lease.header.host_id)}, batch {lease.to_json()['batch']}"
    if (failure := status.failure) is not None:
        fields["last failure"] = f"{format_time(failure.time_ms)}: {failure.message}"
    return "\n".join(f"{name:16}{value}" for name, value in fields.items() if value is not None)


def _state_text(status: Status) -> str:
    name = _STATE_TEXTS[status.state]
    if status.state is LicenceState.LICENSED and status.lease is not None:
        name += f" until {format_time(status.lease.expires_ms)}"
    return f"{name}, {_span(status.minutes_left)} left" if status.minutes_left else name


def _span(minutes: int) -> str:
    """Days, hours and minutes as people say them; the two largest that count."""
    days, rest = divmod(minutes, DAY_MIN)
    hours, minutes = divmod(rest, 60)
    parts = [f"{days} d" if days else "", f"{hours} h" if hours else "", f"{minutes} min" if minutes else ""]
    return " ".join([part for part in parts if part][:2]) or "0 min"
