"""What a host keeps of its host keys, ``keys.json``: derived secrets and last five characters, never the keys.

Those given with a request are in ``pending/keys.json`` until it is answered.
"""

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kms_fast.files import SECRET, SMALL_BYTES, read_bounded, write_atomically
from kms_fast.model.document import read_document, write_document
from kms_fast.model.exchange import INSTALLATION_ID_SIZE, MAC_SIZE, HostKeySecrets
from kms_fast.model.keys import KEY_ID_SIZE

FORMAT: Final = "kms_fast host keys 1"
_MACHINE_ID_FILES: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """Content of ``keys.json``."""

    publisher_id: bytes
    installation_id: bytes
    keys: tuple[HostKeySecrets, ...]


def read_keys(folder: Path) -> StoredKeys | None:
    """What is kept of the host keys, None before the first request. Raises OSError or `ConfigurationError`."""
    path = folder / "keys.json"
    if not path.exists():
        return None
    document = read_document(read_bounded(path, SMALL_BYTES), FORMAT, str(path))
    body = document.object("body")
    document.finish()
    publisher_id = body.octets("publisher_id", 16)
    installation_id = body.octets("installation_id", INSTALLATION_ID_SIZE)
    keys = []
    for fields in body.objects("keys"):
        key_id, last_five = fields.octets("key_id", KEY_ID_SIZE), fields.text("last_five", longest=5)
        keys.append(
            HostKeySecrets(key_id, last_five, fields.octets("mac_key", MAC_SIZE), fields.octets("seal_key", 32))
        )
        fields.finish()
    body.finish()
    return StoredKeys(publisher_id, installation_id, tuple(keys))


def read_keys_by_id(folder: Path) -> dict[bytes, HostKeySecrets]:
    """The host keys that an answer may be for: those that are kept, and those given with the outstanding request.

    Raises OSError or `ConfigurationError`.
    """
    found = (read_keys(folder), read_keys(folder / "pending"))
    return {key.key_id: key for stored in found if stored is not None for key in stored.keys}


def write_keys(folder: Path, stored: StoredKeys) -> None:
    """Replace what is kept. Raises OSError."""
    body = {
        "publisher_id": stored.publisher_id.hex(),
        "installation_id": stored.installation_id.hex(),
        "keys": [
            {
                "key_id": key.key_id.hex(),
                "last_five": key.last_five,
                "mac_key": key.mac_key.hex(),
                "seal_key": key.seal_key.hex(),
            }
            for key in stored.keys
        ],
    }
    write_atomically(folder / "keys.json", write_document(FORMAT, body), mode=SECRET)


def find_installation_id(publisher_id: bytes) -> bytes:
    """16 bytes that stay when a host is set up anew on this machine, and differ for every publisher.

    Where the system has no machine ID they are random, and stay as long as ``keys.json`` does.
    """
    for path in _MACHINE_ID_FILES:
        try:
            machine_id = path.read_bytes().strip()
        except OSError:
            continue
        if machine_id:
            return hashlib.sha256(publisher_id + machine_id).digest()[:INSTALLATION_ID_SIZE]
    return secrets.token_bytes(INSTALLATION_ID_SIZE)
