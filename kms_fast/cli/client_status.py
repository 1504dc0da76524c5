"""How ``kms-fast client`` writes states, facts and histories for people."""

import uuid
from collections.abc import Sequence
from typing import Any

from kms_fast.client import Attempt, LicenceState, MachineStatus, Status
from kms_fast.model.policy import format_span, format_time
from kms_fast.results import find_result

STATE_TEXTS = {
    LicenceState.UNLICENSED: "unlicensed",
    LicenceState.LICENSED: "licensed",
    LicenceState.INITIAL_GRACE: "initial grace",
    LicenceState.OUT_OF_TOLERANCE_GRACE: "out-of-tolerance grace",
    LicenceState.NOTIFICATION: "notification",
}
_WIDTH = 18


def describe_product(status: Status, *, verbose: bool) -> str:
    """A product's state, host, lease and last failure; ``verbose`` adds the rest of what is known."""
    fields: dict[str, Any] = {
        "product": f"{status.sku.name} ({status.sku.id})",
        "setup key": f"…{status.key_last_five}" if status.key_last_five else "none" if status.direct else "removed",
        "state": describe_state(status),
        "host": status.host or (f"looked up in {status.domain}" if status.domain else "looked up in DNS"),
        "last host": status.cached_host,
        "machine (CMID)": status.cmid,
        "next attempt": format_time(status.next_attempt_ms) if status.next_attempt_ms else "now",
    }
    if status.licence.needs_no_host:
        del fields["host"], fields["next attempt"]
    elif status.key_last_five is None:
        del fields["next attempt"]
    if (reason := status.licence.reason) is not None:
        fields["because"] = f"{reason.message} {reason.result.cure} ({reason.result.hex})"
    if (lease := status.lease) is not None:
        fields["activated"] = f"{format_time(lease.received_ms)}, for {format_span(lease.leaf.validity_min)}"
        fields["count"] = f"{lease.leaf.count} seen, {lease.leaf.threshold} needed"
        fields["proof"] = f"host {uuid.UUID(bytes=lease.header.host_id)}, batch {lease.to_json()['batch']}"
    if (direct := status.direct) is not None:
        key = direct.activation.key_last_five
        fields["activated"] = f"{format_time(direct.received_ms)}, by the publisher, with key …{key}"
    if (failure := status.failure) is not None:
        fields["last failure"] = f"{format_time(failure.time_ms)}: {failure.message}"
    if verbose:
        fields |= _list_more(status)
    return _align(fields)


def describe_machine(machine: MachineStatus) -> str:
    """What the home knows whichever product."""
    return _align(
        {
            "machine": f"{machine.name}, {'virtual' if machine.virtual else 'physical'}",
            "machine (CMID)": machine.cmid,
            "CMID before": machine.previous_cmid,
            "hardware by": ", ".join(machine.hardware) or "nothing that can be read",
            "rearms left": machine.rearms_left,
            "trusted time": format_time(machine.trusted_ms) if machine.trusted_ms else "none yet",
            "publisher": f"{machine.publisher}, file number {machine.publisher_number}",
            "revocation list": machine.revocations or "none",
            "service record": machine.srv_name,
            "service": f"runs as process {machine.service}" if machine.service else "does not run",
            "state file": machine.state_file,
        }
    )


def describe_history(name: str, attempts: Sequence[Attempt]) -> str:
    """A product's attempts, one line each, the newest last."""
    lines = [_describe_attempt(attempt) for attempt in attempts] or ["no attempt yet"]
    return "\n".join([name, *(f"  {line}" for line in lines)])


def describe_state(status: Status) -> str:
    """A licence state and how long it lasts."""
    name = STATE_TEXTS[status.state]
    if status.state is LicenceState.LICENSED and status.lease is not None:
        name += f" until {format_time(status.lease.expires_ms)}"
    elif status.licence.needs_no_host:
        name += " without an end"
    return f"{name}, {format_span(status.minutes_left)} left" if status.minutes_left else name


def _list_more(status: Status) -> dict[str, Any]:
    more: dict[str, Any] = {
        "family": f"{status.sku.family}, generation {status.sku.generation}",
        "host cache": "on" if status.host_cache else "off",
        "retry every": format_span(status.activation_interval_min),
        "renew every": format_span(status.renewal_interval_min),
    }
    if (lease := status.lease) is not None:
        more |= {"signed": format_time(lease.header.time_ms), "leaf": lease.leaf_hash.hex()}
    return more


def _describe_attempt(attempt: Attempt) -> str:
    result = find_result(attempt.code)
    when = format_time(attempt.time_ms)
    if attempt.times > 1:
        when += f" to {format_time(attempt.last_ms)}, {attempt.times} times"
    facts = [when, attempt.host or "no host", f"{result.hex} {result.name}"]
    if attempt.count is not None:
        facts.append(f"count {attempt.count} of {attempt.threshold}")
    if attempt.host_ahead_ms is not None:
        facts.append(f"host's clock {round(attempt.host_ahead_ms / 1000, 1) or 0.0:+.1f} s")
    text = "  ".join(facts)
    return f"{text}\n    {attempt.message}" if attempt.code else text


def _align(fields: dict[str, Any]) -> str:
    return "\n".join(f"{name:{_WIDTH}}{value}" for name, value in fields.items() if value is not None)
