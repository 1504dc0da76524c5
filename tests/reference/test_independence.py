"""The reference stands alone: it imports the standard library, cryptography and itself."""

import ast
import sys
from pathlib import Path

import pytest

MODULES = [path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")]
ALLOWED = sys.stdlib_module_names | {"cryptography", "tests.reference"}


def imported(source: str) -> set[str]:
    """Names of modules that ``source`` imports: of this repository with the folder, of others the first part."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level + (node.module or ""))
    return {".".join(name.split(".")[: 2 if name.startswith("tests") else 1]) for name in names}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_module_imports_nothing_of_kms_fast(module: Path) -> None:
    assert imported(module.read_text(encoding="utf-8")) <= ALLOWED
    assert "import_module" not in module.read_text(encoding="utf-8")


def test_an_import_of_kms_fast_would_be_seen() -> None:
    assert imported("import kms_fast.errors") == {"kms_fast"}
    assert imported("def f():\n from kms_fast import _core") == {"kms_fast"}
    assert imported("from tests.answers import build") == {"tests.answers"}
