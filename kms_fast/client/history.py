"""Attempts as the history keeps them: what a round came to, and how users read it."""

from typing import Any

from kms_fast.client.round import Round
from kms_fast.client.state import Attempt
from kms_fast.errors import ActivationError, KmsFastError
from kms_fast.model.lease import BatchHeader, Leaf
from kms_fast.model.policy import format_time
from kms_fast.results import find_result


def describe_attempt(round_: Round, error: ActivationError | None, now_ms: int) -> Attempt:
    """The attempt that a round was; it ended at ``now_ms``, and with this error unless a host granted."""
    decisive = round_.decisive
    only = round_.outcomes[0] if len(round_.outcomes) == 1 else None
    asked = decisive or only
    attempt = Attempt(now_ms, now_ms, 0, find_result(0).meaning, str(asked.host) if asked else None)
    if error is not None:
        attempt.code, attempt.message = error.result.code, error.message
    if decisive is not None and decisive.checked is not None:
        leaf, header = Leaf.parse(decisive.checked.leaf), BatchHeader.parse(decisive.checked.header)
        attempt.count, attempt.threshold = leaf.count, leaf.threshold
        attempt.host_ahead_ms = header.time_ms - decisive.time_ms
    return attempt


def describe_direct(error: KmsFastError | None, now_ms: int) -> Attempt:
    """The attempt that asked the publisher itself."""
    code, message = (error.result.code, error.message) if error else (0, find_result(0).meaning)
    return Attempt(now_ms, now_ms, code, message, "publisher")


def show_attempt(attempt: Attempt) -> dict[str, Any]:
    """An attempt for ``--json``."""
    result = find_result(attempt.code)
    return {
        "time": format_time(attempt.time_ms),
        "last": format_time(attempt.last_ms),
        "times": attempt.times,
        "host": attempt.host,
        "code": result.hex,
        "name": result.name,
        "message": attempt.message,
        "count": attempt.count,
        "threshold": attempt.threshold,
        "host_ahead_ms": attempt.host_ahead_ms,
    }
