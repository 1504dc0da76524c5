"""The host's private key: made with the first request, and replaced by another once that one is certified.

With another key it is another host, so what belongs to the former one goes into a folder of its own then.
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.files import SECRET, SECRET_FOLDER, SMALL_BYTES, make_folder, read_bounded, sync_folder, write_atomically
from kms_fast.host.presence import list_running
from kms_fast.model import signing
from kms_fast.model.certificate import HostCertificate


def read_host_key(folder: Path) -> Ed25519PrivateKey:
    """The private key in a folder. Raises OSError or `ConfigurationError`."""
    path = folder / "host.key"
    try:
        key = load_pem_private_key(read_bounded(path, SMALL_BYTES), None)
    except (ValueError, TypeError):
        raise ConfigurationError(f"{path} is damaged: it does not read as a private key.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} holds a key of another algorithm; kms_fast uses Ed25519.")
    return key


def read_or_make_host_key(folder: Path) -> Ed25519PrivateKey:
    """The private key in a folder, made when there is none. Raises what `read_host_key` does."""
    path = folder / "host.key"
    if path.exists():
        return read_host_key(folder)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomically(path, pem, mode=SECRET)
    return key


def holds_key(folder: Path, public_key: bytes) -> bool:
    """Whether there is a private key in a folder, and it is this one. Raises what `read_host_key` does."""
    return (folder / "host.key").exists() and signing.public_bytes(read_host_key(folder)) == public_key


def former_folder(folder: Path, host_id: bytes) -> Path:
    """Where `put_aside` puts what belonged to the host of this ID."""
    return folder / f"former-{host_id.hex()}"


def check_stopped(folder: Path) -> None:
    """Refuse to replace the key of a host that runs. Raises `KmsFastError` (HOST_RUNNING)."""
    if running := list_running(folder):
        raise KmsFastError(
            f"The host that runs here (process {running[0].pid}) signs with the private key that is to be replaced.",
            name="HOST_RUNNING",
            folder=str(folder),
        )


def put_aside(folder: Path, former: HostCertificate) -> None:
    """Move the former host's ledger away, and copy its certificate and its private key, if that is still here.

    Copies, so that a crash leaves a whole host. Raises OSError or `KmsFastError` (HOST_RUNNING).
    """
    check_stopped(folder)
    kept = former_folder(folder, former.host_id)
    make_folder(kept, mode=SECRET_FOLDER)
    copied = ["host.cert", "host.key"] if holds_key(folder, former.public_key) else ["host.cert"]
    for name in copied:
        write_atomically(kept / name, read_bounded(folder / name, SMALL_BYTES), mode=SECRET)
    if (folder / "ledger").exists():
        (folder / "ledger").rename(kept / "ledger")
        sync_folder(kept)
        sync_folder(folder)


def install_key(pending: Path, folder: Path) -> None:
    """Let the key in ``pending`` take the place of the one in ``folder``. Raises OSError."""
    (pending / "host.key").replace(folder / "host.key")
    sync_folder(folder)
