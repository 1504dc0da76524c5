"""The client's events: what was asked and what was answered, logged for each host under ``kms_fast.client``."""

import logging
from collections.abc import Iterator
from uuid import UUID

from kms_fast.client.exchange import Kind, Outcome
from kms_fast.client.trust import Inquiry
from kms_fast.model.events import SENT_AGAIN, SIGNED, ClientAnswer, ClientRequest, Event
from kms_fast.model.lease import Leaf
from kms_fast.results import BY_NAME

logger = logging.getLogger("kms_fast.client")

# A host that answers for others than us, or not at all, did not get the request as far as anybody can tell.
_NOT_RECEIVED = {Kind.UNREACHABLE: "NO_HOST_REACHED", Kind.FOREIGN: "RPC_REFUSED"}


def log_outcome(outcome: Outcome, inquiry: Inquiry) -> None:
    """Log 12288 for a host that was asked, and 12289 when it answered."""
    if logger.isEnabledFor(logging.INFO):
        for event in build_events(outcome, inquiry):
            logger.info(event.line, extra={"event": event.number, "fields": event.to_json()})


def build_events(outcome: Outcome, inquiry: Inquiry) -> Iterator[Event]:
    """The events of one host in a round."""
    fields, sku = inquiry.fields, inquiry.trust.sku
    failure = _NOT_RECEIVED.get(outcome.kind)
    yield ClientRequest(
        result=BY_NAME[failure].code if failure else 0,
        flags=SENT_AGAIN if inquiry.sent_again else 0,
        host=str(outcome.host),
        cmid=UUID(bytes=fields.cmid),
        client_time_ms=fields.client_time_ms,
        virtual=fields.virtual,
        licence_state=fields.licence_state,
        minutes_to_expiry=fields.minutes_to_expiry,
        sku=sku.id,
        threshold=inquiry.trust.publisher.family(sku.family).threshold,
    )
    if failure is None:
        yield _build_answer(outcome)


def _build_answer(outcome: Outcome) -> ClientAnswer:
    assert outcome.code is not None
    if outcome.checked is None:
        return ClientAnswer(result=outcome.code, flags=0, activated=False, client_time_ms=outcome.time_ms)
    leaf = Leaf.parse(outcome.checked.leaf)
    return ClientAnswer(
        result=outcome.code,
        flags=SIGNED,
        activated=outcome.kind is Kind.GRANTED,
        count=leaf.count,
        activation_interval_min=leaf.activation_interval_min,
        renewal_interval_min=leaf.renewal_interval_min,
        client_time_ms=outcome.time_ms,
    )
