"""Host addresses as users write them: a name, an IPv4 address or an IPv6 address in brackets, and an optional port."""

import ipaddress
import re
from dataclasses import dataclass

from kms_fast.errors import ConfigurationError
from kms_fast.model.names import format_address, is_name
from kms_fast.model.settings import DEFAULT_PORT

_ADDRESS = re.compile(r"(?:\[(?P<bracketed>[^\[\]]*)\]|(?P<plain>[^\[\]:]*))(?::(?P<port>[^:]*))?")


@dataclass(frozen=True, slots=True)
class HostAddress:
    """A host to ask: a name or a literal address without brackets, and a TCP port."""

    name: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        return format_address(self.name, self.port)


def parse_address(text: str) -> HostAddress:
    """The address that ``text`` spells; port 1688 when it names none. Raises `ConfigurationError` for anything else."""
    text = text.strip()
    if text.count(":") > 1 and "[" not in text:
        return HostAddress(_read_ipv6(text, text))
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise _invalid(text, "it is not a name or address, with a colon and a port at most")
    port = _read_port(match["port"], text)
    if match["bracketed"] is not None:
        return HostAddress(_read_ipv6(match["bracketed"], text), port)
    name = match["plain"].removesuffix(".")
    if re.fullmatch(r"[0-9.]+", name):
        try:
            return HostAddress(str(ipaddress.IPv4Address(name)), port)
        except ValueError:
            raise _invalid(text, f"{name!r} is not an IPv4 address") from None
    if not is_name(name):
        raise _invalid(text, f"{name!r} is not a host name")
    return HostAddress(name, port)


def parse_domain(text: str) -> str:
    """A DNS domain as it is asked for, without a final dot. Raises `ConfigurationError` for what is none."""
    domain = text.strip().removesuffix(".")
    if not is_name(domain):
        raise ConfigurationError(f"{text!r} is not a DNS domain. Write corp.example.com.", domain=text)
    return domain


def _read_ipv6(text: str, whole: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise _invalid(whole, f"{text!r} is not an IPv6 address") from None


def _read_port(text: str | None, whole: str) -> int:
    if text is None:
        return DEFAULT_PORT
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise _invalid(whole, f"{text!r} is not a port (1 to 65535)")
    return int(text)


def _invalid(text: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"The host {text!r} cannot be read: {why}. Write kms.example.com, 192.0.2.7:1688 or [2001:db8::7]:1688.",
        host=text,
    )
