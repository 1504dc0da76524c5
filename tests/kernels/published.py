"""Readers of the published vectors in tests/vectors/published/."""

import json
from pathlib import Path
from typing import Any

PUBLISHED = Path(__file__).parents[1] / "vectors" / "published"


def wycheproof(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(group, test) of every case in a Wycheproof file, whose own count is checked."""
    content = json.loads((PUBLISHED / "wycheproof" / f"{name}_test.json").read_text())
    cases = [(group, test) for group in content["testGroups"] for test in group["tests"]]
    assert len(cases) == content["numberOfTests"]
    return cases


def records(path: str, last: str) -> list[dict[str, str]]:
    """`name = value` records of a NIST-style file: a record ends with the field `last`, earlier fields carry on.

    Of a file with [ENCRYPT] and [DECRYPT] parts, the first.
    """
    found: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    for line in (PUBLISHED / path).read_text().partition("[DECRYPT]")[0].splitlines():
        name, separator, value = line.partition("=")
        if not separator or line.startswith(("#", "[")):
            continue
        fields[name.strip()] = value.strip()
        if name.strip() == last:
            found.append(dict(fields))
    return found
