"""What can be wrong on a machine that is to be activated: its key, its licence, its clock, and a real activation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from uuid import UUID

from kms_fast.cli.client_status import describe_state
from kms_fast.cli.doctor.ladder import Check, Finding, describe_error, fail, ok, warn
from kms_fast.client import Client, LicenceState, Status
from kms_fast.client.state import State, StateFile
from kms_fast.client.trust import Trust
from kms_fast.errors import KmsFastError
from kms_fast.model.policy import SET_BACK_TOLERANCE_MS, format_time
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.results import BY_NAME, find_result


@dataclass
class ClientContext:
    """A client's home; what the checks learn of it stands below."""

    home: Path
    now_ms: int
    state: State | None = None
    trusts: Sequence[Trust] = ()
    statuses: Sequence[Status] = ()


def check_keys(context: ClientContext) -> Finding:
    """A setup key is installed where one is needed, of a product there is, and the state is this user's alone."""
    file = StateFile(context.home / "client")
    context.state = state = file.look()
    if state is None or not state.installed:
        raise KmsFastError("No client setup key is installed.", name="NO_KEY_INSTALLED")
    client = Client(home=context.home)
    context.statuses = statuses = [client.status(sku.id) for sku in client.skus()]
    unlisted = client.unlisted()
    hostless = {status.sku.id for status in statuses if status.licence.needs_no_host}
    trusts = list_trusts(state, [status.sku.id for status in statuses])
    context.trusts = [trust for trust in trusts if trust.sku.id not in hostless]
    if file.path.stat().st_mode & 0o077:
        return fail(f"Others may read {file.path}, which holds setup keys.", f"chmod 600 {file.path}")
    listed = ", ".join(f"{trust.sku.name} (…{trust.key.last_five})" for trust in trusts if trust.key)
    told = [f"Setup keys are installed: {listed}."] if trusts else []
    if hostless:
        told.append("Where the publisher itself activated, no host is asked.")
    if unlisted:
        what = " ".join([*told, *(error.message for error in unlisted.values())])
        return (warn if statuses else fail)(what, next(iter(unlisted.values())).result.cure)
    return ok(" ".join(told))


def list_trusts(state: State, ids: Sequence[UUID]) -> list[Trust]:
    """What is needed to ask for each of these that has a setup key. Raises `KmsFastError`."""
    publisher = PublisherFile.parse(state.publisher.encode())
    return [Trust.of_key(publisher, key) for id_, key in state.keys.items() if id_ in ids]


def check_licence(context: ClientContext) -> Finding:
    """The licence state of each product, what is wrong with it, and why the last attempt failed."""
    statuses = context.statuses
    worst = max(statuses, key=lambda status: _SEVERITY[status.state])
    what = f"{', '.join(f'{status.sku.name}: {describe_state(status)}' for status in statuses)}."
    if worst.state is LicenceState.LICENSED:
        return ok(what)
    reason, cure = worst.licence.reason, BY_NAME["GRACE_ENDED"].cure
    if reason is not None:
        what, cure = f"{what} {reason.message}", reason.result.cure
    if worst.failure is not None:
        what += f" The last attempt failed: {worst.failure.message}"
        # A grace ends for want of an activation; other reasons have nothing to do with it.
        if reason is None or reason.result.name == "GRACE_ENDED":
            cure = find_result(worst.failure.code).cure
    judge = warn if worst.state is LicenceState.INITIAL_GRACE else fail
    return judge(what, cure)


_SEVERITY: Final = {
    LicenceState.LICENSED: 0,
    LicenceState.INITIAL_GRACE: 1,
    LicenceState.OUT_OF_TOLERANCE_GRACE: 2,
    LicenceState.UNLICENSED: 3,
    LicenceState.NOTIFICATION: 4,
}


def check_clock(context: ClientContext) -> Finding:
    """The clock must not lie far before an activation that was received."""
    assert context.state is not None
    shown, mark_ms = format_time(context.now_ms), context.state.mark_ms
    if context.now_ms < mark_ms - SET_BACK_TOLERANCE_MS:
        what = f"The clock shows {shown}, but an activation was signed at {format_time(mark_ms)}."
        return fail(what, BY_NAME["CLOCK_SET_BACK"].cure, mark_ms=mark_ms)
    return ok(f"The clock shows {shown}.")


def check_activation(context: ClientContext) -> Finding:
    """A real activation of every product that asks hosts."""
    client = Client(home=context.home)
    skus = client.skus()
    if not skus:
        nothing = KmsFastError("No client setup key is installed.", name="NO_KEY_INSTALLED")
        raise next(iter(client.unlisted().values()), nothing)
    skus = [sku for sku in skus if not client.status(sku.id).licence.needs_no_host]
    if not skus:
        return ok("The publisher itself activated this machine: there is no host to ask.")
    told: list[str] = []
    errors: list[KmsFastError] = []
    for sku in skus:
        try:
            told.append(f"Activated: {sku.name} until {format_time(client.activate(sku.id).expires_ms)}.")
        except KmsFastError as error:
            told.append(f"{sku.name}: {error.message}")
            errors.append(error)
    if not errors:
        return ok(" ".join(told))
    cures = " ".join(dict.fromkeys(error.result.cure for error in errors))
    return replace(describe_error(errors[0]), what=" ".join(told), cure=cures)


CLIENT_CHECKS: Final = (
    Check("keys", check_keys),
    Check("licence", check_licence, needs=("keys",)),
    Check("clock", check_clock, needs=("keys",)),
)
ACTIVATION_CHECKS: Final = (Check("activation", check_activation),)
