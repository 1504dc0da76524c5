"""What makes a machine a host: key, certificate, catalog and publisher file in its home (docs/files.md)."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.model import signing
from kms_fast.model.catalog import Catalog
from kms_fast.model.certificate import HostCertificate, parse_chain, verify_chain
from kms_fast.model.publisher_file import PublisherFile


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """A certified host. ``certificates`` is host certificate ‖ issuer certificate, the last bytes of every answer."""

    private_key: Ed25519PrivateKey
    certificate: HostCertificate
    certificates: bytes
    catalog: Catalog
    publisher: PublisherFile


def load_identity(folder: Path, now_ms: int) -> Identity:
    """Read and check a host's files: everything that would make clients refuse its answers is told here.

    Raises `KmsFastError`: HOST_NOT_ACTIVATED without certificate or key, CERTIFICATE_DATES and the like when the
    chain does not hold now, OFFLINE_DATA_MALFORMED for a damaged file.
    """
    if not (folder / "host.cert").exists():
        raise KmsFastError(
            f"There is no host certificate in {folder}.", name="HOST_NOT_ACTIVATED", file=str(folder / "host.cert")
        )
    publisher = PublisherFile.parse(_read(folder / "publisher.json"))
    certificates = _read(folder / "host.cert")
    certificate, issuer = parse_chain(certificates)
    verify_chain(
        certificate,
        issuer,
        roots=publisher.roots,
        publisher_id=publisher.publisher_id,
        at_ms=now_ms,
        revoked=publisher.revoked,
    )
    private_key = _load_private_key(folder / "host.key")
    if signing.public_bytes(private_key) != certificate.public_key:
        raise ConfigurationError(
            f"The key {folder / 'host.key'} is not the one that the host certificate was made for.",
            name="HOST_NOT_ACTIVATED",
        )
    catalog = Catalog.parse(_read(folder / "catalog.json"), roots=publisher.roots, publisher_id=publisher.publisher_id)
    return Identity(private_key, certificate, certificates, catalog, publisher)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        name = "NOT_ALLOWED" if isinstance(error, PermissionError) else "STORAGE_FAILED"
        raise KmsFastError(f"{path} cannot be read: {error.strerror}.", name=name, file=str(path)) from error


def _load_private_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(_read(path), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(
            f"{path} is not an Ed25519 private key.", name="OFFLINE_DATA_MALFORMED", file=str(path)
        )
    return key
