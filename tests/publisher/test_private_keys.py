"""Encrypted private keys: what opens them and what does not."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from kms_fast.errors import ConfigurationError
from kms_fast.publisher.private_keys import change_passphrase, read_private_key, write_private_key
from tests.publishing import PASSPHRASE

# Opened by b"correct passphrase"; b"wrong 305" decrypts it to correct padding around bytes that are no key.
PEM = b"""-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGjMF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAkBBCE8zK5wz09rDEEKQHi
Fu1IAgIIADAMBggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQbTaQagMEqdrRzdti
28PPeARAI7GTskfoNWWtjppA+hXqD+vy05rixNk3QrBMva0gWpHzIJa5z5r1SqcD
NomBLlmiMalbaTNzVYnZ+fLBdpScYA==
-----END ENCRYPTED PRIVATE KEY-----
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "root.key"


def test_a_key_is_read_back_with_its_passphrase_alone(path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    write_private_key(path, key, PASSPHRASE)
    assert read_private_key(path, PASSPHRASE).private_bytes_raw() == key.private_bytes_raw()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for wrong, said in ((b"", "is empty"), (b"wrong passphrase", "does not open")):
        with pytest.raises(ConfigurationError, match=said) as caught:
            read_private_key(path, wrong)
        assert caught.value.result.name == "KEY_FILE_LOCKED"
        assert caught.value.__cause__ is None


def test_a_wrong_passphrase_is_one_even_where_it_seems_to_fit(path: Path) -> None:
    path.write_bytes(PEM)
    read_private_key(path, b"correct passphrase")
    for wrong in (b"wrong 304", b"wrong 305"):
        with pytest.raises(ConfigurationError) as caught:
            read_private_key(path, wrong)
        assert caught.value.result.name == "KEY_FILE_LOCKED"


@pytest.mark.parametrize("passphrase", [b"", b"1234567", b"x" * 1024])
def test_a_passphrase_that_protects_nothing_is_refused(path: Path, passphrase: bytes) -> None:
    with pytest.raises(ConfigurationError, match=f"has {len(passphrase)} bytes"):
        write_private_key(path, Ed25519PrivateKey.generate(), passphrase)
    assert not path.exists()


def test_other_files_are_refused(path: Path) -> None:
    plain = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    other = X25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE)
    )
    damaged = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
    for data, problem in (
        (plain, "not an encrypted"),
        (other, "another algorithm"),
        (damaged, "damaged"),
        (b"", "not an"),
    ):
        path.write_bytes(data)
        with pytest.raises(ConfigurationError, match=problem):
            read_private_key(path, PASSPHRASE)


def test_another_passphrase_opens_keys_then(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("root.key", "issuer.key")]
    keys = [Ed25519PrivateKey.generate() for _ in paths]
    for path, key in zip(paths, keys, strict=True):
        write_private_key(path, key, PASSPHRASE)
    before = [path.read_bytes() for path in paths]
    for old, new in ((b"wrong passphrase", b"the new passphrase"), (PASSPHRASE, b"short")):
        with pytest.raises(ConfigurationError):
            change_passphrase(paths, old, new)
        assert [path.read_bytes() for path in paths] == before
    # As an attempt that ended between the two leaves them.
    change_passphrase(paths[:1], PASSPHRASE, b"the new passphrase")
    change_passphrase(paths, PASSPHRASE, b"the new passphrase")
    opened = [read_private_key(path, b"the new passphrase") for path in paths]
    assert [key.private_bytes_raw() for key in opened] == [key.private_bytes_raw() for key in keys]
