"""Settings of a host: names, defaults, bounds and what each is for; kms_fast.cli.settings reads them.

A field that has a unit carries it as a suffix (``retention_s``); the option users write has none
(``retention = "30d"``).
"""

import re
import typing
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Meta

from kms_fast.model.activation_url import check_activation_url
from kms_fast.model.names import check_name, parse_listen_address, parse_published_domain, parse_server
from kms_fast.model.policy import JITTER, LONGEST_INTERVAL_MIN, SHORTEST_INTERVAL_MIN
from kms_fast.model.quantities import UNITS, format_quantity, parse_quantity

DEFAULT_PORT = 1688
# What a running host keeps until its next start.
FIXED_SETTINGS = ("listen", "workers", "store", "web")

_DAY_S = 86_400
_SESSION_ATTRS = frozenset({"any", "prefer-standby", "primary", "read-only", "read-write", "standby"})

_IntervalMin = Annotated[int, Meta(ge=SHORTEST_INTERVAL_MIN, le=LONGEST_INTERVAL_MIN)]


class ConflictingSettings(ValueError):
    """Settings that fight each other; ``names`` are their options."""

    def __init__(self, names: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.names = names


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an administrator may set; thresholds and validity are the publisher's and not here.

    Raises:
        ConflictingSettings: two settings fight each other.
    """

    listen: Annotated[
        tuple[str, ...],
        Meta(
            min_length=1,
            extra={
                "metavar": "ADDR:PORT",
                "many": "addresses",
                "check": lambda addresses: [parse_listen_address(address) for address in addresses],
            },
            description="Addresses to listen on: IPv4:PORT, [IPv6]:PORT or NAME:PORT; port 0 takes a free one.",
        ),
    ] = ("0.0.0.0:1688", "[::]:1688")
    workers: Annotated[int, Meta(ge=1, le=256, description="Processes that serve side by side.")] = 1
    store: Annotated[
        str | None,
        Meta(
            description="PostgreSQL URL of counts and inventory for several hosts; not set: SQLite files in the home.",
            examples=["postgresql://kms@db.example/kms"],
            extra={"show": lambda url: mask_password(url), "check": lambda url: check_store_url(url)},
        ),
    ] = None
    web: Annotated[
        str | None,
        Meta(
            description="ADDR:PORT that serves /healthz and /readyz; not set: off.",
            examples=["127.0.0.1:8080"],
            extra={"check": parse_listen_address},
        ),
    ] = None
    timeout_graceful_shutdown_s: Annotated[
        int, Meta(ge=1, le=_DAY_S, description="How long workers, and then the recorder, may take to drain.")
    ] = 30
    keep_records_s: Annotated[
        Annotated[int, Meta(ge=_DAY_S)] | None,
        Meta(
            description="How long the ledger keeps the records of machines; not set: for ever. Headers stay.",
            examples=["90d"],
        ),
    ] = None
    segment_size_bytes: Annotated[
        int, Meta(ge=1 << 20, description="Size at which a worker begins the next segment of the ledger.")
    ] = 1 << 30
    auto_renew: Annotated[
        bool,
        Meta(
            description="Whether the host takes publisher files and, when less than 60 days of its certificate are "
            "left, its next certificate from the publisher's activation service by itself."
        ),
    ] = True
    activation_url: Annotated[
        str | None,
        Meta(
            description="Address of the publisher's activation service; not set: as the publisher file says.",
            examples=["https://activation.example"],
            extra={"check": check_activation_url},
        ),
    ] = None
    activation_ca: Annotated[
        str | None,
        Meta(
            description="PEM file of an authority to trust for that service's TLS certificate, beside the system's.",
            examples=["/etc/kms-fast/authority.pem"],
            extra={"metavar": "FILE"},
        ),
    ] = None
    retention_s: Annotated[
        int, Meta(ge=60, le=365 * _DAY_S, description="How long a machine counts after its last valid request.")
    ] = 30 * _DAY_S
    activation_interval_min: Annotated[
        _IntervalMin | None,
        Meta(
            description="How often a machine without an activation asks again; not set: as the catalog says.",
            examples=["2h"],
        ),
    ] = None
    renewal_interval_min: Annotated[
        _IntervalMin | None,
        Meta(description="How often an activated machine renews; not set: as the catalog says.", examples=["7d"]),
    ] = None
    max_connections: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="Connections open at once in a worker; one more is closed and counted."),
    ] = 20_000
    idle_timeout_s: Annotated[
        int, Meta(ge=1, le=_DAY_S, description="A connection that sends nothing for this long is closed.")
    ] = 60
    max_waiting: Annotated[
        int,
        Meta(
            ge=1,
            le=1 << 20,
            description="Requests that may wait for a batch in a worker; further ones are answered SERVER_BUSY.",
        ),
    ] = 16_384
    batch_spacing_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000,
            description="Least time between two batches under load, up to twice as long while few requests come; "
            "a lone request never waits for it.",
        ),
    ] = 1
    low_water_bytes: Annotated[
        int, Meta(ge=0, description="Free space on the ledger's disk below which requests are answered SERVER_BUSY.")
    ] = 64 << 20
    dns_domain: Annotated[
        tuple[str, ...],
        Meta(
            extra={
                "metavar": "DOMAIN[:PRIORITY:WEIGHT]",
                "many": "domains",
                "check": lambda domains: [parse_published_domain(domain) for domain in domains],
            },
            description="Domains in which this host publishes its SRV record, each as DOMAIN or "
            "DOMAIN:PRIORITY:WEIGHT; without one, serve publishes nothing.",
        ),
    ] = ()
    dns_server: Annotated[
        str | None,
        Meta(
            description="Name server that takes updates, ADDR or ADDR:PORT; not set: the primary that the zone names.",
            examples=["192.0.2.53"],
            extra={"metavar": "ADDR[:PORT]", "check": parse_server},
        ),
    ] = None
    dns_key: Annotated[
        str | None,
        Meta(
            description="File of the TSIG key for updates, as tsig-keygen or keymgr writes it; not set: unsigned.",
            examples=["/etc/kms-fast/dns.key"],
            extra={"metavar": "FILE"},
        ),
    ] = None
    dns_target: Annotated[
        str | None,
        Meta(
            description="Name by which clients reach this host; not set: the machine's full name.",
            examples=["kms.example.com"],
            extra={"metavar": "NAME", "check": check_name},
        ),
    ] = None
    dns_port: Annotated[
        Annotated[int, Meta(ge=1, le=65_535)] | None,
        Meta(
            description="Port to publish; not set: the one this host listens on.",
            examples=[1688],
            extra={"metavar": "PORT"},
        ),
    ] = None
    dns_ttl_s: Annotated[
        int, Meta(ge=30, le=7 * _DAY_S, description="How long name servers and clients may remember the record.")
    ] = 3_600
    dns_share: Annotated[
        bool, Meta(description="Whether to publish beside a host of the same service that is no kms_fast host.")
    ] = False
    record_names: Annotated[bool, Meta(description="Whether the ledger keeps the machines' names.")] = True
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least important messages to log.")
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"], Meta(description="How log lines are written: for people, or one JSON object each.")
    ] = "text"
    log_file: Annotated[
        str | None,
        Meta(
            description="File to log to, made anew when it was moved away; not set: stderr.",
            examples=["/var/log/kms-fast/kms-fast.log"],
            extra={"metavar": "FILE"},
        ),
    ] = None

    def __post_init__(self) -> None:
        renewal_min = self.renewal_interval_min
        if renewal_min is not None and renewal_min * 60 * (1 + JITTER) > self.retention_s / 2:
            raise ConflictingSettings(
                ("renewal_interval", "retention"),
                f"renewal_interval {format_quantity(renewal_min, 'min')} is too long for retention "
                f"{format_quantity(self.retention_s, 's')}: machines would drop out of the count before they renew "
                "(renewal_interval × 1.1 must be at most half of retention)",
            )

    def __repr__(self) -> str:
        shown = (f"{option.field}={option.show(getattr(self, option.field))}" for option in host_options().values())
        return f"HostSettings({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class Option:
    """One setting as users write it. ``unit`` is the field's suffix, ``type`` what msgspec checks a value against,
    ``example`` a value of one that has no default.
    """

    name: str
    field: str
    unit: str | None
    type: Any
    default: Any
    description: str
    example: Any

    @property
    def metavar(self) -> str:
        """What stands for the value in --help."""
        if "metavar" in self._extra:
            return str(self._extra["metavar"])
        if self.unit is not None:
            return "SIZE" if self.unit == "bytes" else "TIME"
        return "NUMBER" if isinstance(self.default, int) else "TEXT"

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that may stand here; empty where it is not a choice of words."""
        bare = typing.get_args(self.type)[0]
        return typing.get_args(bare) if typing.get_origin(bare) is Literal else ()

    @property
    def is_secret(self) -> bool:
        """Whether a value may hold a password."""
        return "show" in self._extra

    def parse(self, value: Any, *, strict: bool) -> Any:
        """A written value as the field's; ``strict`` is off where everything is text (environment, flags).

        Raises:
            ValueError: not of the type, out of bounds, or without its unit; it says what is allowed.
        """
        if self.unit is not None:
            try:
                value = parse_quantity(value, self.unit)
            except ValueError as error:
                raise ValueError(f"{error}, {self._bounds}") from None
        try:
            parsed = msgspec.convert(value, self.type, strict=strict)
        except msgspec.ValidationError:
            raise ValueError(f"expected {self._allowed}") from None
        check = self._extra.get("check")
        if check is not None and parsed is not None:
            check(parsed)
        return parsed

    def format(self, value: Any) -> str:
        """A field's value as it is written in the file."""
        if self.unit is not None and value is not None:
            value = format_quantity(value, self.unit)
        return msgspec.json.encode(value).decode()

    def show(self, value: Any) -> str:
        """The value as people may see it: as `format` writes it, without passwords."""
        mask = self._extra.get("show")
        return self.format(mask(value) if mask and value is not None else value)

    @property
    def _extra(self) -> dict[str, Any]:
        return typing.get_args(self.type)[-1].extra or {}

    @property
    def _bounds(self) -> str:
        least, most = (
            bound if bound is None or self.unit is None else format_quantity(bound, self.unit)
            for bound in _find_bounds(self.type)
        )
        return f"at least {least}" if most is None else f"from {least} to {most}"

    @property
    def _allowed(self) -> str:
        """What may stand here, for who wrote something else."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, tuple):
            return f"a list of {self._extra['many']}"
        if self.unit is not None:
            return self._bounds
        # One that need not be set has no default to tell its type by.
        is_number = isinstance(self.default, int) or _find_bounds(self.type) != (None, None)
        return f"a whole number {self._bounds}" if is_number else f'a text such as "{self.example}"'


@cache
def host_options() -> dict[str, Option]:
    """Every option by name, in the order of the fields."""
    hints = typing.get_type_hints(HostSettings, include_extras=True)
    options = {}
    for field in msgspec.structs.fields(HostSettings):
        stem, _, suffix = field.name.rpartition("_")
        unit = suffix if suffix in UNITS else None
        name = stem if unit else field.name
        meta = hints[field.name].__metadata__[-1]
        example = meta.examples[0] if meta.examples else None
        options[name] = Option(name, field.name, unit, hints[field.name], field.default, meta.description, example)
    return options


def _find_bounds(annotation: Any) -> tuple[Any, Any]:
    """The least and the greatest value that an annotation allows; None where it says none."""
    for part in typing.get_args(annotation):
        if isinstance(part, Meta) and part.ge is not None:
            return part.ge, part.le
        if (found := _find_bounds(part)) != (None, None):
            return found
    return None, None


def check_store_url(url: str) -> None:
    """Check the form of a store's URL.

    Raises:
        ValueError: not a PostgreSQL URL, one that splits within its password, or one with a part that no server can
            have; never tells any of it.
    """
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("not a PostgreSQL URL: write postgresql://USER@HOST:PORT/DATABASE")
    # Of `u:pa/ss@host` the rules of URLs make the host `u`, and of `u:p@ss@host` others make the host `ss@host`.
    if url.count("@") > 1 or "@" in urlsplit(url).path or "#" in url:
        raise ValueError("a special character in user or password: write it as %40 (@), %2F (/), %23 (#), …")
    parts = urlsplit(url)
    options = parse_qs(parts.query)
    # One for each of several servers; colons in the brackets of an IPv6 address begin none.
    ports = [host.rpartition("]")[2].partition(":")[2] for host in parts.netloc.rpartition("@")[2].split(",")]
    ports += options.get("port", [""])[-1].split(",")
    if not all(_is_port(port) for port in ports if port):
        raise ValueError("not a PostgreSQL URL: the port is a number from 1 to 65535, as in USER@HOST:5432/DATABASE")
    if not _SESSION_ATTRS.issuperset(options.get("target_session_attrs", ())):
        raise ValueError(f"not a PostgreSQL URL: target_session_attrs is one of {', '.join(sorted(_SESSION_ATTRS))}")


def _is_port(text: str) -> bool:
    return re.fullmatch("[0-9]{1,5}", text) is not None and 1 <= int(text) <= 65_535


def mask_password(url: str) -> str:
    """A URL with ``***`` for its password, also when it is malformed."""
    url = re.sub(r"(?<=://)([^:/@]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"((?:ssl)?password=)[^&]*", r"\1***", url)
