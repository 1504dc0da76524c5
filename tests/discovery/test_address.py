"""Host addresses as users write them."""

import pytest

from kms_fast.discovery.address import HostAddress, parse_address
from kms_fast.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "name", "port"),
    [
        ("kms.example.com", "kms.example.com", 1688),
        (" kms.example.com. ", "kms.example.com", 1688),
        ("kms", "kms", 1688),
        ("kms_1.example:1", "kms_1.example", 1),
        ("192.0.2.7", "192.0.2.7", 1688),
        ("192.0.2.7:65535", "192.0.2.7", 65535),
        ("[2001:DB8::7]", "2001:db8::7", 1688),
        ("[2001:db8::7]:1700", "2001:db8::7", 1700),
        ("2001:db8::7", "2001:db8::7", 1688),
    ],
)
def test_addresses_are_read(text: str, name: str, port: int) -> None:
    address = parse_address(text)
    assert address == HostAddress(name, port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "''"),
        ("kms:", "not a port"),
        ("kms:0", "not a port"),
        ("kms:65536", "not a port"),
        ("kms:1x", "not a port"),
        ("kms:１", "not a port"),
        (":1688", "not a host name"),
        ("-kms", "not a host name"),
        ("kms example", "not a host name"),
        ("kms..example", "not a host name"),
        ("x" * 64, "not a host name"),
        ("192.0.2.256", "not an IPv4 address"),
        ("192.0.2", "not an IPv4 address"),
        ("[2001:db8::7", "not a name or address"),
        ("[192.0.2.7]", "not an IPv6 address"),
        ("2001:db8::7:x", "not an IPv6 address"),
        ("http://kms", "not a"),
    ],
)
def test_what_is_no_address_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        parse_address(text)
    assert wrong in caught.value.message


def test_an_address_is_written_as_users_write_it() -> None:
    assert str(HostAddress("2001:db8::7", 1)) == "[2001:db8::7]:1"
