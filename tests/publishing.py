"""A publisher with two products, and the pieces of an exchange, for tests."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kms_fast.host.enrolment import apply_answer, make_request
from kms_fast.model import signing
from kms_fast.model.certificate import IssuerCertificate, issue_issuer_certificate
from kms_fast.publisher.exporting import export_publisher_file
from kms_fast.publisher.issuing import Certified, certify
from kms_fast.publisher.publisher import Publisher

PASSPHRASE = b"correct horse"
NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000
PUBLISHER_ID = bytes.fromhex("8febbd73391c4171a81b3cee58f101af")


def make_private_key(name: str) -> Ed25519PrivateKey:
    """The private key of this name: the same in every run."""
    return Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"."))


@dataclass(frozen=True)
class Authority:
    """A root, and an issuer it certified."""

    root_key: Ed25519PrivateKey
    issuer_key: Ed25519PrivateKey
    issuer: IssuerCertificate

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The public root key, as publisher files list it."""
        return (signing.public_bytes(self.root_key),)


def make_authority(name: str = "example") -> Authority:
    """An authority whose issuer is valid from `NOW_MS` for two years."""
    root_key, issuer_key = make_private_key(f"{name} root"), make_private_key(f"{name} issuer")
    issuer = issue_issuer_certificate(
        root_key,
        public_key=signing.public_bytes(issuer_key),
        publisher_id=PUBLISHER_ID,
        serial=1,
        not_before_ms=NOW_MS,
        days=730,
    )
    return Authority(root_key, issuer_key, issuer)


def make_publisher(folder: Path) -> Publisher:
    """A publisher with a desktop and a server product, exported."""
    publisher = Publisher.create(folder, "Example & Söhne", PASSPHRASE, now_ms=NOW_MS)
    publisher.add_product("Desktop 1", "desktop")
    publisher.add_product("Server 2", "server", generation=2)
    export_publisher_file(publisher, PASSPHRASE, now_ms=NOW_MS)
    return publisher


def request_certificate(publisher: Publisher, host: Path, *keys: str, installation: bytes = b"i" * 16) -> bytes:
    """The request of a host in the folder ``host``."""
    data = (publisher.folder / "publisher.json").read_bytes()
    return make_request(host, keys, publisher_data=data, installation_id=installation, now_ms=NOW_MS)


def certify_host(publisher: Publisher, host: Path, key: str) -> Certified:
    """Take a host through request, certify and apply."""
    issuer_key = publisher.read_issuer_key(PASSPHRASE)
    certified = certify(publisher, request_certificate(publisher, host, key), issuer_key, now_ms=NOW_MS)
    apply_answer(host, certified.answer, now_ms=NOW_MS)
    return certified
