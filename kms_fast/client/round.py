"""One round over the hosts, sans-I/O: who is asked, in which order, and what comes of it (docs/client.md, "A round").

    hosts known   → ask each until one grants
    none granted  → look the service up once, ask the hosts found that were not asked yet
    end           → the grant, or the error that says most

A shell takes tasks from `next_task` until there are none: a `Service` to look up (then `found` or `not_found`), or a
`HostExchange` to carry out. The same request bytes go to every host. Every signed refusal goes on with the round.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kms_fast.client.events import log_outcome
from kms_fast.client.exchange import HostExchange, Kind, Outcome
from kms_fast.client.trust import Inquiry
from kms_fast.discovery.address import HostAddress
from kms_fast.discovery.srv import Service
from kms_fast.errors import ActivationError, AnswerRejected, NoHost, Refused, Unsigned
from kms_fast.model.lease import Answer, Leaf
from kms_fast.model.policy import format_time
from kms_fast.results import find_result


@dataclass(frozen=True, slots=True)
class Plan:
    """Whom to ask: these hosts in order, then those that the service's records name; None to look nothing up.

    ``route``: the product's, of which this was made.
    """

    hosts: Sequence[HostAddress]
    service: Service | None
    route: tuple[str | None, ...] = ()


class Round:
    """Asks the hosts of a plan until one grants; see the module's text for how a shell drives it."""

    def __init__(self, inquiry: Inquiry, plan: Plan) -> None:
        self.inquiry = inquiry
        self.route = plan.route
        self.outcomes: list[Outcome] = []
        self._waiting = list(plan.hosts)
        self._asked: set[HostAddress] = set()
        self._service = plan.service
        self._lookup_failure: NoHost | None = None
        self._exchange: HostExchange | None = None

    def next_task(self) -> Service | HostExchange | None:
        """What to do next; None when the round is over."""
        if self._exchange is not None:
            if self._exchange.outcome is None:
                raise RuntimeError("the last exchange was not carried out")
            self.outcomes.append(self._exchange.outcome)
            log_outcome(self._exchange.outcome, self.inquiry)
            self._exchange = None
        if self.grant is not None:
            return None
        while self._waiting:
            host = self._waiting.pop(0)
            if host not in self._asked:
                self._asked.add(host)
                self._exchange = HostExchange(host, self.inquiry)
                return self._exchange
        service, self._service = self._service, None
        return service

    def found(self, hosts: Sequence[HostAddress]) -> None:
        """The lookup gave these hosts, in the order to ask them."""
        self._waiting.extend(hosts)

    def not_found(self, failure: NoHost) -> None:
        """The lookup gave no host."""
        self._lookup_failure = failure

    @property
    def grant(self) -> Outcome | None:
        """The outcome that granted, if there is one."""
        return next((outcome for outcome in self.outcomes if outcome.kind is Kind.GRANTED), None)

    @property
    def decisive(self) -> Outcome | None:
        """The outcome that decides the round: the grant; the first signed refusal; the first of answers that agree."""
        if self.grant is not None:
            return self.grant
        refused = next((outcome for outcome in self.outcomes if outcome.kind is Kind.REFUSED), None)
        if refused is not None:
            return refused
        answered = [outcome for outcome in self.outcomes if outcome.kind in (Kind.UNSIGNED, Kind.REJECTED)]
        return answered[0] if len({outcome.code for outcome in answered}) == 1 else None

    def failure(self) -> ActivationError:
        """Why nobody granted: what the decisive outcome says, else how the lookup failed, or NO_HOST_REACHED."""
        hosts, decisive = [outcome.to_json() for outcome in self.outcomes], self.decisive
        if decisive is not None and decisive.kind is Kind.REFUSED:
            return describe_refusal(decisive, self.inquiry, hosts)
        if decisive is not None:
            error = AnswerRejected if decisive.kind is Kind.REJECTED else Unsigned
            return error(f"{decisive.host}: {decisive.text}", code=decisive.code, hosts=hosts, **decisive.details)
        if not hosts and self._lookup_failure is not None:
            return self._lookup_failure
        # Another vendor's host under the same service name is nobody's mistake: named only when it is all there is.
        of_ours = [outcome for outcome in self.outcomes if outcome.kind is not Kind.FOREIGN]
        said = "; ".join(f"{outcome.host}: {outcome.text.rstrip('.')}" for outcome in of_ours or self.outcomes)
        names = {} if self._lookup_failure is None else {"names": self._lookup_failure.details["names"]}
        return NoHost(f"No host activated this machine. {said or 'There was none to ask'}.", hosts=hosts, **names)


def describe_refusal(outcome: Outcome, inquiry: Inquiry, hosts: list[dict[str, Any]]) -> Refused:
    """The error of a signed refusal, with the numbers, times or key that its cure needs."""
    assert outcome.checked is not None
    leaf, answer = Leaf.parse(outcome.checked.leaf), Answer.parse(outcome.answer)
    sku, family = inquiry.trust.sku, inquiry.trust.publisher.family(inquiry.trust.sku.family)
    result = find_result(leaf.result)
    details: dict[str, Any] = {"product": sku.name, "host": str(outcome.host)}
    message = f"{outcome.host}: {result.meaning}"
    if result.name == "COUNT_TOO_LOW":
        details |= {"count": leaf.count, "threshold": leaf.threshold}
        message = f"{outcome.host} has seen {leaf.count} of the {leaf.threshold} machines that {sku.name} needs."
    elif result.name == "HOST_CANNOT_SERVE":
        certified = {f.number: f.generation for f in answer.host_certificate.families}.get(sku.family)
        what = f"does not cover the family {family.name!r} of {sku.name}"
        if certified is not None:
            what = f"covers the family {family.name!r} up to generation {certified}, {sku.name} has {sku.generation}"
        needed = f"a host key for the family {family.name!r} of generation {sku.generation} or later"
        message = f"The certificate of {outcome.host} {what}. It needs {needed}."
        details |= {"family": family.number, "family_name": family.name, "generation": sku.generation}
        details |= {"certified_generation": certified, "key_needed": needed}
    elif result.name == "CLOCKS_DIFFER":
        here, there = format_time(leaf.client_time_ms), format_time(answer.header.time_ms)
        message = f"This machine's clock showed {here}, that of {outcome.host} {there}."
        details |= {"client_time": here, "host_time": there}
    return Refused(message, code=leaf.result, hosts=hosts, **details)
