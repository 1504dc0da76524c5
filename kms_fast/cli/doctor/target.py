"""One host as the network shows it: its name, its port, its interface, its certificate, its clock.

It is asked for nothing that counts: a probe is refused for its clock (`kms_fast.client.probe`).
"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kms_fast.cli.doctor.ladder import Check, Finding, Verdict, fail, ok, skip, warn
from kms_fast.client.blocking import CONNECT_S, ask, describe_failure
from kms_fast.client.exchange import HostBind, Kind, Outcome
from kms_fast.client.machine import SystemClock
from kms_fast.client.probe import build_probe
from kms_fast.client.trust import Trust
from kms_fast.discovery.address import HostAddress
from kms_fast.model.certificate import DAY_MS
from kms_fast.model.lease import Answer
from kms_fast.model.policy import CERTIFICATE_WARNING_DAYS, CLOCK_TOLERANCE_MS, MINUTE_MS, format_time
from kms_fast.results import BY_NAME, find_result

CLOCK_WARNING_MS: Final = 5 * MINUTE_MS
UNREACHED: Final = "Check that the host runs, that the name is right, and that firewalls on the way let TCP port {} in."


@dataclass
class TargetContext:
    """A host to look at. ``trust``: of a product whose setup key is here, None without one; ``revocations``: a list
    that was received. What the checks learn stands below.
    """

    host: HostAddress
    trust: Trust | None = None
    revocations: bytes | None = None
    addresses: Sequence[str] = ()
    outcome: Outcome | None = None
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
    failures = {address: why for address in context.addresses if (why := _try_to_connect(address, port)) is not None}
    said = "; ".join(f"{HostAddress(address, port)}: {why}" for address, why in failures.items())
    cure = UNREACHED.format(port)
    if len(failures) == len(context.addresses):
        return fail(f"No connection can be made: {said}.", cure, failures=failures)
    if failures:
        return warn(f"Not every address can be reached: {said}.", cure, failures=failures)
    return ok(f"TCP port {port} takes connections.")


def _try_to_connect(address: str, port: int) -> str | None:
    try:
        socket.create_connection((address, port), CONNECT_S).close()
    except OSError as error:
        return describe_failure(error)
    return None


def check_interface(context: TargetContext) -> Finding:
    """A bind with our interface is accepted; whatever comes after it is for the next checks."""
    context.asked_ms = time.time_ns() // 1_000_000
    exchange = HostBind(context.host, SystemClock())
    if context.trust is not None:
        exchange = build_probe(context.host, context.trust, SystemClock(), context.revocations)
    ask(exchange)
    context.outcome = outcome = exchange.outcome
    assert outcome is not None
    if outcome.kind is Kind.FOREIGN:
        return warn(
            "A foreign RPC server: it rejects our interface in the standard way, so it is not a kms_fast host. Its "
            "clients are its own business.",
            "Clients of kms_fast need another host or record; they pass this one over.",
        )
    if outcome.kind is Kind.UNREACHABLE:
        return fail(f"It takes the connection, but {outcome.text}.", UNREACHED.format(context.host.port))
    if outcome.code == BY_NAME["RPC_REFUSED"].code:
        return Finding(Verdict.FAILED, f"{outcome.text[:1].upper()}{outcome.text[1:]}.", *_cure_of(outcome))
    return ok("It is a kms_fast host: it accepts our interface.")


def check_certificate(context: TargetContext) -> Finding:
    """The answer is signed under the publisher's root, by a host that is not revoked and serves the product."""
    outcome = context.outcome
    assert outcome is not None
    if outcome.kind is Kind.FOREIGN:
        return skip("because it is no kms_fast host")
    if context.trust is None:
        return skip("because no setup key is installed here, and only with one a host gives a signed answer")
    if outcome.kind is not Kind.REFUSED:
        return Finding(Verdict.FAILED, outcome.text, *_cure_of(outcome))
    certificate = Answer.parse(outcome.answer).host_certificate
    days_left = (certificate.not_after_ms - context.asked_ms) // DAY_MS
    what = f"Certificate {certificate.serial} of {context.trust.publisher.name} is valid for {days_left} more days."
    if outcome.code != BY_NAME["CLOCKS_DIFFER"].code:
        return Finding(Verdict.FAILED, f"{what} {context.trust.sku.name}: {outcome.text}", *_cure_of(outcome))
    if days_left < CERTIFICATE_WARNING_DAYS:
        return warn(what, BY_NAME["CERTIFICATE_DATES"].cure, days_left=days_left)
    return ok(what, days_left=days_left, serial=certificate.serial)


def check_clock(context: TargetContext) -> Finding:
    """The time that the host signed, against this machine's."""
    outcome = context.outcome
    assert outcome is not None
    difference_ms = Answer.parse(outcome.answer).header.time_ms - context.asked_ms
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
