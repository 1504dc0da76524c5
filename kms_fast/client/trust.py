"""What a client trusts: the publisher file, the setup key and the newest revocation list; and what it asks a host."""

import struct
from collections.abc import Collection
from functools import cached_property
from uuid import UUID

from kms_fast._core import Checked, SkuKeys, Verifier
from kms_fast.client.machine import Clock
from kms_fast.client.request import RequestFields
from kms_fast.errors import AnswerRejected, ConfigurationError, KmsFastError
from kms_fast.model import signing
from kms_fast.model.catalog import Sku, find_sku
from kms_fast.model.keys import KeyKind, ProductKey, derive_sku_keys, parse_key
from kms_fast.model.lease import BatchHeader
from kms_fast.model.policy import format_time
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.revocation import RevocationList

HEADER_TIME_STEPS = (24, 25)


def newest_revocations(publisher: PublisherFile, received: bytes | None) -> RevocationList | None:
    """The newer of the publisher file's list and a stored one, which is verified. Raises `ConfigurationError`."""
    if received is None:
        return publisher.revocations
    revocations = RevocationList.parse(received)
    if revocations.number <= publisher.revocations_number:
        return publisher.revocations
    revocations.verify(publisher.roots, publisher.publisher_id)
    return revocations


def require_sku(publisher: PublisherFile, wanted: UUID) -> Sku:
    """The SKU of a product that is installed; raises `ConfigurationError` when it was given up."""
    sku = find_sku(publisher.skus, wanted)
    if sku is None:
        raise describe_given_up(publisher, wanted)
    return sku


def describe_given_up(publisher: PublisherFile, wanted: UUID) -> ConfigurationError:
    """What to say of a product that is installed and not in the publisher file."""
    return ConfigurationError(
        f"The publisher has given the product {wanted} up: publisher.json of {publisher.name} (number "
        f"{publisher.number}) has it no more. Get a newer one, or remove the product's key: kms-fast client "
        f"uninstall-key --sku {wanted}."
    )


class Trust:
    """The checks of one SKU's answers under a publisher file.

    ``key``: the setup key, None for a product without one, which hosts are not asked for. ``customer_id``: the one a
    product pins, 0 for none.
    """

    def __init__(self, publisher: PublisherFile, sku: Sku, key: ProductKey | None, customer_id: int = 0) -> None:
        self.publisher = publisher
        self.sku = sku
        self.key = key
        self.customer_id = customer_id

    @cached_property
    def keys(self) -> SkuKeys:
        """What seals requests and opens answers. Raises `KmsFastError` (NO_KEY_INSTALLED) without a setup key."""
        if self.key is None:
            raise KmsFastError(f"No client setup key of {self.sku.name} is installed.", name="NO_KEY_INSTALLED")
        sku_id, publisher_id = self.sku.id.bytes, self.publisher.publisher_id
        return SkuKeys(sku_id, *derive_sku_keys(self.key.secret, publisher_id, sku_id))

    @classmethod
    def of_key(cls, publisher: PublisherFile, text: str) -> "Trust":
        """The checks of the SKU that a client setup key is for. Raises `KeyInvalid`, `ConfigurationError`."""
        key = parse_key(text, expect=KeyKind.CLIENT_SETUP, publisher_id=publisher.publisher_id)
        return cls(publisher, publisher.sku(key.reference), key)

    def make_verifier(self, revoked: Collection[int] = ()) -> Verifier:
        """A verifier that refuses certificates with these serials."""
        return Verifier(
            publisher_id=self.publisher.publisher_id,
            roots=self.publisher.roots,
            sku=self.keys,
            family=self.sku.family,
            generation=self.sku.generation,
            customer_id=self.customer_id,
            revoked=revoked,
            verify_signature=signing.verify_message,
        )


class Inquiry:
    """One request and what its answers are checked against; several hosts may get the same request.

    ``mark_ms``: the highest header time accepted in a grant so far. ``sent_again``: the request is one that was made
    earlier and got no answer.
    """

    def __init__(
        self,
        trust: Trust,
        request: bytes,
        fields: RequestFields,
        *,
        revocations: RevocationList | None,
        clock: Clock,
        mark_ms: int,
        sent_again: bool = False,
    ) -> None:
        self.trust = trust
        self.request = request
        self.fields = fields
        self.mark_ms = mark_ms
        self.sent_again = sent_again
        self.revocations = revocations
        self.clock = clock
        self._verifier = self._make_verifier()

    @property
    def revocations_number(self) -> int:
        """The number of the newest list known, 0 when there is none."""
        return self.revocations.number if self.revocations else 0

    def check(self, answer: bytes) -> Checked:
        """All 25 checks of an answer. Raises `AnswerRejected`; for a time out of bounds its details have both times."""
        now_ms = self.clock.now_ms()
        fields = self.fields
        try:
            return self._verifier.check(
                self.request, fields.cmid, fields.hardware_digest, answer, now_ms=now_ms, mark_ms=self.mark_ms
            )
        except AnswerRejected as error:
            if error.details["step"] not in HEADER_TIME_STEPS:
                raise
            checked = self._verifier.check(
                self.request, fields.cmid, fields.hardware_digest, answer, now_ms=now_ms, accept=False
            )
            raise _describe_times(error, checked, now_ms, self.mark_ms) from None

    def build_revocation_query(self) -> bytes:
        """The 8 bytes that ask for a newer list (docs/protocol.md, "Revocations")."""
        return struct.pack("<BBHI", 1, 3, 0, self.revocations_number)

    def learn_revocations(self, data: bytes) -> None:
        """Take over a list if it is newer. Raises `ConfigurationError` for one that is not the publisher's."""
        revocations = RevocationList.parse(data)
        revocations.verify(self.trust.publisher.roots, self.trust.publisher.publisher_id)
        if revocations.number > self.revocations_number:
            self.revocations = revocations
            self._verifier = self._make_verifier()

    def _make_verifier(self) -> Verifier:
        return self.trust.make_verifier(self.revocations.serials if self.revocations else ())


def _describe_times(error: AnswerRejected, checked: Checked, now_ms: int, mark_ms: int) -> AnswerRejected:
    host_ms = BatchHeader.parse(checked.header).time_ms
    message = f"The host signed at {format_time(host_ms)}; this machine's clock shows {format_time(now_ms)}"
    details = error.details | {"host_time": format_time(host_ms), "client_time": format_time(now_ms)}
    if error.result.name == "CLOCK_SET_BACK":
        message += f"; an earlier activation was signed at {format_time(mark_ms)}"
        details |= {"earlier_time": format_time(mark_ms)}
    return AnswerRejected(f"{message}.", name=error.result.name, **details)
