"""``kms-fast publisher init``: a publisher, and on request everything that its first host and machine need."""

import shlex
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from kms_fast.cli.output import Output, following, home_option, json_option
from kms_fast.cli.passphrase import Passphrase, passphrase_options
from kms_fast.clock import wall_clock_ms
from kms_fast.errors import ConfigurationError
from kms_fast.files import PUBLIC, read_bounded, write_atomically
from kms_fast.model import policy
from kms_fast.model.catalog_toml import append_product, parse_catalog_toml, render_head
from kms_fast.publisher.exporting import export_publisher_file
from kms_fast.publisher.making import check_unused
from kms_fast.publisher.publisher import Publisher


@click.command
@click.argument("name")
@click.option("--activation-url", default="", help="HTTPS address of the publisher's activation service, if any.")
@click.option("--srv-name", default=policy.SRV_NAME, show_default=True, help="DNS service name of the hosts.")
@click.option("--product", help="Also add this product, export publisher.json and make a host key.")
@click.option("--family", help="The product's family; else desktop.")
@click.option("--threshold", type=click.IntRange(1), help="Of a new family: machines needed (25, 5, 5 for usual ones).")
@click.option(
    "--out", "path", type=click.Path(dir_okay=False, path_type=Path), help="With a product: a copy of publisher.json."
)
@home_option
@passphrase_options
@json_option
def init(
    name: str,
    activation_url: str,
    srv_name: str,
    product: str | None,
    family: str | None,
    threshold: int | None,
    path: Path | None,
    home: Path,
    passphrase: Passphrase,
    out: Output,
) -> None:
    """Make a publisher called NAME: root key, issuer key, empty catalog.

    With --product also what its first host and machine need: the product in the catalog, publisher.json, a host key
    and the product's setup key.

    \b
    Examples:
      kms-fast publisher init "Example Ltd"
      kms-fast publisher init Lab --product Runner --family ci --threshold 1 --key-file lab.key --out publisher.json
    """
    if product is None and (path or threshold or family is not None):
        raise click.UsageError("--family, --threshold and --out belong to --product.")
    family = "desktop" if family is None else family
    folder, now_ms = home / "publisher", wall_clock_ms()
    # Before anybody thinks of a passphrase, or a key file is made for nothing.
    check_unused(folder)
    _check_catalog(name, activation_url, srv_name, product, family, threshold)
    if path and not path.absolute().parent.is_dir():
        raise click.UsageError(f"--out {path}: there is no folder {path.parent}.")
    secret = passphrase.choose()
    publisher = Publisher.create(folder, name, secret, now_ms=now_ms, activation_url=activation_url, srv_name=srv_name)
    with closing(publisher):
        publisher_id = str(publisher.read_catalog().publisher_id)
        fields = {"publisher_id": publisher_id, "name": name, "folder": folder, "catalog": folder / "catalog.toml"}
        text = (
            f"Made publisher {name} ({publisher_id}) in {folder}.\n"
            "Keep a backup (kms-fast publisher backup FILE) and the passphrase: nothing can replace them.\n"
        )
        if product is None:
            add = 'kms-fast publisher add-product "PRODUCT" --family desktop'
            out.result(fields, f"{text}Next: {following(add)}")
            return
        first = _start_product(publisher, product, family, threshold, secret, path, now_ms)
    verb, options = ("activate", "") if activation_url else ("request", " --out host.request")
    out.result(
        {**fields, **first},
        f"{text}Wrote {first['file']}, which clients and hosts take with --publisher.\n"
        f"Setup key of {product}, the same on every machine: {first['setup_key']}\n"
        f"Host key, shown once: {first['host_key']}\n"
        f"Next, on the host: kms-fast host {verb} --publisher {shlex.quote(str(first['file']))} --key HOSTKEY{options}",
    )


def _check_catalog(
    name: str, activation_url: str, srv_name: str, product: str | None, family: str, threshold: int | None
) -> None:
    """Refuse what could not become a catalog, by making one that is thrown away."""
    where = "The new catalog"
    text = render_head(uuid.uuid4(), name, activation_url, srv_name)
    try:
        catalog = parse_catalog_toml(text, where)
        if product is not None:
            text, _, _ = append_product(text, catalog, product, family, threshold=threshold)
            parse_catalog_toml(text, where)
    except ConfigurationError as error:
        raise click.UsageError(error.message) from None


def _start_product(
    publisher: Publisher,
    product: str,
    family: str,
    threshold: int | None,
    secret: bytes,
    path: Path | None,
    now_ms: int,
) -> dict[str, Any]:
    """Add a product, export (a copy to ``path``), make a host key; what was made, as the command shows it."""
    sku, _ = publisher.add_product(product, family, threshold=threshold)
    export_publisher_file(publisher, secret, now_ms=now_ms)
    return {
        "file": copy_publisher_file(publisher, path),
        "product": product,
        "setup_key": sku.setup_key(publisher.publisher_id).text,
        "host_key": publisher.make_host_key(now_ms=now_ms).key.text,
    }


def copy_publisher_file(publisher: Publisher, path: Path | None) -> Path:
    """Where ``publisher.json`` is to be taken from: the copy that is written to ``path``, if there is one."""
    exported = publisher.folder / "publisher.json"
    if path is None:
        return exported
    write_atomically(path, read_bounded(exported), mode=PUBLIC)
    return path
