"""``kms-fast publisher host-key | keys | disable-key | customers``: host keys, and what was done with them."""

import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from kms_fast.cli.output import Output, escape_controls, home_option, json_option
from kms_fast.clock import wall_clock_ms
from kms_fast.model import policy
from kms_fast.model.catalog import MAX_GENERATION
from kms_fast.model.document import MAX_INTEGER
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.records import CertificateRecord, HostKeyRecord


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


@click.command("host-key")
@click.option(
    "--family", "families", callback=_read_families, multiple=True, help="NAME[:GENERATION]; repeatable; else all."
)
@click.option(
    "--hosts", type=click.IntRange(1), default=policy.HOSTS_PER_KEY, show_default=True, help="Hosts it may activate."
)
@click.option(
    "--activations",
    type=click.IntRange(1),
    default=policy.ACTIVATIONS_PER_HOST,
    show_default=True,
    help="How often each, the first time included.",
)
@click.option(
    "--customer", "customer_id", type=click.IntRange(0, MAX_INTEGER), default=0, help="Customer ID, 0 for none."
)
@click.option("--note", default="", help="Whom it is for; kept in the records only.")
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
    following = f"kms-fast host activate {with_both}"
    if not catalog.activation_url:
        following = f"kms-fast host request {with_both} --out host.request"
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
        f"Next, on the host: {following}",
    )


@click.command
@home_option
@json_option
def keys(home: Path, out: Output) -> None:
    """List the host keys that were made, by their last five characters, and how much of each is used.

    \b
    Examples:
      kms-fast publisher keys
    """
    with closing(Publisher(home / "publisher")) as publisher:
        names = {family.number: family.name for family in publisher.read_catalog().families}
        listed = [_describe_key(publisher, record, names) for record in publisher.records.list_host_keys()]
    table = Table(box=None, pad_edge=False)
    for title in ("host key", "covers", "customer", "hosts", "activations", "note"):
        table.add_column(title)
    for key in listed:
        covers = ", ".join(f"{name}:{generation}" for name, generation in key["families"].items())
        hosts = f"{key['hosts']} of {key['hosts_allowed']}"
        activations = f"{key['activations']}, {key['activations_allowed']} a host"
        disabled = "disabled " if key["disabled"] else ""
        note = escape_controls(disabled + key["note"])
        table.add_row(f"…{key['last_five']}", covers, str(key["customer_id"]), hosts, activations, note)
    out.result({"keys": listed}, table if listed else "No host key was made yet: kms-fast publisher host-key.")


def _describe_key(publisher: Publisher, record: HostKeyRecord, names: dict[int, str]) -> dict[str, Any]:
    entitlement, secrets = record.entitlement, record.secrets
    families = {names.get(number, str(number)): generation for number, generation in entitlement.families.items()}
    return {
        "last_five": secrets.last_five,
        "key_id": secrets.key_id,
        "families": families,
        "customer_id": entitlement.customer_id,
        "note": entitlement.note,
        "hosts": publisher.records.count_activations(secrets.key_id).hosts,
        "hosts_allowed": entitlement.hosts,
        "activations": len(publisher.records.list_activated(secrets.key_id)),
        "activations_allowed": entitlement.activations,
        "created": policy.format_time(record.created_ms),
        "disabled": policy.format_time(record.disabled_ms) if record.disabled_ms is not None else None,
    }


@click.command("disable-key")
@click.argument("key", metavar="LAST5")
@click.option("--undo", is_flag=True, help="Let it certify hosts again.")
@home_option
@json_option
def disable_key(key: str, undo: bool, home: Path, out: Output) -> None:
    """Let the host key that ends in LAST5 certify no host any more, renewals included.

    Certificates that were issued stay valid: revoke them with publisher revoke --key. Where several keys end alike,
    name one by its ID, as publisher keys --json shows it.

    \b
    Examples:
      kms-fast publisher disable-key 7Q2XM
      kms-fast publisher disable-key 7Q2XM --undo
    """
    with closing(Publisher(home / "publisher")) as publisher:
        record = publisher.records.name_host_key(key)
        publisher.records.disable_host_key(record.secrets.key_id, None if undo else wall_clock_ms())
    last_five = record.secrets.last_five
    done = (
        f"The host key that ends in {last_five} certifies hosts again."
        if undo
        else f"The host key that ends in {last_five} certifies no host any more.\n"
        f"Its hosts go on until their certificates end; to end them now: kms-fast publisher revoke --key {last_five}"
    )
    out.result({"last_five": last_five, "key_id": record.secrets.key_id, "disabled": not undo}, done)


@click.command
@home_option
@json_option
def customers(home: Path, out: Output) -> None:
    """List customers by their ID: host keys, hosts, and certificates with their ends.

    \b
    Examples:
      kms-fast publisher customers
    """
    now_ms = wall_clock_ms()
    with closing(Publisher(home / "publisher")) as publisher:
        found: dict[int, dict[str, Any]] = {}
        for key in publisher.records.list_host_keys():
            one = found.setdefault(key.entitlement.customer_id, {"keys": [], "certificates": []})
            one["keys"].append(key.secrets.last_five)
        for record in publisher.records.list_certificates():
            one = found.setdefault(record.certificate.customer_id, {"keys": [], "certificates": []})
            one["certificates"].append(_describe_certificate(record, now_ms))
    listed = [
        {"customer_id": number, **one, "hosts": len({row["host_id"] for row in one["certificates"]})}
        for number, one in sorted(found.items())
    ]
    out.result({"customers": listed}, "\n".join(map(_show_customer, listed)) or "There is no host key yet.")


def _describe_certificate(record: CertificateRecord, now_ms: int) -> dict[str, Any]:
    certificate = record.certificate
    has_ended = certificate.not_after_ms < now_ms
    return {
        "serial": certificate.serial,
        "host_id": str(uuid.UUID(bytes=certificate.host_id)),
        "issued": policy.format_time(record.issued_ms),
        "not_after": policy.format_time(certificate.not_after_ms),
        "state": "revoked" if record.revoked_ms is not None else "ended" if has_ended else "valid",
    }


def _show_customer(one: dict[str, Any]) -> str:
    keys = ", ".join(f"…{last_five}" for last_five in one["keys"]) or "none"
    lines = [f"customer {one['customer_id']}: host keys {keys}; hosts: {one['hosts']}"]
    lines += [
        f"  certificate {row['serial']} of host {row['host_id']}: {row['state']}, until {row['not_after']}"
        for row in one["certificates"]
    ]
    return "\n".join(lines)
