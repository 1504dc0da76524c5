"""``python -m tests.guard``: count, show and compare; ``--record`` writes bounds.toml anew.

Exit code 1 when a bound is exceeded or nothing could be counted.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.guard.bounds import BOUNDS, Bounds, find_excesses, format_costs, read_bounds, write_bounds
from tests.guard.instructions import NotCountable, choose_leniency, count_instructions, describe_tools
from tests.guard.system_calls import count_system_calls
from tests.hosts import make_realm


def describe_now() -> dict[str, str]:
    """When and of what is measured now."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=BOUNDS.parent, capture_output=True, text=True
    ).stdout.strip()
    return {"date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit, **describe_tools()}


def main() -> int:
    """Run the guard; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.guard")
    parser.add_argument("--record", action="store_true", help="write bounds.toml anew")
    record = parser.parse_args().record
    bounds = read_bounds() if BOUNDS.exists() else Bounds({}, {})
    with tempfile.TemporaryDirectory(prefix="kms-fast-guard-") as folder:
        realm, dumps, host = Path(folder, "realm"), Path(folder, "dumps"), Path(folder, "host")
        for each in (realm, dumps, host):
            each.mkdir()
        try:
            instructions = count_instructions(make_realm(realm).home, dumps)
            system_calls = count_system_calls(host)
        except (NotCountable, PermissionError, FileNotFoundError) as error:
            print(f"Nothing was compared: {error}", file=sys.stderr)
            return 1
    costs = {**instructions, **system_calls}
    print(format_costs(costs, bounds.costs))
    if record:
        write_bounds(Bounds(describe_now(), costs))
        print(f"{BOUNDS} is written.")
        return 0
    excesses = [
        *find_excesses(instructions, bounds.costs, choose_leniency(bounds.recorded)),
        *find_excesses(system_calls, bounds.costs),
    ]
    print("\n".join(excesses) or "Every figure is within its bound.")
    return 1 if excesses else 0


if __name__ == "__main__":
    sys.exit(main())
