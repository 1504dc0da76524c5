"""``kms-fast publisher host-key | keys | disable-key``: making keys for customers, and how much of each is used."""

import uuid
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Group
from rich.table import Table

from kms_fast.cli.output import Output, escape_controls, following, home_option, json_option
from kms_fast.clock import wall_clock_ms
from kms_fast.model import policy
from kms_fast.model.catalog import MAX_GENERATION
from kms_fast.model.document import MAX_INTEGER
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.records import ActivationKeyRecord, HostKeyRecord, Records


def _read_families(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, int | None]:
    """Generations by family name, from ``NAME`` (the newest in the catalog) or ``NAME:GENERATION``."""
    families: dict[str, int | None] = {}
    for value in values:
        name, colon, generation = value.partition(":")
        if colon and not (generation.isascii() and generation.isdigit() and 1 <= int(generation) <= MAX_GENERATION):
            problem = f"{value!r}: write NAME:GENERATION with a generation from 1 to {MAX_GENERATION}"
            raise click.BadParameter(problem, ctx, param)
        families[name] = int(generation) if colon else None
    return families


# What records and files can hold.
COUNT: Final = click.IntRange(1, MAX_INTEGER)
customer_option = click.option(
    "--customer", "customer_id", type=click.IntRange(0, MAX_INTEGER), default=0, help="Customer ID, 0 for none."
)
note_option = click.option("--note", default="", help="Whom it is for; kept in the records only.")


@click.command("host-key")
@click.option(
    "--family", "families", callback=_read_families, multiple=True, help="NAME[:GENERATION]; repeatable; else all."
)
@click.option("--hosts", type=COUNT, default=policy.HOSTS_PER_KEY, show_default=True, help="Hosts it may activate.")
@click.option(
    "--activations",
    type=COUNT,
    default=policy.ACTIVATIONS_PER_HOST,
    show_default=True,
    help="How often each, the first time included.",
)
@customer_option
@note_option
@home_option
@json_option
def host_key(
    families: dict[str, int | None],
    hosts: int,
    activations: int,
    customer_id: int,
    note: str,
    home: Path,
    out: Output,
) -> None:
    """Make a host key: it entitles a customer to run activation hosts. It is shown once and stored nowhere.

    \b
    Examples:
      kms-fast publisher host-key
      kms-fast publisher host-key --family desktop:2 --hosts 2 --note "Customer 4711"
    """
    with closing(Publisher(home / "publisher")) as publisher:
        made = publisher.make_host_key(
            families,
            now_ms=wall_clock_ms(),
            hosts=hosts,
            activations=activations,
            customer_id=customer_id,
            note=note,
        )
        catalog = publisher.read_catalog()
    names = {family.number: family.name for family in catalog.families}
    with_both = "--publisher publisher.json --key HOSTKEY"
    ask = f"kms-fast host activate {with_both}"
    if not catalog.activation_url:
        ask = f"kms-fast host request {with_both} --out host.request"
    covered = {names[number]: generation for number, generation in made.entitlement.families.items()}
    listed = ", ".join(f"{name} up to generation {generation}" for name, generation in covered.items())
    out.result(
        {
            "host_key": made.key.text,
            "families": covered,
            "hosts": hosts,
            "activations": activations,
            "customer_id": customer_id,
        },
        f"Host key: {made.key.text}\n"
        f"It covers {listed}; {hosts} hosts, {activations} activations each. Note it now: it is not stored.\n"
        f"Next, on the host: {ask}",
    )


@click.command
@home_option
@json_option
def keys(home: Path, out: Output) -> None:
    """List the keys that were made, by their last five characters, and how much of each is used.

    \b
    Examples:
      kms-fast publisher keys
    """
    with closing(Publisher(home / "publisher")) as publisher:
        catalog, records = publisher.read_catalog(), publisher.records
        names = {family.number: family.name for family in catalog.families}
        products = {sku.id: sku.name for sku in catalog.skus}
        of_hosts = [_describe_host_key(records, key, names) for key in records.list_host_keys()]
        of_machines = [_describe_activation_key(records, key, products) for key in records.list_activation_keys()]
    tables = [_show_host_keys(of_hosts)] if of_hosts else []
    tables += [_show_activation_keys(of_machines)] if of_machines else []
    out.result(
        {"keys": of_hosts, "activation_keys": of_machines},
        Group(*tables) if tables else f"No key was made yet: {following('kms-fast publisher host-key')}",
    )


def _describe_host_key(records: Records, key: HostKeyRecord, names: dict[int, str]) -> dict[str, Any]:
    entitlement, key_id = key.entitlement, key.secrets.key_id
    return {
        "last_five": key.secrets.last_five,
        "key_id": key_id,
        "families": {names.get(number, str(number)): newest for number, newest in entitlement.families.items()},
        "customer_id": entitlement.customer_id,
        "note": entitlement.note,
        "hosts": records.count_activations(key_id).hosts,
        "hosts_allowed": entitlement.hosts,
        "activations": len(records.list_activated(key_id)),
        "activations_allowed": entitlement.activations,
        **_describe_times(key),
    }


def _describe_activation_key(
    records: Records, key: ActivationKeyRecord, products: dict[uuid.UUID, str]
) -> dict[str, Any]:
    return {
        "last_five": key.secrets.last_five,
        "key_id": key.secrets.key_id,
        "product": products.get(key.sku, str(key.sku)),
        "customer_id": key.customer_id,
        "note": key.note,
        "machines": records.count_machines(key.secrets.key_id),
        "machines_allowed": key.machines,
        **_describe_times(key),
    }


def _describe_times(key: HostKeyRecord | ActivationKeyRecord) -> dict[str, str | None]:
    return {
        "created": policy.format_time(key.created_ms),
        "disabled": policy.format_time(key.disabled_ms) if key.disabled_ms is not None else None,
    }


def _show_host_keys(keys: list[dict[str, Any]]) -> Table:
    table = Table("host key", "covers", "customer", "hosts", "activations", "note", box=None, pad_edge=False)
    for key in keys:
        covers = ", ".join(f"{name}:{generation}" for name, generation in key["families"].items())
        hosts = f"{key['hosts']} of {key['hosts_allowed']}"
        activations = f"{key['activations']}, {key['activations_allowed']} a host"
        table.add_row(f"…{key['last_five']}", covers, str(key["customer_id"]), hosts, activations, _show_note(key))
    return table


def _show_activation_keys(keys: list[dict[str, Any]]) -> Table:
    table = Table("multiple-activation key", "product", "customer", "machines", "note", box=None, pad_edge=False)
    for key in keys:
        machines = f"{key['machines']} of {key['machines_allowed']}"
        table.add_row(f"…{key['last_five']}", key["product"], str(key["customer_id"]), machines, _show_note(key))
    return table


def _show_note(key: dict[str, Any]) -> str:
    return escape_controls(("disabled " if key["disabled"] else "") + key["note"])


@click.command("disable-key")
@click.argument("key", metavar="LAST5")
@click.option("--undo", is_flag=True, help="Let it activate again.")
@home_option
@json_option
def disable_key(key: str, undo: bool, home: Path, out: Output) -> None:
    """Let the key that ends in LAST5 activate nothing any more: no host, renewals included, or no machine.

    Certificates that were issued stay valid: revoke them with publisher revoke --key. So do activations of machines,
    which have no end. Where several keys end alike, name one by its ID, as publisher keys --json shows it.

    \b
    Examples:
      kms-fast publisher disable-key 7Q2XM
      kms-fast publisher disable-key 7Q2XM --undo
    """
    with closing(Publisher(home / "publisher")) as publisher:
        record = publisher.records.name_key(key)
        publisher.records.disable_key(record.secrets.key_id, None if undo else wall_clock_ms())
    last_five = record.secrets.last_five
    done = f"The key that ends in {last_five} activates {'again' if undo else 'nothing any more'}."
    if isinstance(record, HostKeyRecord) and not undo:
        done += (
            "\nIts hosts go on until their certificates end; to end them now: "
            f"{following(f'kms-fast publisher revoke --key {last_five}')}"
        )
    out.result({"last_five": last_five, "key_id": record.secrets.key_id, "disabled": not undo}, done)
