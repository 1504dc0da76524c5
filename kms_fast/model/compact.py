"""Requests and answers short enough for text and QR codes (docs/files.md, "Compact forms").

A compact request has all of the request, so that it becomes the same file again. A compact answer has the
certificates, and names catalog and publisher file by number and hash: these are files.
"""

import hmac
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from kms_fast.errors import ConfigurationError
from kms_fast.model import signing
from kms_fast.model.catalog import Catalog
from kms_fast.model.certificate import HostCertificate, IssuerCertificate, parse_chain
from kms_fast.model.document import hash_document, malformed
from kms_fast.model.exchange import MAC_SIZE, HostAnswer, HostRequest, check_certified
from kms_fast.model.keys import KEY_ID_SIZE, MAX_KEYS_PER_HOST
from kms_fast.model.publisher_file import PublisherFile

VERSION: Final = 1
_HEADER = struct.Struct("<BBH")
_REQUEST = struct.Struct("<16s32s16sQ")
_ANSWER = struct.Struct("<Q32sQ32s")


class Kind(IntEnum):
    """What a compact form is of. The value is its second byte."""

    REQUEST = 1
    ANSWER = 2

    @property
    def description(self) -> str:
        """The kind in words, without an article."""
        return f"host {self.name.lower()}"


@dataclass(frozen=True, slots=True)
class Header:
    """The first 4 bytes of a compact form: version, kind, size of the whole in bytes."""

    kind: Kind
    size_bytes: int

    @classmethod
    def read(cls, data: bytes) -> "Header":
        """The header of ``data``, which may have more bytes than its form; raises `ConfigurationError`."""
        if len(data) < _HEADER.size:
            raise malformed("The text is too short for a request or an answer.")
        version, kind, size_bytes = _HEADER.unpack_from(data)
        if version != VERSION or kind not in tuple(Kind):
            raise malformed("The text is of a version or kind that this kms_fast does not know; update kms_fast.")
        return cls(Kind(kind), size_bytes)


def pack_request(request: HostRequest) -> bytes:
    """A request in 140 + 40 n bytes, for n host keys."""
    fixed = _REQUEST.pack(request.publisher_id, request.public_key, request.installation_id, request.created_ms)
    return _pack(Kind.REQUEST, fixed + b"".join(request.key_ids) + b"".join(request.macs) + request.signature)


def unpack_request(data: bytes) -> HostRequest:
    """The request in ``data``; raises `ConfigurationError` (OFFLINE_DATA_MALFORMED). Verifies nothing more."""
    content = _unpack(Kind.REQUEST, data)
    keys, rest = divmod(len(content) - _REQUEST.size - signing.SIGNATURE_SIZE, KEY_ID_SIZE + MAC_SIZE)
    if rest or not 1 <= keys <= MAX_KEYS_PER_HOST:
        raise malformed(f"The host request has {len(data)} bytes, which fits no number of host keys.")
    publisher_id, public_key, installation_id, created_ms = _REQUEST.unpack_from(content)
    macs_at = _REQUEST.size + keys * KEY_ID_SIZE
    signature_at = macs_at + keys * MAC_SIZE
    return HostRequest(
        publisher_id,
        _split(content[_REQUEST.size : macs_at], KEY_ID_SIZE),
        public_key,
        installation_id,
        created_ms,
        _split(content[macs_at:signature_at], MAC_SIZE),
        content[signature_at:],
    )


@dataclass(frozen=True, slots=True)
class CompactAnswer:
    """Certificates, and number and hash (`hash_document`) of the catalog and the publisher file they go with."""

    certificate: HostCertificate
    issuer: IssuerCertificate
    catalog_number: int
    catalog_hash: bytes
    publisher_number: int
    publisher_hash: bytes

    @classmethod
    def of(
        cls, certificate: HostCertificate, issuer: IssuerCertificate, *, catalog: bytes, publisher_data: bytes
    ) -> "CompactAnswer":
        """The answer with these certificates, our own signed ``catalog`` and ``publisher.json``."""
        numbers = [json.loads(data)["body"]["number"] for data in (catalog, publisher_data)]
        return cls(certificate, issuer, numbers[0], hash_document(catalog), numbers[1], hash_document(publisher_data))

    def pack(self) -> bytes:
        """The answer in 396 + 12 f bytes, for f families."""
        fixed = _ANSWER.pack(self.catalog_number, self.catalog_hash, self.publisher_number, self.publisher_hash)
        return _pack(Kind.ANSWER, fixed + self.certificate.to_bytes() + self.issuer.to_bytes())

    @classmethod
    def unpack(cls, data: bytes) -> "CompactAnswer":
        """The answer in ``data``; raises `ConfigurationError` (OFFLINE_DATA_MALFORMED). Verifies nothing."""
        content = _unpack(Kind.ANSWER, data)
        if len(content) < _ANSWER.size:
            raise malformed(f"The host answer has only {len(data)} bytes.")
        return cls(*parse_chain(content[_ANSWER.size :]), *_ANSWER.unpack_from(content))

    def complete(
        self,
        *,
        catalogs: Sequence[bytes],
        publishers: Sequence[bytes],
        trusted: PublisherFile,
        public_key: bytes,
        now_ms: int,
    ) -> HostAnswer:
        """Find the named files among those there are, and verify all parts as `HostAnswer.open` does.

        Raises `ConfigurationError`, CATALOG_FILE_NEEDED when a named file is not among them.
        """
        if self.issuer.publisher_id != trusted.publisher_id:
            raise malformed(f"The answer is not one of {trusted.name}, whose request it should answer.")
        if not hmac.compare_digest(self.certificate.public_key, public_key):
            raise malformed("The answer's certificate belongs to another host: apply it where its request was made.")
        files = [(PublisherFile.parse(data, trusted_roots=trusted.roots).number, data) for data in publishers]
        publisher_data = _find("publisher file", self.publisher_number, self.publisher_hash, files)
        publisher = check_certified(
            self.certificate, self.issuer, publisher_data, trusted=trusted, public_key=public_key, now_ms=now_ms
        )
        opened = {
            data: Catalog.parse(data, roots=publisher.roots, publisher_id=publisher.publisher_id) for data in catalogs
        }
        files = [(catalog.number, data) for data, catalog in opened.items()]
        catalog_data = _find("catalog", self.catalog_number, self.catalog_hash, files)
        return HostAnswer(self.certificate, self.issuer, opened[catalog_data], publisher, catalog_data, publisher_data)


def _find(what: str, number: int, digest: bytes, files: Sequence[tuple[int, bytes]]) -> bytes:
    """The file of this number and hash among ``files`` (number and bytes, verified)."""
    for there, data in files:
        if there == number and hash_document(data) == digest:
            return data
    present = max((there for there, _ in files), default=0)
    if present > number:
        raise ConfigurationError(
            f"The answer goes with {what} {number}, but this host has {what} {present} already.",
            name="VERSION_WENT_BACK",
            number=number,
            installed=present,
        )
    # Of the same number but of another hash: signed anew, so what is here is of no use to name.
    instead = f"; there is only {what} {present}" if 0 < present < number else ""
    raise ConfigurationError(
        f"The answer goes with {what} {number}, which is not here{instead}.",
        name="CATALOG_FILE_NEEDED",
        missing=what,
        number=number,
    )


def _pack(kind: Kind, content: bytes) -> bytes:
    return _HEADER.pack(VERSION, kind, _HEADER.size + len(content)) + content


def _unpack(kind: Kind, data: bytes) -> bytes:
    header = Header.read(data)
    if header.kind is not kind:
        raise malformed(f"This is a {header.kind.description}, but a {kind.description} belongs here.")
    if header.size_bytes != len(data):
        raise malformed(f"The {kind.description} has {len(data)} bytes, but says that it has {header.size_bytes}.")
    return data[_HEADER.size :]


def _split(data: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(data[at : at + size] for at in range(0, len(data), size))
