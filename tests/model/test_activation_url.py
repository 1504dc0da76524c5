"""Addresses of activation services: which are taken."""

import pytest

from kms_fast.model.activation_url import check_activation_url


@pytest.mark.parametrize(
    "url",
    [
        "https://activation.example",
        "HTTPS://activation.example:8443/kms",
        "https://[2001:db8::1]:8443",
        "http://localhost:8080",
        "http://127.0.0.1",
        "http://[::1]:80",
    ],
)
def test_encrypted_or_on_this_machine(url: str) -> None:
    check_activation_url(url)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://activation.example", "not encrypted"),
        ("http://192.0.2.1", "not encrypted"),
        ("activation.example", "write https://NAME"),
        ("ftp://activation.example", "write https://NAME"),
        ("https://", "write https://NAME"),
        ("https://:8443", "write https://NAME"),
        ("https://[bad", "write https://NAME"),
        ("https://activation.example:port", "write https://NAME"),
        ("https://activation.example:65536", "write https://NAME"),
        ("https://a b/", "write https://NAME"),
        ("https://activation.example/a b", "write https://NAME"),
        (" https://activation.example", "write https://NAME"),
        ("https://activation.example\n", "write https://NAME"),
        ("https://activation\u200b.example", "write https://NAME"),
        ("", "write https://NAME"),
    ],
)
def test_anything_else_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_activation_url(url)
