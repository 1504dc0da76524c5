"""The address of a publisher's activation service, as catalogs, publisher files and settings hold it."""

import ipaddress
from urllib.parse import urlsplit


def check_activation_url(url: str) -> None:
    """Check the form of an address: ``https://``, or ``http://`` for a service on this machine.

    Raises:
        ValueError: anything else.
    """
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("https", "http") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    # urlsplit takes spaces, and leaves out line ends.
    if not is_address or " " in url or not url.isprintable():
        raise ValueError(f"{url!r} is not the address of an activation service: write https://NAME")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError(f"{url} is not encrypted: http:// is for a service on this machine only")


def is_loopback(host: str) -> bool:
    """Whether this name or address is of the machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
