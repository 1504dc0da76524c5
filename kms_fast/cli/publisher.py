"""``kms-fast publisher``: root and issuer keys, catalog, product keys, certificates, revocations."""

import time
from contextlib import closing
from pathlib import Path

import click

from kms_fast.cli.certify import certify_host
from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.cli.passphrase import Passphrase, passphrase_options
from kms_fast.files import PUBLIC, read_bounded, write_atomically
from kms_fast.model import policy
from kms_fast.model.catalog import MAX_GENERATION
from kms_fast.model.document import MAX_INTEGER
from kms_fast.model.settings import format_quantity, parse_quantity
from kms_fast.publisher.publisher import Publisher


def _read_span(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Minutes of a span such as 90m, 36h or 180d."""
    if value is None:
        return None
    try:
        return parse_quantity(value, "min")
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: {error}", ctx, param) from None


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


@click.group
def command() -> None:
    """Root and issuer keys, catalog, product keys, certificates, revocations.

    \b
    From nothing to a certified host:
      kms-fast publisher init "Example Ltd"
      kms-fast publisher add-product "Example Desktop 1" --family desktop
      kms-fast publisher export --out publisher.json
      kms-fast publisher host-key
      kms-fast host request --publisher publisher.json --key HOSTKEY --out host.request
      kms-fast publisher certify host.request --out host.answer
      kms-fast host apply host.answer
    """


command.add_command(certify_host)


@command.command
@click.argument("name")
@click.option("--activation-url", default="", help="HTTPS address of the publisher's activation service, if any.")
@click.option("--srv-name", default=policy.SRV_NAME, show_default=True, help="DNS service name of the hosts.")
@home_option
@passphrase_options
@json_option
def init(name: str, activation_url: str, srv_name: str, home: Path, passphrase: Passphrase, out: Output) -> None:
    """Make a publisher called NAME: root key, issuer key, empty catalog.

    \b
    Examples:
      kms-fast publisher init "Example Ltd"
      kms-fast publisher init Lab --key-file lab.key --home ./lab
    """
    folder = home / "publisher"
    publisher = Publisher.create(
        folder, name, passphrase.choose(), now_ms=_now_ms(), activation_url=activation_url, srv_name=srv_name
    )
    with closing(publisher):
        catalog = folder / "catalog.toml"
        publisher_id = str(publisher.read_catalog().publisher_id)
    out.result(
        {"publisher_id": publisher_id, "name": name, "folder": folder, "catalog": catalog},
        f"Made publisher {name} ({publisher_id}) in {folder}.\n"
        "Keep copies of root.key, issuer.key and publisher.db, and of the passphrase: nothing can replace them.\n"
        'Next: kms-fast publisher add-product "PRODUCT" --family desktop',
    )


@command.command("add-product")
@click.argument("name")
@click.option(
    "--family", required=True, help="Family whose machines count together: desktop, server, suite or a new one."
)
@click.option("--generation", type=click.IntRange(1, MAX_GENERATION), help="Generation of the product (1).")
@click.option(
    "--validity", metavar="SPAN", callback=_read_span, help="How long an activation lasts (180d), 1m to 365d."
)
@click.option(
    "--activation-interval",
    metavar="SPAN",
    callback=_read_span,
    help="How often a machine without activation asks (2h).",
)
@click.option(
    "--renewal-interval", metavar="SPAN", callback=_read_span, help="How often an activated machine renews (7d)."
)
@click.option("--initial-grace", metavar="SPAN", callback=_read_span, help="Grace before the first activation (30d).")
@click.option("--grace", metavar="SPAN", callback=_read_span, help="Grace after an activation ended (30d).")
@click.option(
    "--threshold", type=click.IntRange(1), help="Of a new family: machines needed (25, 5, 5 for the usual ones)."
)
@click.option("--minimum-threshold", type=click.IntRange(1), help="Of a new family: what certificates demand at least.")
@click.option(
    "--maximum-validity", metavar="SPAN", callback=_read_span, help="Of a new family: what certificates allow at most."
)
@home_option
@json_option
def add_product(
    name: str,
    family: str,
    threshold: int | None,
    minimum_threshold: int | None,
    maximum_validity: int | None,
    home: Path,
    out: Output,
    **flags: int | None,
) -> None:
    """Append the product NAME to the catalog, and its family when it is new.

    \b
    Examples:
      kms-fast publisher add-product "Example Desktop 1" --family desktop
      kms-fast publisher add-product "Example Desktop 2" --family desktop --generation 2
      kms-fast publisher add-product "Example Runner" --family ci --threshold 1 --validity 2h
    """
    numbers = {_field(flag): value for flag, value in flags.items() if value is not None}
    with closing(Publisher(home / "publisher")) as publisher:
        sku, added = publisher.add_product(
            name,
            family,
            threshold=threshold,
            minimum_threshold=minimum_threshold,
            maximum_validity_min=maximum_validity,
            **numbers,
        )
        setup_key = sku.setup_key(publisher.publisher_id).text
    fields = {**sku.to_json(with_secret=False), "family": added.name, "family_number": added.number}
    out.result(
        {**fields, "threshold": added.threshold, "setup_key": setup_key},
        f"Added {name}: activation ID {sku.id}, family {added.name} (threshold {added.threshold}), generation "
        f"{sku.generation}, validity {format_quantity(sku.validity_min, 'min')}.\n"
        f"Its client setup key, the same on every machine: {setup_key}\n"
        "Next: kms-fast publisher export --out publisher.json",
    )


def _field(flag: str) -> str:
    return flag if flag == "generation" else f"{flag}_min"


@command.command
@click.option("--out", "path", type=click.Path(dir_okay=False, path_type=Path), help="Where to write a copy.")
@home_option
@passphrase_options
@json_option
def export(path: Path | None, home: Path, passphrase: Passphrase, out: Output) -> None:
    """Sign publisher.json with the root key: what clients and hosts trust, without secrets.

    \b
    Examples:
      kms-fast publisher export --out publisher.json
    """
    with closing(Publisher(home / "publisher")) as publisher:
        exported = publisher.export(passphrase.read(), now_ms=_now_ms())
        written = publisher.folder / "publisher.json"
    if path is not None:
        write_atomically(path, read_bounded(written), mode=PUBLIC)
        written = path
    out.result(
        {
            "file": written,
            "number": exported.number,
            "publisher_id": exported.publisher_id,
            "products": len(exported.skus),
            "revocations": exported.revocations_number,
        },
        f"Wrote {written}: number {exported.number}, products: {len(exported.skus)}, revoked "
        f"certificates: {len(exported.revoked)}.\nIt is public: clients and hosts take it with --publisher.\n"
        "Next: kms-fast publisher host-key",
    )


@command.command("host-key")
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
            now_ms=_now_ms(),
            hosts=hosts,
            activations=activations,
            customer_id=customer_id,
            note=note,
        )
        names = {family.number: family.name for family in publisher.read_catalog().families}
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
        "Next, on the host: kms-fast host request --publisher publisher.json --key HOSTKEY --out host.request",
    )


@command.command("client-key")
@click.argument("product")
@home_option
@json_option
def client_key(product: str, home: Path, out: Output) -> None:
    """Print the client setup key of PRODUCT (its name, activation ID or reference).

    \b
    Examples:
      kms-fast publisher client-key "Example Desktop 1"
    """
    with closing(Publisher(home / "publisher")) as publisher:
        sku = publisher.find_sku(product)
        key = sku.setup_key(publisher.publisher_id).text
    out.result({"setup_key": key, "sku": sku.id, "name": sku.name}, key)


@command.command
@click.argument("serial", type=click.IntRange(1))
@home_option
@passphrase_options
@json_option
def revoke(serial: int, home: Path, passphrase: Passphrase, out: Output) -> None:
    """Revoke the host certificate with SERIAL; the next export carries the new revocation list.

    \b
    Examples:
      kms-fast publisher revoke 3
    """
    with closing(Publisher(home / "publisher")) as publisher:
        revocations = publisher.revoke(serial, passphrase.read(), now_ms=_now_ms())
    out.result(
        {"serial": serial, "number": revocations.number, "revoked": list(revocations.serials)},
        f"Revoked certificate {serial}: revocation list {revocations.number} has {len(revocations.serials)} serials.\n"
        "Next: kms-fast publisher export, then give publisher.json to clients and certify the hosts that stay.",
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
