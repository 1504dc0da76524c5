"""``kms-fast publisher``: the group of all its commands, and ``export | renew-issuer | change-passphrase``."""

from contextlib import closing
from pathlib import Path

import click

from kms_fast.cli.certify import certify_host
from kms_fast.cli.output import Output, following, home_option, json_option
from kms_fast.cli.passphrase import Passphrase, passphrase_options
from kms_fast.cli.publisher_backup import backup, restore
from kms_fast.cli.publisher_customers import customers
from kms_fast.cli.publisher_init import copy_publisher_file, init
from kms_fast.cli.publisher_keys import disable_key, host_key, keys
from kms_fast.cli.publisher_machines import activate_machine, activation_key
from kms_fast.cli.publisher_products import add_product, client_key
from kms_fast.cli.publisher_revocation import revoke
from kms_fast.cli.publisher_service import serve
from kms_fast.cli.publisher_status import log, status
from kms_fast.clock import wall_clock_ms
from kms_fast.model import policy
from kms_fast.model.catalog import find_sku
from kms_fast.publisher.exporting import export_publisher_file, look_at_exported
from kms_fast.publisher.publisher import Publisher


@click.group
def command() -> None:
    """Root and issuer keys, catalog, product keys, certificates, revocations.

    \b
    From nothing to a certified host:
      kms-fast publisher init "Example Ltd"              (with --product it does the next three too)
      kms-fast publisher add-product "Example Desktop 1" --family desktop
      kms-fast publisher export --out publisher.json
      kms-fast publisher host-key
      kms-fast host request --publisher publisher.json --key HOSTKEY --out host.request
      kms-fast publisher certify host.request --out host.answer
      kms-fast host apply host.answer
    The last three by themselves, over HTTPS:
      kms-fast publisher serve
      kms-fast host activate --publisher publisher.json --key HOSTKEY
    For machines that never reach a host:
      kms-fast publisher activation-key "Example Desktop 1" --machines 20
    """


for sub_command in (
    init,
    add_product,
    client_key,
    certify_host,
    host_key,
    activation_key,
    activate_machine,
    keys,
    disable_key,
    customers,
    revoke,
    status,
    log,
    serve,
    backup,
    restore,
):
    command.add_command(sub_command)


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
        earlier = look_at_exported(publisher)
        exported = export_publisher_file(publisher, passphrase.read(), now_ms=wall_clock_ms())
        written = copy_publisher_file(publisher, path)
    given_up = [sku.name for sku in (earlier.skus if earlier else ()) if find_sku(exported.skus, sku.id) is None]
    if given_up:
        out.warning(
            f"Given up, since catalog.toml does not have them: {', '.join(given_up)}. On machines that get this file "
            "they count as licensed no more. To keep them, put them back with the same IDs, and export again."
        )
    out.result(
        {
            "file": written,
            "number": exported.number,
            "publisher_id": exported.publisher_id,
            "products": len(exported.skus),
            "given_up": given_up,
            "revocations": exported.revocations_number,
        },
        f"Wrote {written}: number {exported.number}, products: {len(exported.skus)}, revoked "
        f"certificates: {len(exported.revoked)}.\nIt is public: clients and hosts take it with --publisher.\n"
        f"Next: {following('kms-fast publisher host-key')}",
    )


@command.command("renew-issuer")
@home_option
@passphrase_options
@json_option
def renew_issuer(home: Path, passphrase: Passphrase, out: Output) -> None:
    """Make a new issuer key, certified by the root key for two years; what the old one signed stays valid.

    \b
    Examples:
      kms-fast publisher renew-issuer
    """
    with closing(Publisher(home / "publisher")) as publisher:
        issuer = publisher.renew_issuer(passphrase.read(), now_ms=wall_clock_ms())
    until = policy.format_time(issuer.not_after_ms)
    out.result(
        {"serial": issuer.serial, "not_after": until},
        f"Made issuer key {issuer.serial}, valid until {until}.\n"
        "Next: start kms-fast publisher serve anew, if it runs; hosts get the new issuer with their next certificate.",
    )


@command.command("change-passphrase")
@click.option(
    "--new-passphrase-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File whose first line is the new passphrase; else a prompt.",
)
@click.option(
    "--new-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File whose content is the new passphrase; a missing one is made.",
)
@home_option
@passphrase_options
@json_option
def change_passphrase(
    new_passphrase_file: Path | None, new_key_file: Path | None, home: Path, passphrase: Passphrase, out: Output
) -> None:
    """Encrypt the root key and the issuer key with another passphrase, those of them that are in the folder.

    \b
    Examples:
      kms-fast publisher change-passphrase
      kms-fast publisher change-passphrase --key-file old.pass --new-key-file new.pass
    """
    new = Passphrase(new_passphrase_file, new_key_file, new=True)
    with closing(Publisher(home / "publisher")) as publisher:
        paths = publisher.change_passphrase(passphrase.read(), new.choose())
    out.result(
        {"files": paths},
        f"Encrypted {', '.join(path.name for path in paths)} anew. Copies of them still open with the old passphrase.",
    )
