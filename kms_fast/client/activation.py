"""One installed product: the request it makes, the hosts it asks, and what an answer changes in its state."""

import random
from functools import cached_property

from kms_fast.client.exchange import Outcome
from kms_fast.client.history import describe_attempt
from kms_fast.client.lease import Licence, judge, verify_lease
from kms_fast.client.machine import Clock, Machine
from kms_fast.client.request import RequestFields
from kms_fast.client.round import Plan, Round
from kms_fast.client.state import Failure, Product, State, StoredLease
from kms_fast.client.trust import Inquiry, Trust, newest_revocations
from kms_fast.discovery.address import parse_address
from kms_fast.discovery.srv import Service
from kms_fast.errors import ActivationError
from kms_fast.model.lease import Leaf
from kms_fast.model.policy import RESEND_MS, renewal_delay_ms, retry_delay_ms
from kms_fast.model.revocation import RevocationList


class InstalledProduct:
    """A product that is installed, and the state it belongs to; methods change the state, callers write it."""

    def __init__(self, state: State, product: Product, trust: Trust, clock: Clock, machine: Machine) -> None:
        self.state = state
        self.product = product
        self.trust = trust
        self._clock = clock
        self._machine = machine

    @cached_property
    def hardware_digest(self) -> bytes:
        """The hardware digest under the installation's CMID, 16 bytes."""
        state = self.state
        return self._machine.digest(state.hardware_sources, state.cmid.bytes, self.trust.publisher.publisher_id)

    def judge(self) -> Licence:
        """The licence state now."""
        return judge(
            self.product,
            self.trust,
            cmid=self.state.cmid.bytes,
            hardware_digest=self.hardware_digest,
            clock=self._clock,
            mark_ms=self.state.mark_ms,
        )

    def make_round(self, domain: str | None) -> Round:
        """The round that asks for a lease; its request stays pending, to be sent again if no answer comes."""
        revocations = newest_revocations(self.trust.publisher, self.state.revocations)
        fields = self._read_pending()
        sent_again = fields is not None
        if fields is None:
            fields = self._make_fields(revocations.number if revocations else 0)
            self.product.pending = fields.seal(self.trust.keys)
        assert self.product.pending is not None
        inquiry = Inquiry(
            self.trust,
            self.product.pending,
            fields,
            revocations=revocations,
            clock=self._clock,
            mark_ms=self.state.mark_ms,
            sent_again=sent_again,
        )
        return Round(inquiry, self._plan(domain))

    def take(self, round_: Round) -> ActivationError | None:
        """Note what a round brought: the lease, or the error, which is returned."""
        inquiry = round_.inquiry
        asked = inquiry.trust.key
        if asked is None or (self.state.cmid.bytes, self.product.key) != (inquiry.fields.cmid, asked.text):
            return ActivationError("The key was changed while it was being activated: activate again.")
        self._learn(inquiry.revocations)
        signed = [outcome for outcome in round_.outcomes if outcome.checked is not None]
        if signed:
            self.product.pending = None
        now_ms = self._clock.now_ms()
        error = None
        if round_.grant is not None:
            due_ms = self._store(round_.grant, inquiry.request)
        else:
            error = round_.failure()
            self.product.failure = Failure(now_ms, error.result.code, error.message)
            due_ms = now_ms + self._retry_delay_ms(signed)
        self.product.note(describe_attempt(round_, error, now_ms))
        # A host or domain that was set meanwhile is asked at once, as its command said, whatever came of the others.
        if round_.route == self.product.route:
            self.product.next_attempt_ms = due_ms
            if round_.grant is not None:
                self.product.cached_host = str(round_.grant.host) if self.product.host_cache else None
        return error

    def _learn(self, revocations: RevocationList | None) -> None:
        """Keep a round's list, unless another process has learned a newer one meanwhile."""
        known = self.state.revocations
        if revocations is not None and (known is None or revocations.number > RevocationList.parse(known).number):
            self.state.revocations = revocations.to_bytes()

    def _read_pending(self) -> RequestFields | None:
        """The fields of the pending request, while it is less than an hour old and still tells the truth."""
        if self.product.pending is None:
            return None
        fields = RequestFields.open(self.product.pending, self.trust.keys)
        if fields is None or not 0 <= self._clock.now_ms() - fields.client_time_ms < RESEND_MS:
            return None
        same = (fields.cmid, fields.hardware_digest) == (self.state.cmid.bytes, self.hardware_digest)
        return fields if same else None

    def _make_fields(self, revocations_number: int) -> RequestFields:
        licence, state = self.judge(), self.state
        return RequestFields(
            cmid=state.cmid.bytes,
            hardware_digest=self.hardware_digest,
            client_time_ms=self._clock.now_ms(),
            name=self._machine.name,
            previous_cmid=state.previous_cmid.bytes if state.previous_cmid else bytes(16),
            minutes_to_expiry=licence.status.minutes_left,
            revocations_number=revocations_number,
            licence_state=licence.status.state,
            virtual=self._machine.virtual,
            predecessor=licence.lease.leaf_hash if licence.lease else bytes(32),
        )

    def _plan(self, domain: str | None) -> Plan:
        product = self.product
        if product.host is not None:
            return Plan([parse_address(product.host)], None, product.route)
        cached = [] if product.cached_host is None else [parse_address(product.cached_host)]
        return Plan(cached, Service(self.trust.publisher.srv_name, product.domain or domain), product.route)

    def _store(self, grant: Outcome, request: bytes) -> int:
        """Keep a grant; returns when it is to be renewed."""
        boot_id, boot_ms = self._clock.since_boot() or ("", 0)
        self.product.lease = StoredLease(request, grant.answer, self._clock.now_ms(), boot_id, boot_ms)
        self.product.failure = self.product.warned_days = None
        lease = verify_lease(self.product.lease, self.trust)
        self.state.mark_ms = max(self.state.mark_ms, lease.header.time_ms)
        leaf = lease.leaf
        return lease.received_ms + renewal_delay_ms(leaf.renewal_interval_min, leaf.validity_min, random.random())

    def _retry_delay_ms(self, signed: list[Outcome]) -> int:
        """The activation interval that a host signed, else the lease's or the catalog's, as a delay."""
        lease = self.judge().lease
        terms = lease.leaf if lease else self.trust.sku
        words = [Leaf.parse(outcome.checked.leaf) for outcome in signed if outcome.checked is not None]
        interval_min = (words[0] if words else terms).activation_interval_min
        return retry_delay_ms(interval_min, terms.validity_min, random.random())
