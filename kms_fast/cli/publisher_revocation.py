"""``kms-fast publisher revoke``: host certificates that count no more."""

import uuid
from contextlib import closing
from pathlib import Path

import click

from kms_fast.cli.output import Output, following, home_option, json_option
from kms_fast.cli.passphrase import Passphrase, passphrase_options
from kms_fast.cli.publisher_keys import COUNT
from kms_fast.clock import wall_clock_ms
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.revoking import find_serials_of_host, find_serials_of_key
from kms_fast.publisher.revoking import revoke as revoke_serials


@click.command
@click.argument("serial", type=COUNT, required=False)
@click.option("--host", type=click.UUID, metavar="ID", help="All certificates of this host.")
@click.option("--key", metavar="LAST5", help="All certificates of the hosts that this host key has activated.")
@home_option
@passphrase_options
@json_option
def revoke(
    serial: int | None, host: uuid.UUID | None, key: str | None, home: Path, passphrase: Passphrase, out: Output
) -> None:
    """Revoke the host certificate with SERIAL, those of a host, or those of a stolen host key.

    The next export carries the new revocation list. A host whose certificate is revoked is certified again with another
    private key only. --host and --key leave out what has ended.

    \b
    Examples:
      kms-fast publisher revoke 3
      kms-fast publisher revoke --host 52fdfc07-2182-454f-963f-5f0f9a621d72
      kms-fast publisher revoke --key 7Q2XM
    """
    if sum(given is not None for given in (serial, host, key)) != 1:
        raise click.UsageError("Give one of SERIAL, --host and --key.")
    now_ms = wall_clock_ms()
    with closing(Publisher(home / "publisher")) as publisher:
        if serial is not None:
            serials = [serial]
        elif host is not None:
            serials = find_serials_of_host(publisher, host.bytes, now_ms)
        else:
            serials = find_serials_of_key(publisher, publisher.records.name_host_key(key or ""), now_ms)
        revocations = revoke_serials(publisher, serials, passphrase.read(), now_ms=now_ms)
    what = f"certificate {serials[0]}" if len(serials) == 1 else f"certificates {', '.join(map(str, serials))}"
    out.result(
        {"serials": serials, "number": revocations.number, "revoked": list(revocations.serials)},
        f"Revoked {what}: revocation list {revocations.number} has {len(revocations.serials)} serials.\n"
        f"Next: {following('kms-fast publisher export', 'key_file', 'passphrase_file')}\n"
        "Hosts take publisher.json from the activation service, or with an answer.",
    )
