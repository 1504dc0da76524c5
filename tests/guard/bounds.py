"""The recorded bounds (bounds.toml): what was measured, what is allowed, and of what it consisted.

Measuring yields a `Cost` for each kind of work. Each figure brings how much of it is allowed, and that is recorded;
from then on the file decides. Parts (functions, system calls) have no bounds: they show what grew.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

BOUNDS: Final = Path(__file__).with_name("bounds.toml")
PARTS_SHOWN: Final = 8
HEAD: Final = """\
# What an activation may cost: compared by `make guard` and the tests, written by `make guard RECORD=1`.
# CONTRIBUTING.md, "The guard", says what the figures mean. Parts are what they consist of, and have no bounds.
"""


@dataclass(frozen=True)
class Figure:
    """One figure: what was measured, and the largest value that is allowed."""

    measured: float
    allowed: float


@dataclass(frozen=True)
class Cost:
    """What one kind of work costs. ``parts``: of what it consists, each per activation."""

    figures: Mapping[str, Figure]
    parts: Mapping[str, float]


Costs = Mapping[str, Cost]


@dataclass(frozen=True)
class Bounds:
    """Content of the file. ``recorded``: when, at which commit and with which tools."""

    recorded: Mapping[str, str]
    costs: Costs


def read_bounds(path: Path = BOUNDS) -> Bounds:
    """The file. Raises OSError, tomllib.TOMLDecodeError, and KeyError when something is missing in it."""
    content = tomllib.loads(path.read_text())
    return Bounds(content.pop("recorded"), {work: _read_cost(of) for work, of in content.items()})


def _read_cost(of: dict[str, Any]) -> Cost:
    parts = of.pop("parts")
    return Cost({name: Figure(figure["measured"], figure["allowed"]) for name, figure in of.items()}, parts)


def write_bounds(bounds: Bounds, path: Path = BOUNDS) -> None:
    """Write the file anew. Raises OSError."""
    lines = [HEAD, "[recorded]", *(f"{name} = {_quote(value)}" for name, value in bounds.recorded.items())]
    for work, cost in bounds.costs.items():
        lines += ["", f"[{_quote(work)}]"]
        for name, figure in cost.figures.items():
            lines.append(f"{name} = {{ measured = {figure.measured:g}, allowed = {figure.allowed:g} }}")
        lines += ["", f"[{_quote(work)}.parts]"]
        lines += [f"{_quote(name)} = {value:g}" for name, value in cost.parts.items()]
    path.write_text("\n".join(lines) + "\n")


def _quote(text: str) -> str:
    # A basic string of TOML is one of JSON.
    return json.dumps(text, ensure_ascii=False)


def find_excesses(costs: Costs, bounds: Costs, leniency: float = 1.0) -> list[str]:
    """A line for every figure above its bound, or without one, and below it the parts that grew most.

    ``leniency``: how many times the bound is allowed.
    """
    nothing = Cost({}, {})
    return [line for work, cost in costs.items() for line in _compare(work, cost, bounds.get(work, nothing), leniency)]


def _compare(work: str, cost: Cost, bound: Cost, leniency: float) -> Iterator[str]:
    exceeded = False
    for name, figure in cost.figures.items():
        if name not in bound.figures:
            yield f"{work}: {name} has no bound"
        elif figure.measured > (allowed := bound.figures[name].allowed * leniency):
            exceeded = True
            yield (
                f"{work}: {name} is {figure.measured:g}, allowed {allowed:g}, recorded {bound.figures[name].measured:g}"
            )
    if exceeded:
        growth = {part: value - bound.parts.get(part, 0.0) for part, value in cost.parts.items()}
        for part in sorted(growth, key=lambda part: -growth[part])[:PARTS_SHOWN]:
            if growth[part] > 0:
                yield f"    {growth[part]:+10.2f} {part} (now {cost.parts[part]:g})"


def format_costs(costs: Costs, bounds: Costs) -> str:
    """A table of every figure: measured, recorded, allowed."""
    lines = [f"{'an activation':56}{'measured':>10}{'recorded':>10}{'allowed':>10}"]
    for work, cost in costs.items():
        known = bounds.get(work, Cost({}, {})).figures
        for name, figure in cost.figures.items():
            before = known.get(name)
            old = f"{before.measured:>10g}{before.allowed:>10g}" if before else f"{'-':>10}{'-':>10}"
            lines.append(f"{f'{work}: {name}':56}{figure.measured:>10g}{old}")
    return "\n".join(lines)
