"""The catalog file: catalog and publisher file for the hosts of one host key (docs/files.md, "Catalog file").

An answer as text or QR code names a catalog and a publisher file; hosts that have neither yet get both in this file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kms_fast.model.document import malformed, read_document, write_document
from kms_fast.model.exchange import HostKeySecrets, write_publisher
from kms_fast.model.keys import KEY_ID_SIZE
from kms_fast.model.publisher_file import PublisherFile

FORMAT: Final = "kms_fast catalog file 1"


def build_catalog_file(catalog: bytes, publisher_data: bytes, *, publisher_id: bytes, secrets: HostKeySecrets) -> bytes:
    """The file for every host that has this host key: the signed ``catalog`` sealed under it, ``publisher.json``."""
    body = {
        "publisher_id": publisher_id.hex(),
        "catalog_key_id": secrets.key_id.hex(),
        "sealed_catalog": secrets.seal(catalog, publisher_id).hex(),
        "publisher": json.loads(publisher_data),
    }
    return write_document(FORMAT, body)


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """An opened catalog file: the bytes of ``catalog.json`` and ``publisher.json``, not verified yet.

    ``key_id``: the host key that it was sealed under.
    """

    catalog_data: bytes = field(repr=False)
    publisher_data: bytes = field(repr=False)
    key_id: bytes

    @classmethod
    def open(cls, data: bytes, *, trusted: PublisherFile, keys: Mapping[bytes, HostKeySecrets]) -> "CatalogFile":
        """Read a catalog file with the host's ``keys`` by ID.

        Raises `ConfigurationError` (OFFLINE_DATA_MALFORMED): damaged, of another publisher, or for other host keys.
        """
        document = read_document(data, FORMAT, "The catalog file")
        body = document.object("body")
        document.finish()
        publisher_id = body.octets("publisher_id", 16)
        key_id = body.octets("catalog_key_id", KEY_ID_SIZE)
        sealed = body.octets("sealed_catalog")
        publisher_document = body.take("publisher")
        body.finish()
        if publisher_id != trusted.publisher_id:
            raise malformed(f"The catalog file is not one of {trusted.name}.")
        if key_id not in keys:
            raise malformed("The catalog file is sealed for another host key than this host has.")
        return cls(keys[key_id].open(sealed, publisher_id), write_publisher(publisher_document), key_id)
