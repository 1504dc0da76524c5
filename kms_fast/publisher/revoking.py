"""Revoking host certificates: one, those of a host, or all that a host key was used for."""

import uuid
from collections.abc import Collection

from kms_fast.errors import ConfigurationError
from kms_fast.model import policy
from kms_fast.model.certificate import host_id
from kms_fast.model.revocation import MAX_SERIALS, RevocationList, issue_revocation_list
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.records import HostKeyRecord, Records


def find_serials_of_host(publisher: Publisher, host: bytes, now_ms: int) -> list[int]:
    """Serials of a host's certificates that have neither ended nor been revoked; ``host`` is its ID.

    Raises `ConfigurationError` when there is none.
    """
    serials = _find_serials(publisher, host, now_ms)
    if not serials:
        raise ConfigurationError(
            f"Host {uuid.UUID(bytes=host)} has no certificate that could be revoked: see kms-fast publisher customers."
        )
    return serials


def find_serials_of_key(publisher: Publisher, key: HostKeyRecord, now_ms: int) -> list[int]:
    """The same for all hosts that a host key has activated."""
    hosts = {host_id(public_key) for public_key in publisher.records.list_activated(key.secrets.key_id)}
    serials = sorted(serial for host in hosts for serial in _find_serials(publisher, host, now_ms))
    if not serials:
        raise ConfigurationError(
            f"The host key that ends in {key.secrets.last_five} has no certificate that could be "
            "revoked: see kms-fast publisher customers."
        )
    return serials


def _find_serials(publisher: Publisher, host: bytes, now_ms: int) -> list[int]:
    return [
        record.certificate.serial
        for record in publisher.records.list_certificates(host)
        if record.revoked_ms is None and record.certificate.not_after_ms >= now_ms
    ]


def revoke(publisher: Publisher, serials: Collection[int], passphrase: bytes, *, now_ms: int) -> RevocationList:
    """Revoke host certificates: the next revocation list holds their serials, or nothing is changed.

    The list leaves out what nobody holds a lease of any more. Raises OSError or `ConfigurationError`: a serial that was
    not issued or is revoked already, too many of them, KEY_FILE_LOCKED.
    """
    issuer_key = publisher.read_issuer_key(passphrase)
    records = publisher.records
    with records.transaction():
        for serial in serials:
            if not records.has_certificate(serial):
                raise ConfigurationError(
                    f"No certificate with serial {serial} was issued: see kms-fast publisher customers."
                )
            if not records.add_revocation(serial, now_ms):
                raise ConfigurationError(
                    f"Certificate {serial} is revoked already: nothing is left to do but to export."
                )
        revocations = issue_revocation_list(
            issuer_key,
            publisher.issuer,
            number=records.next_revocation_number(),
            issued_ms=now_ms,
            serials=_list_serials(records, now_ms),
        )
        records.add_revocation_list(revocations.number, revocations.to_bytes())
    return revocations


def _list_serials(records: Records, now_ms: int) -> list[int]:
    """Serials of the revoked certificates that a lease may still come from: they ended less than 365 days ago."""
    oldest_ms = now_ms - policy.MAX_VALIDITY_MIN * 60_000
    listed = [certificate for certificate in records.list_revoked() if certificate.not_after_ms >= oldest_ms]
    if len(listed) > MAX_SERIALS:
        first_ms = min(certificate.not_after_ms for certificate in listed)
        room = policy.format_time(now_ms + first_ms - oldest_ms)
        raise ConfigurationError(
            f"The revocation list would have {len(listed)} serials, and holds at most {MAX_SERIALS}; nothing was "
            f"revoked. Revoke fewer, the most dangerous first; kms-fast publisher disable-key keeps the hosts of a key "
            f"from renewing. The next serial leaves the list on {room}."
        )
    return [certificate.serial for certificate in listed]
