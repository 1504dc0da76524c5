"""A ladder of checks: each gives a verdict, and one that rests on another is left out when that did not hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Generic, TypeVar

from kms_fast.errors import KmsFastError, explain_error

Context = TypeVar("Context")


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; ``cure`` says what to do. ``about`` and ``check`` are put in by `climb`."""

    verdict: Verdict
    what: str
    cure: str | None = None
    code: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""
    check: str = ""

    @property
    def holds(self) -> bool:
        """Whether what rests on it can be looked at."""
        return self.verdict in (Verdict.OK, Verdict.WARNING)

    def to_json(self) -> dict[str, Any]:
        """This finding under ``--json``."""
        return {
            "about": self.about,
            "check": self.check,
            "verdict": self.verdict.value,
            "what": self.what,
            "cure": self.cure,
            "code": self.code,
            "details": self.details,
        }


def ok(what: str, **details: Any) -> Finding:
    """All is well."""
    return Finding(Verdict.OK, what, details=details)


def warn(what: str, cure: str, **details: Any) -> Finding:
    """It works, but not for long, not for all, or not as meant."""
    return Finding(Verdict.WARNING, what, cure, details=details)


def fail(what: str, cure: str, **details: Any) -> Finding:
    """It does not work."""
    return Finding(Verdict.FAILED, what, cure, details=details)


def skip(why: str) -> Finding:
    """It could not be looked at."""
    return Finding(Verdict.SKIPPED, why)


def describe_error(error: KmsFastError) -> Finding:
    """The finding of an error: a failure, with the cure of its result."""
    return Finding(Verdict.FAILED, error.message, error.result.cure, error.result.hex, error.details)


@dataclass(frozen=True, slots=True)
class Check(Generic[Context]):
    """A rung. ``look`` may raise `KmsFastError` or OSError, which is a failure; ``needs`` are earlier rungs."""

    name: str
    look: Callable[[Context], Finding]
    needs: tuple[str, ...] = ()


def climb(about: str, checks: Sequence[Check[Context]], context: Context) -> list[Finding]:
    """Look at everything in order. What a check learns for later ones, it puts into the context."""
    findings: dict[str, Finding] = {}
    for check in checks:
        missing = next((findings[need] for need in check.needs if not findings[need].holds), None)
        if missing is None:
            finding = _look(check, context)
        else:
            # Of a chain the first reason is told.
            finding = skip(missing.what if missing.verdict is Verdict.SKIPPED else f"because {missing.check} failed")
        findings[check.name] = replace(finding, about=about, check=check.name)
    return list(findings.values())


def _look(check: Check[Context], context: Context) -> Finding:
    try:
        return check.look(context)
    except (KmsFastError, OSError) as error:
        return describe_error(explain_error(error))
