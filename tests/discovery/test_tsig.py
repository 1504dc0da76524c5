"""Files of TSIG keys: what name servers' tools print, what people write, and that no secret is ever shown."""

import pytest

from kms_fast.discovery.tsig import TsigKey, parse_key_file
from kms_fast.errors import ConfigurationError

SECRET = b"\xff\xef a secret with slashes \xff\xff\xff"
TEXT = "/+8gYSBzZWNyZXQgd2l0aCBzbGFzaGVzIP///w=="
KEY = TsigKey("kms-fast", "hmac-sha256", SECRET)
BIND = f'key "kms-fast" {{\n\talgorithm hmac-sha256;\n\tsecret "{TEXT}";\n}};\n'
KNOT = f"# hmac-sha256:kms-fast:{TEXT}\nkey:\n  - id: kms-fast\n    algorithm: hmac-sha256\n    secret: {TEXT}\n"


@pytest.mark.parametrize(
    "text",
    [
        BIND,
        f"/* made\n by hand */ key kms-fast {{ secret \"{TEXT}\"; // mine\n algorithm HMAC-SHA256; }}; # end\n",
        "// key \"old\" { };\n" + BIND,
        KNOT,
        f"key:\n- algorithm: hmac-sha256\n  secret: {TEXT} # mine\n  id: kms-fast\nacl:\n  - id: a\n    key: x\n",
        f"server:\n  listen: ::1\n{KNOT}",
    ],
)  # fmt: skip
def test_one_key_is_read(text: str) -> None:
    assert parse_key_file(text, "here") == KEY
    assert parse_key_file(text, "here").to_dns().secret == SECRET


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no key"),
        ("nothing of the kind", "no key"),
        (BIND + BIND, "2 keys"),
        (KNOT + f"  - id: b\n    algorithm: hmac-sha256\n    secret: {TEXT}\n", "2 keys"),
        (f'key "a" {{ secret "{TEXT}"; }};', "no algorithm"),
        ('key "a" { algorithm hmac-sha256; };', "no secret"),
        (f"key:\n  - algorithm: hmac-sha256\n    secret: {TEXT}\n", "no name"),
        (f'key "a" {{ algorithm hmac-md5; secret "{TEXT}"; }};', "'hmac-md5' is none of"),
        (f'key "a" {{ algorithm hmac-sha256; secret "{TEXT}!"; }};', "not base64"),
        (f'key "a..b" {{ algorithm hmac-sha256; secret "{TEXT}"; }};', "no name of a key"),
    ],
)
def test_what_is_no_key_is_told_without_the_secret(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_key_file(text, "/etc/x.key")
    assert said in caught.value.message
    assert caught.value.message.startswith("/etc/x.key is no file of a TSIG key")
    assert TEXT[:8] not in str(caught.value.to_json())


def test_a_key_shows_no_secret() -> None:
    assert repr(KEY) == "TsigKey(name='kms-fast', algorithm='hmac-sha256')"
