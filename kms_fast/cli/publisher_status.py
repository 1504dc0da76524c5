"""``kms-fast publisher status | log``: what a publisher has, and what was asked of it."""

import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.cli.publisher_keys import COUNT
from kms_fast.cli.times import TimeType
from kms_fast.clock import wall_clock_ms
from kms_fast.errors import KmsFastError
from kms_fast.model import policy
from kms_fast.model.catalog_toml import PublisherCatalog
from kms_fast.publisher.exporting import look_at_exported, read_exported
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.records import RequestRecord
from kms_fast.results import find_result


@click.command
@home_option
@json_option
def status(home: Path, out: Output) -> None:
    """Show name, issuer, numbers of the exported files, and how many keys, hosts and certificates there are.

    \b
    Examples:
      kms-fast publisher status
    """
    now_ms = wall_clock_ms()
    with closing(Publisher(home / "publisher")) as publisher:
        catalog, issuer, records = publisher.read_catalog(), publisher.issuer, publisher.records
        keys, certificates = records.list_host_keys(), records.list_certificates()
        exported, due = look_at_exported(publisher), _find_due(publisher, catalog)
        days_left = policy.days_until(issuer.not_after_ms, now_ms)
        shown = {
            "name": catalog.name,
            "publisher_id": catalog.publisher_id,
            "activation_url": catalog.activation_url or None,
            "root_key_here": (publisher.folder / "root.key").exists(),
            "issuer_until": policy.format_time(issuer.not_after_ms),
            "issuer_days_left": days_left,
            "publisher_file": exported.number if exported else None,
            "export_due": due is not None,
            "revocation_list": records.newest_revocation_list()[0],
            "families": len(catalog.families),
            "products": len(catalog.skus),
            "host_keys": len(keys),
            "host_keys_disabled": sum(key.disabled_ms is not None for key in keys),
            "activation_keys": len(records.list_activation_keys()),
            "hosts": len({record.certificate.host_id for record in certificates}),
            "certificates": len(certificates),
            "revoked": sum(record.revoked_ms is not None for record in certificates),
        }
    if due is not None:
        out.warning(due)
    if days_left < policy.ISSUER_WARNING_DAYS:
        out.warning(
            f"The issuer's certificate ends in {days_left} days, and no host's certificate lasts longer."
            if days_left >= 0
            else "The issuer's certificate has ended: no host can be certified."
        )
    out.result(shown)


def _find_due(publisher: Publisher, catalog: PublisherCatalog) -> str | None:
    """Why the publisher file is to be exported before it may be given out, None when it may."""
    try:
        read_exported(publisher, catalog)
    except KmsFastError as error:
        if error.result.name != "EXPORT_DUE":
            raise
        return error.message
    return None


@click.command
@click.option("--limit", type=COUNT, default=100, show_default=True, help="How many rows at most.")
@click.option("--key", metavar="LAST5", help="Only requests made with this key.")
@click.option("--peer", metavar="ADDRESS", default="", help="Only requests from this address.")
@click.option("--refused/--granted", default=None, help="Only requests that were refused, or granted.")
@click.option("--since", "since_ms", type=TimeType(), default=0, help="Only what was asked then or later.")
@home_option
@json_option
def log(limit: int, key: str | None, peer: str, refused: bool | None, since_ms: int, home: Path, out: Output) -> None:
    """List requests for certificates and activations of machines, newest first, by the activation service or by a file.

    --since takes a date or time (UTC), or how long ago it was.

    \b
    Examples:
      kms-fast publisher log --limit 20
      kms-fast publisher log --refused --since 7d
      kms-fast publisher log --key 7Q2XM --json
    """
    with closing(Publisher(home / "publisher")) as publisher:
        last_five = publisher.records.name_key(key).secrets.last_five if key is not None else ""
        rows = publisher.records.list_requests(
            limit=limit, key=last_five, peer=peer, refused=refused, since_ms=since_ms
        )
    listed = list(map(_describe_request, rows))
    out.result({"requests": listed}, "\n".join(map(_show_request, listed)) or "No request fits.")


def _describe_request(row: RequestRecord) -> dict[str, Any]:
    return {
        "time": policy.format_time(row.time_ms),
        "peer": row.peer or None,
        "keys": row.keys.split(", ") if row.keys else [],
        "installation_id": uuid.UUID(bytes=row.installation_id) if row.installation_id else None,
        "public_key_sha256": row.public_key_hash,
        "result": f"0x{row.result:08X}",
        "name": find_result(row.result).name if row.result else "GRANTED",
        "serial": row.serial,
    }


def _show_request(row: dict[str, Any]) -> str:
    decided = f"certificate {row['serial']}" if row["serial"] is not None else row["name"]
    keys = ", ".join(f"…{key}" if len(key) == 5 else key for key in row["keys"]) or "no key"
    return f"{row['time']}  {row['peer'] or 'file':15}  {keys}  installation {row['installation_id'] or '-'}  {decided}"
