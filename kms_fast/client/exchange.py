"""One host, one connection, sans-I/O: bind, request, answer, and the revocation list if the host knows a newer one.

A shell sends what `HostExchange.start` and `receive` return and feeds what arrives, until `done`; `lose` tells why
nothing more will come. Then `outcome` says how the host did.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any

from kms_fast._core import (
    Accepted,
    BindNak,
    Checked,
    ClientSession,
    Fault,
    ProtocolError,
    Rejected,
    Response,
    build_bind,
    build_request,
)
from kms_fast.client.machine import Clock
from kms_fast.client.trust import Inquiry
from kms_fast.discovery.address import HostAddress
from kms_fast.errors import AnswerRejected, ConfigurationError
from kms_fast.model.lease import BatchHeader
from kms_fast.results import BY_NAME, find_result

ACTIVATE, GET_REVOCATIONS = 0, 2
_Told = Accepted | Rejected | BindNak | Fault | Response
_RPC_REFUSED = BY_NAME["RPC_REFUSED"].code


class Call(IntEnum):
    """Call IDs on our connection."""

    BIND = 1
    ACTIVATE = 2
    REVOCATIONS = 3


class Kind(Enum):
    """How a host did."""

    GRANTED = "granted"
    REFUSED = "refused"  # signed
    UNSIGNED = "unsigned"
    REJECTED = "rejected"  # its answer failed a check
    FOREIGN = "foreign"  # serves other interfaces than ours
    UNREACHABLE = "unreachable"
    BOUND = "bound"  # accepts our interface, and was asked for nothing


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one host did. ``code``: the 32-bit result, None when there was none; ``answer``, ``checked`` when signed.

    ``time_ms``: when that was known, by the wall clock.
    """

    host: HostAddress
    kind: Kind
    text: str
    time_ms: int
    code: int | None = None
    answer: bytes = b""
    checked: Checked | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """This host's entry in the details of an error."""
        code = None if self.code is None else find_result(self.code).hex
        return {"host": str(self.host), "outcome": self.kind.value, "code": code, "text": self.text}


class HostBind:
    """Asks one host whether it accepts our interface; see the module's text for how a shell drives it."""

    def __init__(self, host: HostAddress, clock: Clock) -> None:
        self.host = host
        self.outcome: Outcome | None = None
        self.done = False
        self._clock = clock
        self._session = ClientSession()

    def start(self) -> bytes:
        """The first bytes to send on a new connection."""
        return build_bind(Call.BIND)

    def receive(self, data: bytes) -> bytes:
        """Take what arrived and return what to send."""
        try:
            self._session.receive(data)
            outcomes = self._session.take_outcomes()
        except ProtocolError as error:
            self._end(Kind.REJECTED, f"what answers there is no kms_fast host: {error}", code=_RPC_REFUSED)
            return b""
        return b"".join(self._take(outcome) for outcome in outcomes if not self.done)

    def lose(self, why: str) -> None:
        """Nothing more comes from this host: the connection was not made, broke, or the time is up."""
        self._end(Kind.UNREACHABLE, why)

    def _take(self, outcome: _Told) -> bytes:
        match outcome:
            case Accepted(Call.BIND, max_fragment):
                return self._begin(max_fragment)
            case Rejected() | BindNak():
                self._end(Kind.FOREIGN, "another RPC service answers there, not a kms_fast host")
            case Fault(_, status):
                self._end(Kind.UNSIGNED, f"the call was answered with RPC fault 0x{status:08X}", code=_RPC_REFUSED)
            case _:
                self._end(Kind.REJECTED, "an answer came to a call that was not made", code=_RPC_REFUSED)
        return b""

    def _begin(self, max_fragment: int) -> bytes:
        """What to send once the bind is accepted, to a server that takes fragments of this many bytes."""
        self._end(Kind.BOUND, "it accepts our interface")
        return b""

    def _end(self, kind: Kind, text: str, **found: Any) -> None:
        # What was decided stays, whatever happens while the revocation list is on its way.
        if self.outcome is None:
            self.outcome = Outcome(self.host, kind, text, self._clock.now_ms(), **found)
        self.done = True


class HostExchange(HostBind):
    """Asks one host for an activation. ``inquiry`` is what to ask and how to check."""

    def __init__(self, host: HostAddress, inquiry: Inquiry) -> None:
        super().__init__(host, inquiry.clock)
        self._inquiry = inquiry
        self._answer = b""
        self._max_fragment = 0

    def _begin(self, max_fragment: int) -> bytes:
        self._max_fragment = max_fragment
        return build_request(Call.ACTIVATE, 0, ACTIVATE, self._inquiry.request, max_fragment)

    def _take(self, outcome: _Told) -> bytes:
        match outcome:
            case Response(Call.ACTIVATE, answer, result):
                return self._take_answer(answer, result)
            case Response(Call.REVOCATIONS, answer, result) if self.outcome is not None:
                self._take_revocations(answer if result == 0 else None)
            case Fault(Call.REVOCATIONS, _) if self.outcome is not None:
                self._take_revocations(None)
            case _:
                return super()._take(outcome)
        return b""

    def _take_answer(self, answer: bytes | None, code: int) -> bytes:
        if code != 0:
            result = find_result(code)
            self._end(Kind.UNSIGNED, result.meaning, code=code)
            return b""
        self._answer = answer or b""
        self._check()
        checked = self.outcome.checked if self.outcome else None
        if checked is None or BatchHeader.parse(checked.header).revocations_number <= self._inquiry.revocations_number:
            return b""
        self.done = False
        query = self._inquiry.build_revocation_query()
        return build_request(Call.REVOCATIONS, 0, GET_REVOCATIONS, query, self._max_fragment)

    def _check(self) -> None:
        self.outcome = None
        try:
            checked = self._inquiry.check(self._answer)
        except AnswerRejected as error:
            self._end(Kind.REJECTED, error.message, code=error.result.code, details=error.details)
            return
        kind = Kind.REFUSED if checked.result else Kind.GRANTED
        text = find_result(checked.result).meaning
        self._end(kind, text, code=checked.result, answer=self._answer, checked=checked)

    def _take_revocations(self, data: bytes | None) -> None:
        # A host that does not hand out the list it names changes nothing: the answer has passed all checks.
        self.done = True
        if data is not None:
            try:
                self._inquiry.learn_revocations(data)
            except ConfigurationError:
                return
            self._check()
