"""What changed between two results, and whether it is outside the noise.

    python bench/compare.py OLD NEW [--all] [--json]

OLD and NEW are folders of results, bench.json files, or reports of single programs. The rounds' spread is the noise. A
figure has changed when both hold:

- the medians differ by more than the larger of the two interquartile ranges;
- a Mann-Whitney test over all rounds gives p < 0.05 (two-sided, normal approximation with ties and continuity).

So both sides need four rounds or more; with fewer a figure is listed as "few rounds", whatever it says. About one
figure in fifty seems changed by chance. Rounds know nothing of another hour: the echo and uvloop limits, whose code
stays the same, tell whether the machine is another one now. Then only ratios count, which stand first: both of their
sides were measured in the same minutes.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from rows import format_value, read_rows

FEW_ROUNDS = 4
SIGNIFICANT = 0.05
CHANGED, NOISE, FEW = "changed", "noise", "few rounds"
# In the names of figures; those of ratios to a limit have underscores around it.
OF_A_LIMIT = re.compile(r"\b(echo|uvloop)\b")


@dataclass(frozen=True)
class Change:
    """One figure on both sides. ``verdict``: changed, noise, or few rounds to tell."""

    name: str
    old: float
    new: float
    percent: float | None
    verdict: str


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Reports by benchmark, from a folder, a bench.json or one program's report. Raises OSError, ValueError."""
    if path.is_dir():
        files = sorted(file for file in path.glob("*.json") if file.name != "bench.json")
        return {file.stem: json.loads(file.read_text()) for file in files}
    report = json.loads(path.read_text())
    if not isinstance(report, dict):
        raise ValueError("not a report of a benchmark")
    results: dict[str, dict[str, Any]] = report.get("results", {"": report})
    return results


def read_figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, list[float]]:
    """The rounds of every figure, by benchmark, row and figure."""
    return {
        ": ".join(filter(None, (name, row.name, figure))): values
        for name, report in results.items()
        for row in read_rows(report)
        for figure, values in row.rounds.items()
    }


def spread(values: list[float]) -> float:
    """The interquartile range."""
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return upper - lower


def mann_whitney(old: list[float], new: list[float]) -> float:
    """Chance that rounds of the same thing differ in rank by as much as these do: two-sided p."""
    everything = sorted([*old, *new])
    n, m, total = len(old), len(new), len(old) + len(new)
    ranks = {value: everything.index(value) + (everything.count(value) + 1) / 2 for value in set(everything)}
    u = sum(ranks[value] for value in old) - n * (n + 1) / 2
    ties = sum(everything.count(value) ** 3 - everything.count(value) for value in set(everything))
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance == 0:
        return 1.0
    z = max(0.0, abs(u - n * m / 2) - 0.5) / variance**0.5
    return 2 * (1 - NormalDist().cdf(z))


def compare_figure(name: str, old: list[float], new: list[float]) -> Change:
    """What the rounds of one figure say (the rule above)."""
    before, after = statistics.median(old), statistics.median(new)
    if min(len(old), len(new)) < FEW_ROUNDS:
        verdict = FEW
    elif abs(after - before) > max(spread(old), spread(new)) and mann_whitney(old, new) < SIGNIFICANT:
        verdict = CHANGED
    else:
        verdict = NOISE
    return Change(name, before, after, 100 * (after / before - 1) if before else None, verdict)


def compare_results(old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]) -> list[Change]:
    """Every figure that both sides have."""
    before, after = read_figures(old), read_figures(new)
    return [compare_figure(name, before[name], after[name]) for name in before if name in after]


def find_drift(changes: list[Change]) -> list[Change]:
    """The limits' own figures that changed: not by a commit, so the machine did."""
    return [change for change in changes if change.verdict == CHANGED and OF_A_LIMIT.search(change.name)]


def format_changes(changes: list[Change], show_all: bool) -> Iterator[str]:
    """Lines of a table: what changed, ratios and then the largest first, or everything; then how much was noise."""
    shown = changes if show_all else [change for change in changes if change.verdict == CHANGED]
    ordered = (
        shown if show_all else sorted(shown, key=lambda change: ("ratio" not in change.name, -abs(change.percent or 0)))
    )
    width = max((len(change.name) for change in shown), default=6) + 2
    if shown:
        yield f"{'figure':{width}}{'old':>12}{'new':>12}{'change':>10}"
    for change in ordered:
        percent = "–" if change.percent is None else f"{change.percent:+.1f} %"
        verdict = f"  {change.verdict}" if show_all else ""
        yield f"{change.name:{width}}{format_value(change.old):>12}{format_value(change.new):>12}{percent:>10}{verdict}"
    counts = {verdict: sum(change.verdict == verdict for change in changes) for verdict in (CHANGED, NOISE, FEW)}
    yield f"{len(changes)} figures on both sides: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    if drift := find_drift(changes):
        yield f"The machine changed, for so did {len(drift)} figures of the limits. Only ratios count."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, metavar="OLD")
    parser.add_argument("new", type=Path, metavar="NEW")
    parser.add_argument("--all", action="store_true", help="show also what is within the noise")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    try:
        changes = compare_results(read_results(options.old), read_results(options.new))
    except (OSError, ValueError, LookupError) as error:
        print(f"compare.py: these are no results of benchmarks: {error}", file=sys.stderr)
        return 1
    if options.json:
        drift = [change.name for change in find_drift(changes)]
        print(json.dumps({"changes": [asdict(change) for change in changes], "machine_changed": drift}))
    else:
        print("\n".join(format_changes(changes, options.all)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
