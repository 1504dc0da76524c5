"""``kms-fast inventory``: which machines asked, what they said and what they were told."""

import asyncio
import shlex
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import click

from kms_fast.cli.output import Output, list_fields
from kms_fast.cli.store import store_options
from kms_fast.cli.stores import has_inventory, inventory_file, using_inventory
from kms_fast.clock import wall_clock_ms
from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.host.enrolment import read_certificate
from kms_fast.host.forget import forget_machine, forget_recorded
from kms_fast.model.policy import LicenceState, format_time
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.settings import HostSettings
from kms_fast.results import RESULTS
from kms_fast.store import Client, Inventory, Position, Summary

STATES = {state.name.lower().replace("_", "-"): state for state in LicenceState}

_Found = TypeVar("_Found")


@click.group
def command() -> None:
    """Find machines by CMID, name or state, count them, and forget one's name.

    \b
    Examples:
      kms-fast inventory list --name desk- --state notification
      kms-fast inventory show 0b9e7a52-5d1c-4f0e-9d55-3c4f6c1f7a10
      kms-fast inventory summary --json
    """


@command.command("list")
@click.option("--name", metavar="PREFIX", help="Only machines whose name begins so; upper and lower case are alike.")
@click.option("--state", type=click.Choice([*STATES]), help="Only machines in this licence state.")
@click.option("--cloned", is_flag=True, help="Only machines whose hardware changed: several with one CMID, mostly.")
@click.option("--after", metavar="PLACE", help="Go on behind this place, which the page before ended with.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, help="Machines on a page [default: 50].")
@store_options
def list_clients(
    name: str | None,
    state: str | None,
    cloned: bool,
    after: str | None,
    limit: int,
    settings: HostSettings,
    home: Path,
    out: Output,
) -> None:
    """Print a page of machines, by CMID; with --name by name.

    \b
    Examples:
      kms-fast inventory list
      kms-fast inventory list --name desk- --limit 1000 --json
      kms-fast inventory list --state out-of-tolerance-grace --after PLACE
    """
    place = _parse_place(after, by_name=name is not None) if after is not None else None
    wanted_state = STATES[state] if state else None
    clients = ask_inventory(
        settings,
        home,
        lambda inventory: inventory.find(name=name, state=wanted_state, cloned=cloned, after=place, limit=limit),
    )
    products = read_products(home)
    following = _format_place(clients[-1].position, by_name=name is not None) if len(clients) == limit else None
    text = format_page(clients, products) if clients else "No machine."
    out.result(
        {"clients": [describe_client(client, products) for client in clients], "next": following},
        f"{text}\n\nmore: --after {shlex.quote(following)}" if following else text,
    )


@command.command
@click.argument("cmid", type=click.UUID)
@store_options
def show(cmid: uuid.UUID, settings: HostSettings, home: Path, out: Output) -> None:
    """Show everything about the machine with this CMID, for each product.

    \b
    Example:
      kms-fast inventory show 0b9e7a52-5d1c-4f0e-9d55-3c4f6c1f7a10
    """
    clients = ask_inventory(settings, home, lambda inventory: inventory.get(cmid.bytes))
    if not clients:
        raise KmsFastError(f"No machine with CMID {cmid} is in the inventory.", name="MACHINE_UNKNOWN", cmid=str(cmid))
    products = read_products(home)
    described = [describe_client(client, products) for client in clients]
    out.result({"clients": described}, "\n\n".join(map(_list_with_dates, described)))


@command.command
@store_options
def summary(settings: HostSettings, home: Path, out: Output) -> None:
    """Count machines by product, licence state and expiry, as of when the recorder counted last.

    \b
    Example:
      kms-fast inventory summary
    """

    async def read(inventory: Inventory) -> Summary:
        return await inventory.summary() or await inventory.summarize(wall_clock_ms())

    counted = ask_inventory(settings, home, read)
    described = _describe_summary(counted, read_products(home))
    out.result(described, _list_with_dates(described))


@command.command
@click.argument("cmid", type=click.UUID)
@store_options
def forget(cmid: uuid.UUID, settings: HostSettings, home: Path, out: Output) -> None:
    """Blank name and address of the machine with this CMID, in this host's ledger and in the inventory.

    Every proof still holds, and hosts may run. Of hosts that share an inventory, run it on each: each has its own
    ledger. It reaches no backups and exports, and the machine is known again when it asks again.

    \b
    Example:
      kms-fast inventory forget 0b9e7a52-5d1c-4f0e-9d55-3c4f6c1f7a10
    """
    folder = home / "host" / "ledger"
    if not folder.exists():
        raise ConfigurationError(
            f"{folder} is not there: {home} is not the home of a host that has run. Name it with --home.",
            file=str(folder),
        )
    # The ledger first: what is still to be recorded then comes without a name.
    forgotten = forget_machine(
        folder, cmid.bytes, lambda so_far: out.progress(f"{so_far.entries} entries of the machine found")
    )
    host_id = read_certificate(home / "host").host_id
    clients = 0
    out.progress("waiting for the recorder")
    # Where there is no inventory yet, nothing was read before the ledger was blank.
    if has_inventory(settings, home):
        clients = ask_inventory(
            settings, home, lambda inventory: forget_recorded(inventory, host_id, cmid.bytes, forgotten)
        )
    if not (forgotten.entries or forgotten.blanked or clients):
        raise KmsFastError(
            f"No machine with CMID {cmid} is in this host's ledger or in the inventory.",
            name="MACHINE_UNKNOWN",
            cmid=str(cmid),
        )
    out.result(
        {"cmid": cmid, "entries": forgotten.entries, "blanked": forgotten.blanked, "clients": clients},
        f"Machine {cmid} is forgotten. Entries blanked in the ledger: {forgotten.blanked} of {forgotten.entries}; "
        f"products whose client was blanked in the inventory: {clients}.",
    )


def ask_inventory(settings: HostSettings, home: Path, question: Callable[[Inventory], Awaitable[_Found]]) -> _Found:
    """Open the inventory and ask it. Raises `ConfigurationError` when there is none."""
    if not has_inventory(settings, home):
        raise ConfigurationError(
            f"{inventory_file(home)} is not there: {home} is not the home of a host that has run. Name it with --home.",
            file=str(inventory_file(home)),
        )

    async def ask() -> _Found:
        async with using_inventory(settings, home, reading=True) as inventory:
            return await question(inventory)

    return asyncio.run(ask())


def read_products(home: Path) -> dict[bytes, str]:
    """Names of SKUs, as far as the host's publisher file has them."""
    path = home / "host" / "publisher.json"
    if not path.exists():
        return {}
    return {sku.id.bytes: sku.name for sku in PublisherFile.parse(path.read_bytes()).skus}


def _format_place(position: Position, *, by_name: bool) -> str:
    place = f"{uuid.UUID(bytes=position.cmid)},{uuid.UUID(bytes=position.sku)}"
    return f"{place},{position.name or ''}" if by_name else place


def _parse_place(text: str, *, by_name: bool) -> Position:
    cmid, _, rest = text.partition(",")
    sku, comma, name = rest.partition(",")
    try:
        position = Position(uuid.UUID(cmid).bytes, uuid.UUID(sku).bytes, name if comma else None)
    except ValueError:
        raise click.BadParameter("it is not a place: take it from the end of the page before.") from None
    if by_name is not bool(comma):
        raise click.BadParameter("it is from a list in another order: --name has to be the same on each page.")
    return position


def describe_client(client: Client, products: Mapping[bytes, str]) -> dict[str, Any]:
    """A client as it is shown: the columns of docs/inventory.md, and what they stand for."""
    version = client.library_version
    return {
        "cmid": uuid.UUID(bytes=client.cmid),
        "sku": uuid.UUID(bytes=client.sku),
        "product": products.get(client.sku),
        "name": client.name,
        "address": _format_address(client.address),
        "state": format_state(client.state),
        "first_seen_ms": client.first_seen_ms,
        "last_seen_ms": client.last_seen_ms,
        "activations": client.activations,
        "activated_ms": client.activated_ms,
        "expires_ms": client.expires_ms,
        "refusals": client.refusals,
        "refused_ms": client.refused_ms,
        "refusal": None if client.refusal is None else f"0x{client.refusal:08X}",
        "refusal_name": RESULTS[client.refusal].name if client.refusal in RESULTS else None,
        "hardware": client.hardware,
        "hardware_changes": client.hardware_changes,
        "predecessor": client.predecessor,
        "previous_cmid": None if client.previous_cmid is None else uuid.UUID(bytes=client.previous_cmid),
        "virtual": bool(client.virtual),
        "library_version": f"{version >> 24}.{version >> 16 & 255}.{version & 65_535}",
    }


def _describe_summary(counted: Summary, products: Mapping[bytes, str]) -> dict[str, Any]:
    return {
        "as_of_ms": counted.as_of_ms,
        "as_of": format_time(counted.as_of_ms),
        "products": [
            {"sku": uuid.UUID(bytes=sku), "product": products.get(sku), "clients": clients}
            for sku, clients in counted.products
        ],
        "states": {format_state(state): clients for state, clients in sorted(counted.states.items())},
        "expired": counted.expired,
        "expiring": {f"{days} days": clients for days, clients in sorted(counted.expiring.items())},
        "cloned": counted.cloned,
        "requests": sum(counted.results.values()),
        "results": {
            RESULTS[result].name if result in RESULTS else f"0x{result:08X}": requests
            for result, requests in sorted(counted.results.items())
        },
    }


def _list_with_dates(fields: Mapping[str, Any]) -> str:
    """Names and values with a date in place of every time (ms)."""
    return "\n".join(
        list_fields(
            {
                name.removesuffix("_ms"): format_time(value) if name.endswith("_ms") and value is not None else value
                for name, value in fields.items()
            }
        )
    )


def format_state(state: int) -> str:
    """A licence state as it is shown."""
    return next((name for name, known in STATES.items() if known == state), str(state))


def _format_address(address: bytes | None) -> str | None:
    return None if address is None else str(ip_address(address))


def format_page(clients: Sequence[Client], products: Mapping[bytes, str]) -> str:
    """Aligned columns, one line a client."""
    rows = [("name", "state", "last seen", "lease ends", "granted", "refused", "address", "product", "CMID")]
    rows += [
        (
            client.name or "-",
            format_state(client.state),
            format_time(client.last_seen_ms),
            "-" if client.expires_ms is None else format_time(client.expires_ms),
            str(client.activations),
            str(client.refusals),
            _format_address(client.address) or "-",
            products.get(client.sku) or str(uuid.UUID(bytes=client.sku)),
            str(uuid.UUID(bytes=client.cmid)),
        )
        for client in clients
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
