"""``kms-fast publisher customers``: what each customer has."""

import uuid
from collections import defaultdict
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from kms_fast.cli.output import Output, following, home_option, json_option
from kms_fast.clock import wall_clock_ms
from kms_fast.model import policy
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.records import CertificateRecord


@dataclass
class Customer:
    """What a customer has. ``machines``: how many its multiple-activation keys have activated."""

    keys: list[str] = field(default_factory=list)
    activation_keys: list[str] = field(default_factory=list)
    machines: int = 0
    certificates: list[dict[str, Any]] = field(default_factory=list)

    @property
    def hosts(self) -> int:
        """How many hosts its certificates are for."""
        return len({row["host_id"] for row in self.certificates})


@click.command
@home_option
@json_option
def customers(home: Path, out: Output) -> None:
    """List customers by their ID: keys, hosts and certificates with their ends, and machines that were activated.

    \b
    Examples:
      kms-fast publisher customers
    """
    now_ms = wall_clock_ms()
    with closing(Publisher(home / "publisher")) as publisher:
        found: defaultdict[int, Customer] = defaultdict(Customer)
        for key in publisher.records.list_host_keys():
            found[key.entitlement.customer_id].keys.append(key.secrets.last_five)
        for of_machines in publisher.records.list_activation_keys():
            one = found[of_machines.customer_id]
            one.activation_keys.append(of_machines.secrets.last_five)
            one.machines += publisher.records.count_machines(of_machines.secrets.key_id)
        for record in publisher.records.list_certificates():
            found[record.certificate.customer_id].certificates.append(_describe_certificate(record, now_ms))
    text = "\n".join(_show_customer(number, one) for number, one in sorted(found.items()))
    listed = [{"customer_id": number, **asdict(one), "hosts": one.hosts} for number, one in sorted(found.items())]
    out.result({"customers": listed}, text or f"No key was made yet: {following('kms-fast publisher host-key')}")


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


def _show_customer(number: int, one: Customer) -> str:
    lines = [f"customer {number}: host keys {_list_keys(one.keys)}; hosts: {one.hosts}"]
    if one.activation_keys:
        lines.append(f"  multiple-activation keys {_list_keys(one.activation_keys)}; machines: {one.machines}")
    lines += [
        f"  certificate {row['serial']} of host {row['host_id']}: {row['state']}, until {row['not_after']}"
        for row in one.certificates
    ]
    return "\n".join(lines)


def _list_keys(keys: list[str]) -> str:
    return ", ".join(f"…{last_five}" for last_five in keys) or "none"
