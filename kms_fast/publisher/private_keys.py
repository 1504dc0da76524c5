"""Root and issuer keys in encrypted PEM files (PKCS #8, PBES2 with PBKDF2-SHA256 and AES-256; RFC 5958, RFC 8018)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from kms_fast.errors import ConfigurationError
from kms_fast.files import SECRET, read_bounded, write_atomically

SHORTEST_PASSPHRASE: Final = 8
# OpenSSL takes no longer passphrase from a PEM file's reader.
LONGEST_PASSPHRASE: Final = 1023


def check_passphrase(passphrase: bytes) -> None:
    """Refuse a passphrase that protects nothing; raises `ConfigurationError`."""
    if not SHORTEST_PASSPHRASE <= len(passphrase) <= LONGEST_PASSPHRASE:
        raise ConfigurationError(
            f"The passphrase has {len(passphrase)} bytes; it needs {SHORTEST_PASSPHRASE} to {LONGEST_PASSPHRASE}."
        )


def write_private_key(path: Path, key: Ed25519PrivateKey, passphrase: bytes) -> None:
    """Write ``key`` to a PEM file that ``passphrase`` opens, readable for its owner alone. Raises OSError."""
    check_passphrase(passphrase)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))
    write_atomically(path, pem, mode=SECRET)


def read_private_key(path: Path, passphrase: bytes) -> Ed25519PrivateKey:
    """The key in a PEM file.

    Raises OSError; `ConfigurationError`: KEY_FILE_LOCKED when the passphrase is not its own or the file is damaged,
    CONFIGURATION_INVALID when it is not an encrypted Ed25519 key.
    """
    pem = read_bounded(path, 1 << 16)
    if b"ENCRYPTED PRIVATE KEY" not in pem:
        raise ConfigurationError(f"{path} is not an encrypted private key (PEM, PKCS #8).")
    if not passphrase:
        raise ConfigurationError(
            f"The passphrase is empty, and so opens no key: {path} stays closed. See that the variable or file that it "
            "was read from holds one.",
            name="KEY_FILE_LOCKED",
            file=str(path),
        )
    try:
        key = load_pem_private_key(pem, passphrase)
    except ValueError:
        # One wrong passphrase in 256 decrypts to correct padding, and then looks as a damaged file does.
        raise ConfigurationError(
            f"The passphrase does not open {path}, or the file is damaged.", name="KEY_FILE_LOCKED", file=str(path)
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} holds a key of another algorithm; kms_fast uses Ed25519.")
    return key


def change_passphrase(paths: Iterable[Path], old: bytes, new: bytes) -> None:
    """Write the keys of these files anew, so that ``new`` opens them, those that it opens already included.

    Raises what `read_private_key` does, and `ConfigurationError` when ``new`` protects nothing, before it writes.
    """
    check_passphrase(new)
    keys = [(path, _read_with_either(path, old, new)) for path in paths]
    for path, key in keys:
        write_private_key(path, key, new)


def _read_with_either(path: Path, old: bytes, new: bytes) -> Ed25519PrivateKey:
    try:
        return read_private_key(path, old)
    except ConfigurationError as error:
        if error.result.name != "KEY_FILE_LOCKED":
            raise
        # An earlier attempt may have ended between two files.
        try:
            return read_private_key(path, new)
        except ConfigurationError:
            raise error from None
