"""``kms-fast client activate --mak | request | apply``: an activation by the publisher itself, without a host."""

import asyncio
from pathlib import Path

import click

from kms_fast.cli.given import make_publisher_option, read_key
from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.client import Client
from kms_fast.client.direct import DirectActivation
from kms_fast.errors import KmsFastError
from kms_fast.files import PUBLIC, read_bounded, write_atomically

publisher_option = make_publisher_option("The publisher's publisher.json; needed once, it is kept with the key.")
mak_option = click.option(
    "--mak",
    metavar="KEY",
    callback=read_key,
    help="Multiple-activation key, or @FILE that holds it; asks no host but the publisher.",
)


def activate_directly(client: Client, key: str, url: str | None, ca: Path | None, out: Output) -> None:
    """Ask the publisher's activation service, by its address in the publisher file unless ``url`` is given."""
    # Commands that need no such network need not wait for its modules.
    from kms_fast.cli.online import ActivationClient

    request = client.begin_direct(key)
    try:
        service = ActivationClient(url or request.service, ca)
        out.progress(f"asking {service.url}")
        activated = client.finish_direct(asyncio.run(service.activate_machine(request.data)))
    except KmsFastError as error:
        client.fail_direct(request, error)
        raise
    _show(client, activated, out)


@click.command("request")
@publisher_option
@click.option("--mak", metavar="KEY", required=True, callback=read_key, help="The key, or @FILE that holds it.")
@click.option("--out", "path", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The request.")
@home_option
@json_option
def request(publisher_data: bytes | None, mak: str, path: Path, home: Path, out: Output) -> None:
    """Write what the publisher is asked, for a machine that reaches neither a host nor the publisher.

    The request goes to the publisher by any means, and carries no secret; its answer goes to kms-fast client apply.

    \b
    Example:
      kms-fast client request --publisher publisher.json --mak @mak.txt --out machine.request
    """
    asked = Client(home=home, publisher=publisher_data).begin_direct(mak)
    write_atomically(path, asked.data, mode=PUBLIC)
    out.result(
        {"file": path, "product": asked.sku.name, "sku": asked.sku.id, "cmid": asked.machine.cmid},
        f"Wrote {path}: a request to activate {asked.sku.name} on machine {asked.machine.cmid}.\n"
        f"Next, at the publisher: kms-fast publisher activate-machine {path.name} --out machine.activation",
    )


@click.command("apply")
@click.argument("activation", type=click.Path(dir_okay=False, path_type=Path))
@home_option
@json_option
def apply(activation: Path, home: Path, out: Output) -> None:
    """Check and install the ACTIVATION that the publisher made for this machine.

    \b
    Example:
      kms-fast client apply machine.activation
    """
    client = Client(home=home)
    _show(client, client.finish_direct(read_bounded(activation)), out)


def _show(client: Client, direct: DirectActivation, out: Output) -> None:
    status = client.status(direct.activation.sku)
    text = f"{status.sku.name} is activated by its publisher, without an end, on this machine."
    out.result(status.to_json(), text)
