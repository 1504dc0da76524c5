"""``kms-fast publisher activation-key | activate-machine``: machines that are activated one by one, without a host."""

from contextlib import closing
from pathlib import Path

import click

from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.cli.passphrase import Passphrase, passphrase_options
from kms_fast.cli.publisher_keys import COUNT, customer_option, note_option
from kms_fast.clock import wall_clock_ms
from kms_fast.files import PUBLIC, read_bounded, write_atomically
from kms_fast.publisher import machines as activating
from kms_fast.publisher.publisher import Publisher


@click.command("activation-key")
@click.argument("product")
@click.option("--machines", type=COUNT, required=True, help="How many machines it activates.")
@customer_option
@note_option
@home_option
@json_option
def activation_key(product: str, machines: int, customer_id: int, note: str, home: Path, out: Output) -> None:
    """Make a multiple-activation key of PRODUCT (its name, activation ID or reference).

    It activates so many machines, each once and without an end, directly at the publisher: for the few that never reach
    a host. The key is shown once.

    \b
    Examples:
      kms-fast publisher activation-key "Example Desktop 1" --machines 20 --note "Customer 4711, laptops"
    """
    with closing(Publisher(home / "publisher")) as publisher:
        key, sku = activating.make_activation_key(
            publisher, product, now_ms=wall_clock_ms(), machines=machines, customer_id=customer_id, note=note
        )
        has_service = bool(publisher.read_catalog().activation_url)
    given = "--publisher publisher.json --mak KEY"
    following = f"kms-fast client activate {given}"
    if not has_service:
        following = f"kms-fast client request {given} --out machine.request"
    out.result(
        {"activation_key": key.text, "product": sku.name, "machines": machines, "customer_id": customer_id},
        f"Multiple-activation key: {key.text}\n"
        f"It activates {sku.name} on {machines} machines. Note it now: it is not stored.\n"
        f"Next, on a machine: {following}",
    )


@click.command("activate-machine")
@click.argument("request", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", "path", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The activation.")
@home_option
@passphrase_options
@json_option
def activate_machine(request: Path, path: Path, home: Path, passphrase: Passphrase, out: Output) -> None:
    """Check a machine REQUEST and answer it with the activation, for a machine that cannot reach publisher serve.

    A machine that asks again, with the same installation and hardware, takes nothing from its key.

    \b
    Examples:
      kms-fast publisher activate-machine machine.request --out machine.activation
    """
    data = read_bounded(request)
    with closing(Publisher(home / "publisher")) as publisher:
        issuer_key = publisher.read_issuer_key(passphrase.read())
        activated = activating.activate_machine(publisher, data, issuer_key, now_ms=wall_clock_ms())
    write_atomically(path, activated.activation.to_json(), mode=PUBLIC)
    key, cmid = activated.key, activated.activation.cmid
    how = "again, which costs nothing" if activated.again else f"as number {activated.machines}"
    out.result(
        {
            "file": path,
            "cmid": cmid,
            "sku": activated.activation.sku,
            "again": activated.again,
            "key_last_five": key.secrets.last_five,
            "machines": activated.machines,
            "machines_allowed": key.machines,
        },
        f"Activated machine {cmid} {how}: {path}\n"
        f"Multiple-activation key …{key.secrets.last_five}: {activated.machines} of {key.machines} machines.\n"
        f"Next, on the machine: kms-fast client apply {path.name}",
    )
