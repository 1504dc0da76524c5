"""``kms-fast publisher certify``: from a host request to a host answer, each in whichever form it travels."""

import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from kms_fast.cli.exchange import Forms, forms_options, read_request
from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.cli.passphrase import Passphrase, passphrase_options
from kms_fast.clock import wall_clock_ms
from kms_fast.files import PUBLIC, write_atomically
from kms_fast.model import policy
from kms_fast.model.certificate import MAX_ISSUER_DAYS
from kms_fast.publisher.issuing import Certified, certify
from kms_fast.publisher.publisher import Publisher

# No certificate outlives that of its issuer.
days_option = click.option(
    "--days",
    type=click.IntRange(1, MAX_ISSUER_DAYS),
    default=policy.HOST_CERTIFICATE_DAYS,
    show_default=True,
    help="Validity of a host's certificate.",
)


@click.command("certify")
@click.argument("request", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@forms_options("answer")
@click.option(
    "--catalog",
    "catalog_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the catalog file, for a host that gets text or QR codes and lacks the catalog.",
)
@days_option
@home_option
@passphrase_options
@json_option
def certify_host(
    request: Path,
    forms: Forms,
    catalog_path: Path | None,
    days: int,
    home: Path,
    passphrase: Passphrase,
    out: Output,
) -> None:
    """Check a host REQUEST and answer it with a certificate, the sealed catalog and publisher.json.

    REQUEST is a file of whichever form, or - for what is pasted: a block of text, or what scanned codes say. As text or
    QR code the answer has the certificate only, and names the catalog and publisher.json. A host that lacks either gets
    both as one file, --catalog, which serves all hosts of a host key until either changes.

    A host that is certified again with the same private key takes nothing from its host key.

    \b
    Examples:
      kms-fast publisher certify host.request --out host.answer
      kms-fast publisher certify - --text - --catalog host.catalog
      kms-fast publisher certify host.request --qr
    """
    data = read_request(request, out)
    with closing(Publisher(home / "publisher")) as publisher:
        issuer_key = publisher.read_issuer_key(passphrase.read())
        certified = certify(publisher, data, issuer_key, now_ms=wall_clock_ms(), days=days)
    fields = forms.write(certified.answer, certified.compact.pack())
    if catalog_path:
        write_atomically(catalog_path, certified.catalog_file, mode=PUBLIC)
        fields["catalog_file"] = catalog_path
    forms.show(out, fields | _list_fields(certified), _describe(certified, forms, fields))


def _list_fields(certified: Certified) -> dict[str, Any]:
    compact = certified.compact
    return {
        "serial": certified.certificate.serial,
        "host_id": uuid.UUID(bytes=certified.certificate.host_id),
        "not_after": policy.format_time(certified.certificate.not_after_ms),
        "renewal": certified.renewal,
        "catalog": compact.catalog_number,
        "publisher_file": compact.publisher_number,
        "keys": _describe_uses(certified),
    }


def _describe(certified: Certified, forms: Forms, fields: dict[str, Any]) -> str:
    certificate, compact = certified.certificate, certified.compact
    host, until = uuid.UUID(bytes=certificate.host_id), policy.format_time(certificate.not_after_ms)
    lines = [f"Certified host {host}: serial {certificate.serial}, valid until {until}{forms.list_files(fields)}"]
    lines += [
        f"Host key …{use['last_five']}: {use['hosts']} of {use['hosts_allowed']} hosts, this one "
        f"{use['activations']} of {use['activations_allowed']} times."
        for use in _describe_uses(certified)
    ]
    following = f"Next, on the host: kms-fast host apply {forms.name}"
    if not forms.out:
        named = f"It goes with catalog {compact.catalog_number} and publisher file {compact.publisher_number}"
        if "catalog_file" in fields:
            lines.append(f"{named}: a host that lacks either needs {fields['catalog_file']} too.")
            following += f" --catalog {fields['catalog_file'].name}"
        else:
            lines.append(f"{named}: for a host that lacks either, run this again with --catalog FILE.")
    return "\n".join([*lines, following])


def _describe_uses(certified: Certified) -> list[dict[str, int | str]]:
    return [
        {
            "last_five": key.secrets.last_five,
            "hosts": use.hosts,
            "hosts_allowed": key.entitlement.hosts,
            "activations": use.activations_of_host,
            "activations_allowed": key.entitlement.activations,
        }
        for key, use in certified.uses
    ]
