"""A publisher's folder and what can be done with it; the command line, the lab and a service call these methods.

root.key  issuer.key     encrypted private keys; the root signs issuer certificates and publisher.json, nothing else
issuer.cert              the issuer's certificate
catalog.toml             products, by hand and by add_product
publisher.db             host keys, certificates, revocations, numbers
publisher.json           as exported last
catalog.json             as signed last, with its secrets
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kms_fast.errors import ConfigurationError
from kms_fast.files import PUBLIC, SECRET, SMALL_BYTES, read_bounded, write_atomically
from kms_fast.model import policy, signing
from kms_fast.model.catalog import Family, Sku, find_sku
from kms_fast.model.catalog_toml import PublisherCatalog, append_product, parse_catalog_toml, render_head
from kms_fast.model.certificate import IssuerCertificate, issue_issuer_certificate
from kms_fast.model.exchange import HostKeySecrets
from kms_fast.model.keys import KeyKind, ProductKey, new_key
from kms_fast.publisher.making import claim_folder, describe_lost_catalog
from kms_fast.publisher.private_keys import change_passphrase, check_passphrase, read_private_key, write_private_key
from kms_fast.publisher.records import Entitlement, Records

ISSUER_DAYS: Final = 730


@dataclass(frozen=True, slots=True)
class NewHostKey:
    """A host key as it is shown once, and what it entitles to."""

    key: ProductKey
    entitlement: Entitlement


class Publisher:
    """An opened publisher folder. Private keys are read for the one operation that needs them."""

    def __init__(self, folder: Path) -> None:
        """Open what `create` made. Raises OSError or `KmsFastError`."""
        if not (folder / "catalog.toml").exists():
            if (folder / "publisher.db").exists():
                raise ConfigurationError(describe_lost_catalog(folder))
            raise ConfigurationError(
                f"There is no publisher in {folder}: make one with kms-fast publisher init, or name its home "
                "with --home."
            )
        self.folder = folder
        self.records = Records(folder / "publisher.db")

    @classmethod
    def create(
        cls,
        folder: Path,
        name: str,
        passphrase: bytes,
        *,
        now_ms: int,
        activation_url: str = "",
        srv_name: str = policy.SRV_NAME,
    ) -> "Publisher":
        """Make a publisher: root and issuer keys, issuer certificate, empty catalog, empty records.

        Never touches an existing one. Raises OSError or `ConfigurationError`.
        """
        check_passphrase(passphrase)
        publisher_id = uuid.uuid4()
        head = render_head(publisher_id, name, activation_url, srv_name)
        parse_catalog_toml(head)
        root, issuer = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        certificate = _certify_issuer(root, issuer, publisher_id.bytes, 1, now_ms)
        with claim_folder(folder):
            write_private_key(folder / "root.key", root, passphrase)
            write_private_key(folder / "issuer.key", issuer, passphrase)
            write_atomically(folder / "issuer.cert", certificate.to_bytes(), mode=PUBLIC)
            Records(folder / "publisher.db", create=True).close()
            # The last one: it makes a publisher of the folder.
            write_atomically(folder / "catalog.toml", head.encode(), mode=SECRET)
        return cls(folder)

    def close(self) -> None:
        """Close the records."""
        self.records.close()

    @cached_property
    def issuer(self) -> IssuerCertificate:
        """The issuer's certificate. Raises OSError or `ConfigurationError`: it is missing or damaged."""
        issuer = self._look_at_issuer()
        if issuer is None:
            raise ConfigurationError(
                f"{self.folder / 'issuer.cert'} is missing or damaged: put it back from a backup, or make another "
                "issuer with kms-fast publisher renew-issuer, which needs the root key."
            )
        return issuer

    def _look_at_issuer(self) -> IssuerCertificate | None:
        """The issuer's certificate as it is on disk now, None when it is missing or damaged. Raises OSError."""
        path = self.folder / "issuer.cert"
        try:
            return IssuerCertificate.parse(read_bounded(path, SMALL_BYTES)) if path.exists() else None
        except ConfigurationError:
            return None

    @property
    def publisher_id(self) -> bytes:
        """The publisher's ID, 16 bytes."""
        return self.issuer.publisher_id

    def read_catalog(self) -> PublisherCatalog:
        """The catalog as it is in ``catalog.toml`` now. Raises OSError or `ConfigurationError`."""
        return self._parse_catalog(self._read_catalog_text())

    def _read_catalog_text(self) -> str:
        path = self.folder / "catalog.toml"
        try:
            return read_bounded(path).decode("utf-8")
        except UnicodeDecodeError:
            raise ConfigurationError(f"{path} is not UTF-8 text.") from None

    def _parse_catalog(self, text: str) -> PublisherCatalog:
        catalog = parse_catalog_toml(text, str(self.folder / "catalog.toml"))
        if catalog.publisher_id.bytes != self.publisher_id:
            raise ConfigurationError(
                f"The publisher ID in catalog.toml was changed; it must be {uuid.UUID(bytes=self.publisher_id)}."
            )
        return catalog

    def add_product(
        self,
        name: str,
        family_name: str,
        *,
        threshold: int | None = None,
        minimum_threshold: int | None = None,
        maximum_validity_min: int | None = None,
        **numbers: int,
    ) -> tuple[Sku, Family]:
        """Append a SKU to the catalog, and its family when the catalog has none of that name.

        ``numbers``: fields of `Sku` (generation, validity_min, …) that differ from the defaults. The family numbers are
        for a new family only. Raises `ConfigurationError`, and changes nothing, when the result contradicts itself;
        OSError or `KmsFastError` (STORAGE_FAILED: another process keeps the records).
        """
        # No other process appends in between. An editor may; nothing can hinder it.
        with self.records.transaction():
            before = self._read_catalog_text()
            text, sku, family = append_product(
                before,
                self._parse_catalog(before),
                name,
                family_name,
                threshold=threshold,
                minimum_threshold=minimum_threshold,
                maximum_validity_min=maximum_validity_min,
                used_families={number for key in self.records.list_host_keys() for number in key.entitlement.families},
                **numbers,
            )
            self._parse_catalog(text)
            write_atomically(self.folder / "catalog.toml", text.encode(), mode=SECRET)
        return sku, family

    def find_sku(self, wanted: str) -> Sku:
        """The SKU with this name, ID or reference; raises `ConfigurationError` with the names there are."""
        skus = self.read_catalog().skus
        by_name = next((sku for sku in skus if sku.name == wanted), None)
        found = by_name or find_sku(skus, _read_sku_id(wanted))
        if found is None:
            names = ", ".join(sku.name for sku in skus) or "none yet"
            raise ConfigurationError(f"The catalog has no product {wanted!r}; its products: {names}.")
        return found

    def make_host_key(
        self,
        families: Mapping[str, int | None] | None = None,
        *,
        now_ms: int,
        hosts: int = policy.HOSTS_PER_KEY,
        activations: int = policy.ACTIVATIONS_PER_HOST,
        customer_id: int = 0,
        note: str = "",
    ) -> NewHostKey:
        """A new host key. ``families``: newest generation by family name, None for the newest in the catalog.

        Without ``families`` the key covers all families of the catalog. The key is not stored: only what is derived
        from it. Raises `ConfigurationError`.
        """
        catalog = self.read_catalog()
        wanted: Mapping[str, int | None] = families or {family.name: None for family in catalog.families}
        if not wanted:
            raise ConfigurationError(
                "The catalog has no family yet: add a product first (kms-fast publisher add-product)."
            )
        generations = {}
        for name, generation in wanted.items():
            family = catalog.family(name)
            if family is None:
                known = ", ".join(known.name for known in catalog.families) or "none"
                raise ConfigurationError(f"The catalog has no family {name!r}; its families: {known}.")
            generations[family.number] = generation or catalog.highest_generation(family)
        key = new_key(KeyKind.HOST, self.publisher_id)
        entitlement = Entitlement(generations, hosts, activations, customer_id, note)
        self.records.add_host_key(HostKeySecrets.derive(key, self.publisher_id), entitlement, now_ms)
        return NewHostKey(key, entitlement)

    def read_issuer_key(self, passphrase: bytes) -> Ed25519PrivateKey:
        """The issuer's private key.

        Raises OSError or `ConfigurationError` (KEY_FILE_LOCKED; the key is not here, or not the certificate's).
        """
        with self.records.transaction():
            key = self._read_key(
                "issuer.key", passphrase, "bring it back, or make another: kms-fast publisher renew-issuer"
            )
            if signing.public_bytes(key) != self.issuer.public_key:
                raise ConfigurationError(
                    f"{self.folder / 'issuer.key'} is not the key that issuer.cert certifies: put the right one back, "
                    "or run kms-fast publisher renew-issuer."
                )
        return key

    def read_root_key(self, passphrase: bytes) -> Ed25519PrivateKey:
        """The root's private key. Raises OSError or `ConfigurationError` (KEY_FILE_LOCKED; the key is not here)."""
        return self._read_key("root.key", passphrase, "bring it back for the time of this command")

    def _read_key(self, name: str, passphrase: bytes, cure: str) -> Ed25519PrivateKey:
        path = self.folder / name
        if not path.exists():
            raise ConfigurationError(f"{path} is not here, and this command needs it: {cure}.")
        return read_private_key(path, passphrase)

    def renew_issuer(self, passphrase: bytes, *, now_ms: int) -> IssuerCertificate:
        """Make a new issuer key, certified by the root; what the old one signed stays valid.

        Raises OSError or `ConfigurationError` (KEY_FILE_LOCKED; the root key is not here).
        """
        with self.records.transaction():
            root, key = self.read_root_key(passphrase), Ed25519PrivateKey.generate()
            publisher_id, serial = self._describe_old_issuer()
            certificate = _certify_issuer(root, key, publisher_id, serial + 1, now_ms)
            # A crash between the two leaves a key without its certificate, which `read_issuer_key` notices.
            write_private_key(self.folder / "issuer.key", key, passphrase)
            write_atomically(self.folder / "issuer.cert", certificate.to_bytes(), mode=PUBLIC)
        self.issuer = certificate
        return certificate

    def _describe_old_issuer(self) -> tuple[bytes, int]:
        """Publisher ID and serial of the issuer so far; without its certificate, from what it certified."""
        issuer = self._look_at_issuer()
        if issuer is not None:
            return issuer.publisher_id, issuer.serial
        certified = [record.certificate.issuer_serial for record in self.records.list_certificates()]
        catalog = parse_catalog_toml(self._read_catalog_text(), str(self.folder / "catalog.toml"))
        return catalog.publisher_id.bytes, max(certified, default=0)

    def change_passphrase(self, old: bytes, new: bytes) -> list[Path]:
        """Encrypt the private keys that are in the folder with another passphrase; their files.

        Raises OSError or `ConfigurationError` (KEY_FILE_LOCKED; there is none, or ``new`` protects nothing).
        """
        with self.records.transaction():
            paths = [path for name in ("root.key", "issuer.key") if (path := self.folder / name).exists()]
            if not paths:
                raise ConfigurationError(
                    f"Neither root.key nor issuer.key is in {self.folder}, and this command is about them: bring them "
                    "back for its time."
                )
            change_passphrase(paths, old, new)
        return paths


def _certify_issuer(
    root: Ed25519PrivateKey, key: Ed25519PrivateKey, publisher_id: bytes, serial: int, now_ms: int
) -> IssuerCertificate:
    return issue_issuer_certificate(
        root,
        public_key=signing.public_bytes(key),
        publisher_id=publisher_id,
        serial=serial,
        # Hosts' clocks may be behind ours by as much as is tolerated anywhere.
        not_before_ms=now_ms - policy.CLOCK_TOLERANCE_MS,
        days=ISSUER_DAYS,
    )


def _read_sku_id(wanted: str) -> uuid.UUID | int:
    if wanted.isascii() and wanted.isdigit():
        return int(wanted)
    try:
        return uuid.UUID(wanted)
    except ValueError:
        return 0
