"""TSIG keys (RFC 8945) from the files that name servers come with: bind's ``key {}`` and knot's ``key:`` list."""

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final

import dns.exception
import dns.name
import dns.tsig

from kms_fast.errors import ConfigurationError

# RFC 8945 section 6 without MD5, which is not to be used any more.
_ALGORITHMS: Final = {
    "hmac-sha1": dns.tsig.HMAC_SHA1,
    "hmac-sha224": dns.tsig.HMAC_SHA224,
    "hmac-sha256": dns.tsig.HMAC_SHA256,
    "hmac-sha384": dns.tsig.HMAC_SHA384,
    "hmac-sha512": dns.tsig.HMAC_SHA512,
}
_BIND_KEY: Final = re.compile(r'\bkey\s+(?P<name>"[^"]*"|[^\s{";]+)\s*\{(?P<body>[^{}]*)\}')
# A secret may have // in it.
_BIND_COMMENT: Final = re.compile(r'(?P<quoted>"[^"]*")|/\*.*?\*/|//[^\n]*|#[^\n]*', re.DOTALL)


@dataclass(frozen=True, slots=True)
class TsigKey:
    """A shared key; its secret is shown nowhere."""

    name: str
    algorithm: str
    secret: bytes = field(repr=False)

    def to_dns(self) -> dns.tsig.Key:
        """The key as dnspython takes it. Do not show it: its text has the secret."""
        return dns.tsig.Key(dns.name.from_text(self.name), self.secret, _ALGORITHMS[self.algorithm])


def parse_key_file(text: str, where: str) -> TsigKey:
    """The one key of a file, which ``where`` names in errors.

    Raises `ConfigurationError`: no key, several, or one that is not whole; it never tells any of the secret.
    """
    keys = [{"name": match["name"], **_read_bind(match["body"])} for match in _BIND_KEY.finditer(_uncomment(text))]
    keys = keys or _read_knot(text)
    if len(keys) != 1:
        found = f"{len(keys)} keys" if keys else "no key"
        raise _refuse(where, f"it has {found}; write one as tsig-keygen or keymgr -t prints it")
    (values,) = keys
    if missing := [name for name in ("name", "algorithm", "secret") if not values.get(name)]:
        raise _refuse(where, f"the key has no {missing[0]}")
    name, algorithm = values["name"].strip('"'), values["algorithm"].strip('"').lower().removesuffix(".")
    if algorithm not in _ALGORITHMS:
        raise _refuse(where, f"the algorithm {algorithm!r} is none of {', '.join(_ALGORITHMS)}")
    try:
        secret = base64.b64decode(values["secret"].strip('"'), validate=True)
        key = TsigKey(name, algorithm, secret)
        key.to_dns()
    except (binascii.Error, dns.exception.DNSException):
        raise _refuse(where, "its name is no name of a key, or its secret is not base64") from None
    return key


def _uncomment(text: str) -> str:
    return _BIND_COMMENT.sub(lambda match: match["quoted"] or " ", text)


def _read_bind(body: str) -> dict[str, str]:
    """``algorithm hmac-sha256; secret "…";`` as names and values."""
    return dict(re.findall(r'(algorithm|secret)\s+("[^"]*"|[^\s;]+)\s*;', body))


def _read_knot(text: str) -> list[dict[str, str]]:
    """The items of the list ``key:``, whose lines are ``- id: …``, ``algorithm: …``, ``secret: …`` in any order."""
    keys: list[dict[str, str]] = []
    in_keys = False
    for line in text.splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).rstrip()
        if line and line[0] not in " -":
            in_keys = line == "key:"
        match = re.fullmatch(r"\s*(?P<dash>-?)\s*(?P<name>id|algorithm|secret)\s*:\s*(?P<value>\S+)", line)
        if not in_keys or match is None:
            continue
        if match["dash"] or not keys:
            keys.append({})
        keys[-1]["name" if match["name"] == "id" else match["name"]] = match["value"]
    return keys


def _refuse(where: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"{where} is no file of a TSIG key: {why}.", file=where)
