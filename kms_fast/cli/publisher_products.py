"""``kms-fast publisher add-product | client-key``: the catalog's products and their setup keys."""

from contextlib import closing
from pathlib import Path

import click

from kms_fast.cli.output import Output, following, home_option, json_option
from kms_fast.model.catalog import MAX_GENERATION
from kms_fast.model.quantities import format_quantity, parse_quantity
from kms_fast.publisher.publisher import Publisher


def _read_span(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Minutes of a span such as 90m, 36h or 180d."""
    if value is None:
        return None
    try:
        return parse_quantity(value, "min")
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: {error}", ctx, param) from None


@click.command("add-product")
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
        f"Next: {following('kms-fast publisher export --out publisher.json')}",
    )


def _field(flag: str) -> str:
    return flag if flag == "generation" else f"{flag}_min"


@click.command("client-key")
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
