"""Names and addresses as users write them: where to listen, domains to publish in, a host's full name, name servers."""

import re
from dataclasses import dataclass
from typing import Final

DNS_PORT: Final = 53

_NAME_SIZE: Final = 253
# Underscores are no part of host names (RFC 1123 section 2.1), but networks have them.
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True)
class PublishedDomain:
    """A domain to publish in, and the record's priority and weight there (RFC 2782)."""

    name: str
    priority: int = 0
    weight: int = 0


def format_address(host: str, port: int) -> str:
    """A host and its port as users write them: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_listen_address(text: str) -> tuple[str, int]:
    """``ADDR:PORT`` as host and port; an IPv6 address stands in brackets, which are taken off.

    Raises:
        ValueError: no port, a port out of range, or an IPv6 address without brackets.
    """
    match = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\s:\[\]]+))(?::(?P<port>\d{1,5}))?", text)
    if match is None:
        raise ValueError(f"{text!r} is not an address: write IPv4:PORT, [IPv6]:PORT or NAME:PORT")
    if match["port"] is None:
        written = f"ADDRESS:{text}" if text.isdigit() else f"{text}:PORT"
        raise ValueError(f"{text!r} is not an address and a port: write {written}")
    port = int(match["port"])
    if port > 65_535:
        raise ValueError(f"{text!r}: a port is at most 65535")
    return match["v6"] or match["host"], port


def is_name(text: str) -> bool:
    """Whether a text without a final dot has the form of a name in DNS."""
    return len(text) <= _NAME_SIZE and all(map(_LABEL.fullmatch, text.split(".")))


def parse_published_domain(text: str) -> PublishedDomain:
    """``DOMAIN`` or ``DOMAIN:PRIORITY:WEIGHT``.

    Raises:
        ValueError: something else, or a number above 65535.
    """
    match = re.fullmatch(r"(?P<name>[^:]*)(?::(?P<priority>\d{1,5}):(?P<weight>\d{1,5}))?", text)
    if match is None:
        raise ValueError(f"{text!r} is not a domain: write DOMAIN or DOMAIN:PRIORITY:WEIGHT")
    check_name(match["name"], "example.com")
    priority, weight = int(match["priority"] or 0), int(match["weight"] or 0)
    if max(priority, weight) > 65_535:
        raise ValueError(f"{text!r}: priority and weight are at most 65535")
    return PublishedDomain(match["name"].rstrip(".").lower(), priority, weight)


def check_name(name: str, example: str = "kms.example.com") -> None:
    """Check the form of a full domain name.

    Raises:
        ValueError: a name of one label, an address, or none at all.
    """
    bare = name.removesuffix(".")
    if "." not in bare or bare.rpartition(".")[2].isdigit() or not is_name(bare):
        raise ValueError(f"{name!r} is not a full name such as {example}")


def parse_server(text: str) -> tuple[str, int]:
    """A name server's ``ADDR`` or ``ADDR:PORT`` as host and port, 53 when it has none; IPv6 in brackets or alone.

    Raises:
        ValueError: something else, or a port out of range.
    """
    match = re.fullmatch(
        r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]]+))(?::(?P<port>\d{1,5}))?|(?P<bare>[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)",
        text,
    )
    if match is None or int(match["port"] or DNS_PORT) not in range(1, 65_536):
        raise ValueError(f"{text!r} is not a name server: write ADDR or ADDR:PORT")
    return match["v6"] or match["host"] or match["bare"], int(match["port"] or DNS_PORT)
