"""What a publisher signs for all: ``publisher.json`` for clients and hosts, ``catalog.json`` for hosts alone."""

import hashlib
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kms_fast.errors import ConfigurationError
from kms_fast.files import PUBLIC, SECRET, read_bounded, write_atomically
from kms_fast.model import signing
from kms_fast.model.catalog import FORMAT as CATALOG_FORMAT
from kms_fast.model.catalog import Catalog
from kms_fast.model.catalog_toml import PublisherCatalog
from kms_fast.model.document import canonical_json, read_document
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.revocation import RevocationList
from kms_fast.publisher.publisher import Publisher


def export_publisher_file(publisher: Publisher, passphrase: bytes, *, now_ms: int) -> PublisherFile:
    """Sign ``publisher.json`` with the root key and keep it in the folder; a changed content gets the next number.

    Raises OSError or `ConfigurationError` (KEY_FILE_LOCKED; CONFIGURATION_INVALID: the catalog is wrong, or
    the root key is not here).
    """
    root = publisher.read_root_key(passphrase)
    with publisher.records.transaction():
        unsigned = _publisher_file(publisher, publisher.read_catalog(), (signing.public_bytes(root),), now_ms)
        digest = unsigned.digest()
        number = publisher.records.number_for("publisher", digest, taken=_find_taken_number(publisher, digest))
        exported = replace(unsigned, number=number)
        write_atomically(publisher.folder / "publisher.json", exported.to_signed_json(root), mode=PUBLIC)
    return exported


def _find_taken_number(publisher: Publisher, digest: bytes) -> int:
    """The number of a ``publisher.json`` of other content; 0 for none.

    A crash between the file and the end of the transaction leaves one whose number the records do not know.
    """
    exported = look_at_exported(publisher)
    return exported.number if exported and exported.digest() != digest else 0


def look_at_exported(publisher: Publisher) -> PublisherFile | None:
    """``publisher.json`` as exported last, None when it is missing or damaged. Raises OSError."""
    path = publisher.folder / "publisher.json"
    try:
        return PublisherFile.parse(read_bounded(path)) if path.exists() else None
    except ConfigurationError:
        return None


def _publisher_file(
    publisher: Publisher, catalog: PublisherCatalog, roots: tuple[bytes, ...], now_ms: int
) -> PublisherFile:
    _, revocations = publisher.records.newest_revocation_list()
    return PublisherFile(
        number=0,
        publisher_id=publisher.publisher_id,
        name=catalog.name,
        issued_ms=now_ms,
        roots=roots,
        activation_url=catalog.activation_url,
        srv_name=catalog.srv_name,
        families=catalog.families,
        skus=tuple(replace(sku, secret=b"") for sku in catalog.skus),
        revocations=RevocationList.parse(revocations) if revocations else None,
    )


def read_exported(publisher: Publisher, catalog: PublisherCatalog) -> tuple[bytes, PublisherFile]:
    """``publisher.json`` as exported last; refused when it is damaged, or catalog or revocations changed since.

    So hosts never get a catalog that their clients' publisher file lacks, and certifying needs no root key. Raises
    OSError or `ConfigurationError` (EXPORT_DUE).
    """
    path = publisher.folder / "publisher.json"
    if not path.exists():
        raise _export_due("publisher.json was not exported yet")
    data = read_bounded(path)
    try:
        exported = PublisherFile.parse(data)
    except ConfigurationError:
        raise _export_due(f"{path} is damaged") from None
    if _publisher_file(publisher, catalog, exported.roots, 0).digest() != exported.digest():
        raise _export_due("The catalog or the revocations were changed since publisher.json was exported")
    return data, exported


def sign_catalog(
    publisher: Publisher, source: PublisherCatalog, issuer_key: Ed25519PrivateKey, *, now_ms: int
) -> bytes:
    """The catalog with its secrets, signed by the issuer; ask inside a transaction of the records.

    It is the same file for all hosts until the catalog changes, so that an answer can name it by its hash.
    """
    catalog = Catalog(0, publisher.publisher_id, now_ms, source.families, source.skus)
    content = [
        [family.to_json() for family in catalog.families],
        [sku.to_json(with_secret=True) for sku in catalog.skus],
    ]
    number = publisher.records.number_for("catalog", hashlib.sha256(canonical_json(content)).digest())
    path = publisher.folder / "catalog.json"
    kept = read_bounded(path) if path.exists() else b""
    signed_ms = _read_issued_ms(kept)
    if signed_ms is not None:
        # Ed25519 signs the same bytes the same way, so a kept file that differs is of another content or issuer.
        again = replace(catalog, number=number, issued_ms=signed_ms).to_signed_json(issuer_key, publisher.issuer)
        if again == kept:
            return kept
    signed = replace(catalog, number=number).to_signed_json(issuer_key, publisher.issuer)
    write_atomically(path, signed, mode=SECRET)
    return signed


def _export_due(reason: str) -> ConfigurationError:
    return ConfigurationError(f"{reason}: run kms-fast publisher export.", name="EXPORT_DUE")


def _read_issued_ms(kept: bytes) -> int | None:
    """When a kept catalog was signed, None for one that is missing or damaged."""
    try:
        return read_document(kept, CATALOG_FORMAT, "The kept catalog").object("body").integer("issued_ms")
    except ConfigurationError:
        return None
