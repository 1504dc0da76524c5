"""The client's events: what was asked and what was answered, logged for each host."""

from uuid import UUID

from kms_fast.client.exchange import Kind, Outcome
from kms_fast.client.trust import Inquiry
from kms_fast.messages import log
from kms_fast.model.events import SENT_AGAIN, SIGNED, ClientAnswer, ClientRequest
from kms_fast.model.lease import Leaf
from kms_fast.results import BY_NAME

# A host that answers for others than us, or not at all, did not get the request as far as anybody can tell.
_NOT_RECEIVED = {Kind.UNREACHABLE: "NO_HOST_REACHED", Kind.FOREIGN: "RPC_REFUSED"}


def log_outcome(outcome: Outcome, inquiry: Inquiry) -> None:
    """Log 12288 for a host that was asked, and 12289 when it answered."""
    failure = _NOT_RECEIVED.get(outcome.kind)
    log("HOST_ASKED", event=_build_request(outcome, inquiry, failure))
    if failure is None:
        log("HOST_ANSWERED", event=_build_answer(outcome))


def _build_request(outcome: Outcome, inquiry: Inquiry, failure: str | None) -> ClientRequest:
    fields, sku = inquiry.fields, inquiry.trust.sku
    return ClientRequest(
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
