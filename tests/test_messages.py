"""All that is logged stands in one table, and what is said to it fits its rows."""

import ast
import logging
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from kms_fast.messages import MESSAGES, log

ROOT = Path(__file__).parents[1] / "kms_fast"
# What the table is for; the first sets the log up.
MAY_IMPORT_LOGGING = {"cli/logs.py", "messages.py"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        name = str(path.relative_to(ROOT))
        yield name, ast.parse(path.read_text(encoding="utf-8"))


def calls() -> Iterator[tuple[str, str, set[str]]]:
    """Every call of `log`: where, the event, the names of its fields."""
    for name, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log":
                (event,) = node.args
                assert isinstance(event, ast.Constant), f"{name}:{node.lineno}"
                yield f"{name}:{node.lineno}", event.value, {str(word.arg) for word in node.keywords} - {"traceback"}


def fields_of(event: str) -> set[str]:
    parsed = string.Formatter().parse(MESSAGES[event].text)
    return {field.partition(".")[0] for _, field, _, _ in parsed if field is not None}


def test_nothing_else_logs() -> None:
    importing = {
        name
        for name, tree in sources()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "logging" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "logging")
    }
    assert importing == MAY_IMPORT_LOGGING


def test_what_is_said_fits_the_table() -> None:
    said = list(calls())
    assert [where for where, event, _ in said if event not in MESSAGES] == []
    assert [where for where, event, names in said if names != fields_of(event)] == []


def test_every_row_is_used() -> None:
    assert MESSAGES.keys() - {event for _, event, _ in calls()} == set()


def test_a_line_below_the_level_costs_no_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kms_fast"):
        log("PRUNED", batches=3)
        log("STORE_BACK", store="here")
    assert [entry.message for entry in caplog.records] == ["The store here is back."]
