"""Activating a host: making its request, applying the publisher's answer, and reading what is installed.

In the host's folder:

    host.key        the host's private key (PEM, PKCS #8, not encrypted, 0600): made with the first request
    host.cert       host certificate ‖ issuer certificate
    catalog.json    the signed catalog with its secrets (0600)
    publisher.json  the publisher file
    keys.json       what is derived from the host keys (0600), so that a renewal need not ask for them again
    pending/        the outstanding request, the publisher file and the host keys it was made with
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from kms_fast.errors import ConfigurationError
from kms_fast.files import (
    PUBLIC,
    SECRET,
    SECRET_FOLDER,
    SMALL_BYTES,
    lock_folder,
    make_folder,
    read_bounded,
    write_atomically,
)
from kms_fast.host.host_keys import StoredKeys, find_installation_id, read_keys, read_keys_by_id, write_keys
from kms_fast.host.segment import list_segments
from kms_fast.model import signing
from kms_fast.model.catalog import Catalog
from kms_fast.model.catalog_file import CatalogFile
from kms_fast.model.certificate import HostCertificate, IssuerCertificate, parse_chain, verify_chain
from kms_fast.model.compact import CompactAnswer
from kms_fast.model.exchange import HostAnswer, HostKeySecrets, HostRequest, build_host_request
from kms_fast.model.keys import MAX_KEYS_PER_HOST, KeyKind, parse_key
from kms_fast.model.publisher_file import PublisherFile


@dataclass(frozen=True, slots=True)
class Installation:
    """Everything a certified host has. ``chain_data`` are the bytes that end each of its answers."""

    private_key: Ed25519PrivateKey = field(repr=False)
    certificate: HostCertificate
    issuer: IssuerCertificate
    chain_data: bytes = field(repr=False)
    catalog: Catalog
    publisher: PublisherFile

    def check_dates(self, now_ms: int) -> None:
        """Verify the chain at this time; raises `ConfigurationError` (HOST_CERTIFICATE_DATES outside its dates)."""
        try:
            _verify(self.certificate, self.issuer, self.publisher, now_ms)
        except ConfigurationError as error:
            if error.result.name not in {"ISSUER_DATES", "CERTIFICATE_DATES"}:
                raise
            raise ConfigurationError(error.message, name="HOST_CERTIFICATE_DATES") from None

    def describe(self) -> str:
        """What is in force, in words for a line of the log."""
        return (
            f"certificate {self.certificate.serial}, catalog {self.catalog.number}, "
            f"publisher file {self.publisher.number}"
        )


def install_keys(folder: Path, keys: Sequence[str], *, publisher_data: bytes | None = None) -> StoredKeys:
    """Keep what is derived from host keys as typed, in place of what is kept, and the publisher file they belong to.

    ``publisher_data``: the publisher file; without it, the installed one or that of an earlier call. Raises OSError,
    `KeyInvalid` or `ConfigurationError`, and then keeps nothing.
    """
    kept = _choose_keys(folder, keys, publisher_data, None)
    _make_pending(folder, publisher_data)
    write_keys(folder, kept)
    return kept


def make_request(
    folder: Path,
    keys: Sequence[str] = (),
    *,
    publisher_data: bytes | None = None,
    installation_id: bytes | None = None,
    now_ms: int,
) -> bytes:
    """Make a host request and keep what applying its answer will need; returns the request file's bytes.

    The first one makes the host's private key. Without ``keys``, those that are kept; given ones replace these only
    with an answer that is applied. ``publisher_data`` is that of `install_keys`, which also says what is raised.
    """
    chosen = _choose_keys(folder, keys, publisher_data, installation_id)
    pending = _make_pending(folder, publisher_data)
    if keys:
        write_keys(pending, chosen)
    request = build_host_request(
        _read_or_make_host_key(folder / "host.key"),
        chosen.keys,
        publisher_id=chosen.publisher_id,
        installation_id=chosen.installation_id,
        created_ms=now_ms,
    )
    write_atomically(pending / "request.json", request, mode=PUBLIC)
    return request


def _choose_keys(
    folder: Path, keys: Sequence[str], publisher_data: bytes | None, installation_id: bytes | None
) -> StoredKeys:
    """What is derived from these keys; without any, what is kept, or was given with a request."""
    publisher = _choose_publisher(folder, publisher_data)
    parsed = [parse_key(key, expect=KeyKind.HOST, publisher_id=publisher.publisher_id) for key in keys]
    if len(parsed) > MAX_KEYS_PER_HOST:
        raise ConfigurationError(f"A host takes {MAX_KEYS_PER_HOST} host keys at most, not {len(parsed)}.")
    stored = read_keys(folder) or read_keys(folder / "pending")
    if stored is not None and stored.publisher_id != publisher.publisher_id:
        stored = None
    if parsed:
        derived = {key.text: HostKeySecrets.derive(key, publisher.publisher_id) for key in parsed}
        secrets_of_keys = tuple(derived.values())
    elif stored is not None:
        secrets_of_keys = stored.keys
    else:
        raise ConfigurationError("This host has no host key yet: give the one you got from the publisher (--key).")
    if installation_id is None:
        installation_id = stored.installation_id if stored else find_installation_id(publisher.publisher_id)
    return StoredKeys(publisher.publisher_id, installation_id, secrets_of_keys)


def _make_pending(folder: Path, publisher_data: bytes | None) -> Path:
    """The folder of the outstanding request, with the publisher file for it."""
    pending = folder / "pending"
    make_folder(folder, mode=SECRET_FOLDER)
    make_folder(pending, mode=SECRET_FOLDER)
    if publisher_data is not None:
        write_atomically(pending / "publisher.json", publisher_data, mode=PUBLIC)
    return pending


def find_publisher(folder: Path) -> PublisherFile:
    """The publisher file that a request is made with: the newer of the installed one and that of the exchange begun.

    Raises OSError or `ConfigurationError` when there is none.
    """
    paths = (folder / "publisher.json", folder / "pending" / "publisher.json")
    found = [publisher for path in paths if (publisher := _read_publisher(path)) is not None]
    if not found:
        raise ConfigurationError("This host knows no publisher yet: give its publisher file (--publisher).")
    return max(found, key=lambda publisher: publisher.number)


def _choose_publisher(folder: Path, data: bytes | None) -> PublisherFile:
    if data is None:
        return find_publisher(folder)
    given, installed = PublisherFile.parse(data), _read_publisher(folder / "publisher.json")
    if installed is not None:
        given.check_replaces(installed)
        PublisherFile.parse(data, trusted_roots=installed.roots)
    return given


def apply_publisher_file(folder: Path, data: bytes) -> bool:
    """Install a publisher file that is newer than the installed one; whether it was.

    It must be signed by a root that is trusted already. Raises OSError or `ConfigurationError`.
    """
    installed = read_publisher(folder)
    given = PublisherFile.parse(data, trusted_roots=installed.roots)
    # One that is older, as a service behind a cache may give, is no failure.
    if given.publisher_id == installed.publisher_id and given.number <= installed.number:
        return False
    given.check_replaces(installed)
    write_atomically(folder / "publisher.json", data, mode=PUBLIC)
    return True


def apply_answer(
    folder: Path, data: bytes | CompactAnswer, catalog_file: bytes | None = None, *, now_ms: int
) -> HostAnswer:
    """Check a host answer in every respect and install it; nothing is installed when anything is wrong.

    ``data``: the answer as a file, or compact: then ``catalog_file`` has what it names, unless that is here already.
    Raises OSError or `ConfigurationError`, VERSION_WENT_BACK and CATALOG_FILE_NEEDED among its names.
    """
    keys = read_keys_by_id(folder)
    trusted = _read_publisher(folder / "publisher.json") or _read_publisher(folder / "pending" / "publisher.json")
    if not keys or trusted is None:
        raise ConfigurationError(f"No request was made here ({folder}): run kms-fast host request first.")
    public_key = signing.public_bytes(read_host_key(folder))
    if isinstance(data, bytes):
        answer = HostAnswer.open(data, trusted=trusted, public_key=public_key, keys=keys, now_ms=now_ms)
    else:
        given = [CatalogFile.open(catalog_file, trusted=trusted, keys=keys)] if catalog_file is not None else []
        answer = data.complete(
            catalogs=[*_read_present(folder / "catalog.json"), *(file.catalog_data for file in given)],
            publishers=[
                *_read_present(folder / "publisher.json", folder / "pending" / "publisher.json"),
                *(file.publisher_data for file in given),
            ],
            trusted=trusted,
            public_key=public_key,
            now_ms=now_ms,
        )
        answer = replace(answer, key_id=given[0].key_id if given else None)
    _check_newer(folder, answer)
    _check_ledger(folder, answer.certificate)
    # Each file is replaced whole; in this order a host that starts between two of them still finds what it needs.
    write_atomically(folder / "publisher.json", answer.publisher_data, mode=PUBLIC)
    write_atomically(folder / "catalog.json", answer.catalog_data, mode=SECRET)
    write_atomically(folder / "host.cert", answer.chain_data, mode=PUBLIC)
    _promote_keys(folder, answer.key_id)
    for name in ("request.json", "publisher.json"):
        (folder / "pending" / name).unlink(missing_ok=True)
    return answer


def _promote_keys(folder: Path, key_id: bytes | None) -> None:
    """Let the keys that came with a request replace those that are kept, if it was the one that was answered.

    ``key_id``: the key that the answer's catalog was sealed under; None when it had no catalog.
    """
    pending = read_keys(folder / "pending")
    if pending is None:
        return
    kept, path = read_keys(folder), folder / "pending" / "request.json"
    kept_ids = {key.key_id for key in kept.keys} if kept else set()
    pending_ids = {key.key_id for key in pending.keys}
    if key_id in kept_ids ^ pending_ids:
        is_answered = key_id in pending_ids
    else:
        # It does not tell them apart; the request made last does.
        is_answered = path.exists() and set(HostRequest.parse(read_bounded(path)).key_ids) == pending_ids
    if is_answered:
        write_keys(folder, pending)
        (folder / "pending" / "keys.json").unlink()


def _read_present(*paths: Path) -> list[bytes]:
    """The bytes of those files that exist."""
    return [read_bounded(path) for path in paths if path.exists()]


def _check_newer(folder: Path, answer: HostAnswer) -> None:
    """Refuse an answer whose catalog or certificate is older than the installed one."""
    numbers = []
    if (folder / "catalog.json").exists():
        installed_catalog = _read_catalog(folder, answer.publisher)
        numbers.append(("catalog", "number", answer.catalog.number, installed_catalog.number))
    if (folder / "host.cert").exists():
        numbers.append(("certificate", "serial", answer.certificate.serial, read_certificate(folder).serial))
    for what, unit, number, installed_number in numbers:
        if number < installed_number:
            raise ConfigurationError(
                f"The answer's {what} has {unit} {number}, the installed one {installed_number}.",
                name="VERSION_WENT_BACK",
                number=number,
                installed=installed_number,
            )


def _check_ledger(folder: Path, certificate: HostCertificate) -> None:
    """Refuse the certificate of another private key while there is a ledger: it could not go on with that."""
    ledger = folder / "ledger"
    if not list_segments(ledger) or not (folder / "host.cert").exists():
        return
    if read_certificate(folder).host_id != certificate.host_id:
        raise ConfigurationError(
            f"{ledger} was signed with the private key that this host had before: stop the host, move that folder away "
            "and try again. With another key it is another host, with a ledger of its own.",
            file=str(ledger),
        )


def read_installation(folder: Path) -> Installation:
    """What a certified host has, each part verified but the certificates' dates: see `Installation.check_dates`.

    Raises OSError or `ConfigurationError`: HOST_NOT_ACTIVATED when there is no certificate, otherwise the name of the
    check that failed (CERTIFICATE_REVOKED …).
    """
    publisher = read_publisher(folder)
    chain_data, certificate, issuer = _read_chain(folder)
    private_key = read_host_key(folder)
    if signing.public_bytes(private_key) != certificate.public_key:
        raise ConfigurationError(
            f"{folder / 'host.key'} is not the key that {folder / 'host.cert'} certifies: put the right one back."
        )
    _verify(certificate, issuer, publisher, certificate.not_before_ms)
    return Installation(private_key, certificate, issuer, chain_data, _read_catalog(folder, publisher), publisher)


def read_certificate(folder: Path) -> HostCertificate:
    """The installed certificate, not verified. Raises OSError or `ConfigurationError` (HOST_NOT_ACTIVATED)."""
    return _read_chain(folder)[1]


def read_publisher(folder: Path) -> PublisherFile:
    """The installed publisher file. Raises OSError or `ConfigurationError` (HOST_NOT_ACTIVATED when there is none)."""
    publisher = _read_publisher(folder / "publisher.json")
    if publisher is None:
        raise _not_activated(folder)
    return publisher


def _read_catalog(folder: Path, publisher: PublisherFile) -> Catalog:
    path = folder / "catalog.json"
    with _naming(path):
        return Catalog.parse(read_bounded(path), roots=publisher.roots, publisher_id=publisher.publisher_id)


def _read_chain(folder: Path) -> tuple[bytes, HostCertificate, IssuerCertificate]:
    path = folder / "host.cert"
    if not path.exists():
        raise _not_activated(folder)
    data = read_bounded(path, SMALL_BYTES)
    with _naming(path):
        certificate, issuer = parse_chain(data)
    return data, certificate, issuer


def _not_activated(folder: Path) -> ConfigurationError:
    return ConfigurationError(
        f"The host has no certificate from the publisher: there is none in {folder}.", name="HOST_NOT_ACTIVATED"
    )


def _verify(certificate: HostCertificate, issuer: IssuerCertificate, publisher: PublisherFile, at_ms: int) -> None:
    verify_chain(
        certificate,
        issuer,
        roots=publisher.roots,
        publisher_id=publisher.publisher_id,
        at_ms=at_ms,
        revoked=publisher.revoked,
    )


def read_host_key(folder: Path) -> Ed25519PrivateKey:
    """The host's private key. Raises OSError or `ConfigurationError`."""
    path = folder / "host.key"
    try:
        key = load_pem_private_key(read_bounded(path, SMALL_BYTES), None)
    except (ValueError, TypeError):
        raise ConfigurationError(f"{path} is damaged: it does not read as a private key.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} holds a key of another algorithm; kms_fast uses Ed25519.")
    return key


def _read_or_make_host_key(path: Path) -> Ed25519PrivateKey:
    with lock_folder(path.parent):
        if path.exists():
            return read_host_key(path.parent)
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomically(path, pem, mode=SECRET)
        return key


def _read_publisher(path: Path) -> PublisherFile | None:
    if not path.exists():
        return None
    with _naming(path):
        return PublisherFile.parse(read_bounded(path))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the path of an installed file before what is wrong with it: its readers know only bytes."""
    try:
        yield
    except ConfigurationError as error:
        name, details = error.result.name, {**error.details, "file": str(path)}
        raise ConfigurationError(f"{path}: {error.message}", name=name, **details) from None
