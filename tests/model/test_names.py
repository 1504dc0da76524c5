"""Addresses, domains, names and name servers as users write them."""

import pytest

from kms_fast.model.names import PublishedDomain, check_name, parse_listen_address, parse_published_domain, parse_server


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("example.com", PublishedDomain("example.com", 0, 0)),
        ("Example.COM.", PublishedDomain("example.com", 0, 0)),
        ("lab.example.com:10:65535", PublishedDomain("lab.example.com", 10, 65_535)),
    ],
)
def test_domains(text: str, domain: PublishedDomain) -> None:
    assert parse_published_domain(text) == domain


@pytest.mark.parametrize(
    "text", ["", "com", "example.com:1", "a.b:1:2:3", "a.b:x:1", "a.b:65536:0", "a..b", "192.0.2.1"]
)
def test_what_is_no_domain(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a|at most"):
        parse_published_domain(text)


@pytest.mark.parametrize("text", ["kms", "192.0.2.1", "[::1]", "kms.example.com:1688", "a b.example", f"{'a' * 64}.b"])
def test_what_is_no_full_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a full name such as"):
        check_name(text)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("192.0.2.53:5353", ("192.0.2.53", 5353)),
        ("ns1.example.com", ("ns1.example.com", 53)),
        ("[2001:db8::53]", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
    ],
)
def test_name_servers(text: str, server: tuple[str, int]) -> None:
    assert parse_server(text) == server


@pytest.mark.parametrize("text", ["", "a b", "a:0", "a:65536", "a:b", "[::1", "[x]"])
def test_what_is_no_name_server(text: str) -> None:
    with pytest.raises(ValueError, match="not a name server"):
        parse_server(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:1688", ("::1", 1688)),
        ("[fe80::1%eth0]:1688", ("fe80::1%eth0", 1688)),
        ("kms.example.org:65535", ("kms.example.org", 65535)),
    ],
)
def test_addresses_to_listen_on(text: str, address: tuple[str, int]) -> None:
    assert parse_listen_address(text) == address


@pytest.mark.parametrize("text", ["", ":1688", "::1:1688", "[::1]", "host", "host:65536", "host:-1", "host:a", "a b:1"])
def test_addresses_to_listen_on_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|port"):
        parse_listen_address(text)
