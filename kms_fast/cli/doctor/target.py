"""One host as the network shows it: its name, its port, its interface, its certificate, its clock.

It is asked for nothing that counts: a probe is refused for its clock (`kms_fast.client.probe`).
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from kms_fast.cli.doctor.ladder import Check, Finding, Verdict, fail, ok, skip, warn
from kms_fast.client.blocking import CONNECT_S, ask, describe_failure
from kms_fast.client.exchange import HostBind, Kind, Outcome
from kms_fast.client.machine import SystemClock
from kms_fast.client.probe import build_probe
from kms_fast.client.trust import Trust
from kms_fast.clock import wall_clock_ms
from kms_fast.discovery.address import HostAddress
from kms_fast.model.certificate import HostCertificate
from kms_fast.model.lease import Answer
from kms_fast.model.policy import CERTIFICATE_WARNING_DAYS, CLOCK_TOLERANCE_MS, MINUTE_MS, days_until, format_time
from kms_fast.results import BY_NAME, find_result

CLOCK_WARNING_MS: Final = 5 * MINUTE_MS
UNREACHED: Final = "Check that the host runs, that the name is right, and that firewalls on the way let TCP port {} in."
SILENT: Final = "Look at what listens on TCP port {} there: another program that speaks no RPC, or a host that hangs."


@dataclass
class TargetContext:
    """A host to look at. ``about``: what it is called; ``revocations``: a list that was received; ``trusts``: of the
    products that would ask it, as far as their setup keys are here; ``needed_by``: the SKUs that ask no other. What the
    checks learn stands below: ``outcomes`` are those of the products in turn, without any that of a bind.
    """

    host: HostAddress
    about: str = ""
    revocations: bytes | None = None
    trusts: Sequence[Trust] = ()
    needed_by: set[UUID] = field(default_factory=set)
    addresses: Sequence[str] = ()
    outcomes: Sequence[Outcome] = ()
    asked_ms: int = 0


def check_name(context: TargetContext) -> Finding:
    """The name resolves."""
    host = context.host
    try:
        found = socket.getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return fail(
            f"{host.name}: {describe_failure(error)}.",
            "Correct the name, or the record that names it: a stale record should be removed.",
        )
    context.addresses = list(dict.fromkeys(str(name[0]) for *_, name in found))
    said = (
        "It needs no look-up." if host.name in context.addresses else f"{host.name} is {', '.join(context.addresses)}."
    )
    return ok(said, addresses=context.addresses)


def check_reach(context: TargetContext) -> Finding:
    """A connection can be made to each address."""
    port = context.host.port
    failures = {address: why for address in context.addresses if (why := try_to_connect(address, port)) is not None}
    said = "; ".join(f"{HostAddress(address, port)}: {why}" for address, why in failures.items())
    cure = UNREACHED.format(port)
    if len(failures) == len(context.addresses):
        return fail(f"No connection can be made: {said}.", cure, failures=failures)
    if failures:
        return warn(f"Not every address can be reached: {said}.", cure, failures=failures)
    return ok(f"TCP port {port} takes connections.")


def try_to_connect(address: str, port: int) -> str | None:
    """Why no connection can be made, None when one was."""
    try:
        socket.create_connection((address, port), CONNECT_S).close()
    except OSError as error:
        return describe_failure(error)
    return None


def check_interface(context: TargetContext) -> Finding:
    """A bind with our interface is accepted; whatever comes after it is for the next checks."""
    context.asked_ms = wall_clock_ms()
    host, clock = context.host, SystemClock()
    probes: list[HostBind] = [build_probe(host, trust, clock, context.revocations) for trust in context.trusts]
    context.outcomes = [_ask(exchange) for exchange in probes or [HostBind(host, clock)]]
    outcome = context.outcomes[0]
    if outcome.kind is Kind.FOREIGN:
        return warn(
            "A foreign RPC server: it rejects our interface in the standard way, so it is not a kms_fast host. Its "
            "clients are its own business.",
            "Clients of kms_fast need another host or record; they pass this one over.",
        )
    if outcome.kind is Kind.UNREACHABLE:
        return fail(f"It takes the connection, but {outcome.text}.", SILENT.format(context.host.port))
    if outcome.code == BY_NAME["RPC_REFUSED"].code:
        return Finding(Verdict.FAILED, f"{outcome.text[:1].upper()}{outcome.text[1:]}.", *_cure_of(outcome))
    return ok("It is a kms_fast host: it accepts our interface.")


def _ask(exchange: HostBind) -> Outcome:
    ask(exchange)
    assert exchange.outcome is not None
    return exchange.outcome


def check_certificate(context: TargetContext) -> Finding:
    """Its answers are signed under the publisher's root, by a host that is not revoked and serves the products."""
    if context.outcomes[0].kind is Kind.FOREIGN:
        return skip("because it is no kms_fast host")
    if not context.trusts:
        return skip("because no setup key is installed here, and only with one a host gives a signed answer")
    for trust, outcome in zip(context.trusts, context.outcomes, strict=True):
        if outcome.kind is not Kind.REFUSED:
            return Finding(Verdict.FAILED, f"{trust.sku.name}: {outcome.text}", *_cure_of(outcome))
    publisher, certificate = context.trusts[0].publisher, Answer.parse(context.outcomes[0].answer).host_certificate
    finding = judge_end(certificate, publisher.name, context.asked_ms)
    for trust, outcome in zip(context.trusts, context.outcomes, strict=True):
        if outcome.code == BY_NAME["CLOCKS_DIFFER"].code:
            continue
        finding = replace(finding, what=f"{finding.what} {trust.sku.name}: {outcome.text}")
        # A host of other products is nobody's mistake, unless one that asks no other host needs it.
        if outcome.code != BY_NAME["HOST_CANNOT_SERVE"].code or trust.sku.id in context.needed_by:
            return Finding(Verdict.FAILED, finding.what, *_cure_of(outcome))
    return finding


def judge_end(certificate: HostCertificate, publisher: str, now_ms: int) -> Finding:
    """How long a certificate that is valid now stays so."""
    days_left = days_until(certificate.not_after_ms, now_ms)
    what = f"Certificate {certificate.serial} of {publisher} is valid for {days_left} more days."
    if days_left < CERTIFICATE_WARNING_DAYS:
        return warn(what, BY_NAME["CERTIFICATE_DATES"].cure, days_left=days_left, serial=certificate.serial)
    return ok(what, days_left=days_left, serial=certificate.serial)


def check_clock(context: TargetContext) -> Finding:
    """The time that the host signed, against this machine's."""
    difference_ms = Answer.parse(context.outcomes[0].answer).header.time_ms - context.asked_ms
    shown = f"The host's clock shows {format_time(context.asked_ms + difference_ms)}, this machine's "
    shown += format_time(context.asked_ms)
    if abs(difference_ms) > CLOCK_WARNING_MS:
        what = f"{shown}; beyond {CLOCK_TOLERANCE_MS // (60 * MINUTE_MS)} hours requests are refused."
        judge = fail if abs(difference_ms) > CLOCK_TOLERANCE_MS else warn
        return judge(what, BY_NAME["CLOCKS_DIFFER"].cure, difference_ms=difference_ms)
    return ok(f"{shown}.", difference_ms=difference_ms)


TARGET_CHECKS: Final = (
    Check("name", check_name),
    Check("reach", check_reach, needs=("name",)),
    Check("interface", check_interface, needs=("reach",)),
    Check("host certificate", check_certificate, needs=("interface",)),
    Check("host clock", check_clock, needs=("host certificate",)),
)


def _cure_of(outcome: Outcome) -> tuple[str, str]:
    """Cure and code of the result that a host gave."""
    result = find_result(outcome.code or 0)
    return result.cure, result.hex
