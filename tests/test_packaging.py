"""The source distribution holds all it is built from; pyproject.toml names all packages and dependencies."""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Distributions whose module has another name.
MODULES = {"dnspython": "dns"}


def test_sdist_holds_every_part_of_the_core_and_of_pages(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "egg_info", "-e", tmp_path, "sdist", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, timeout=100)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames()}
    kinds = {".py", ".pyx", ".pxi", ".pxd", ".pyi", ".h"}
    needed = {str(path.relative_to(ROOT)) for path in (ROOT / "kms_fast").rglob("*") if path.suffix in kinds}
    assert len(needed) > 20
    needed |= find_static()
    assert needed | {"kms_fast/py.typed", "setup.py", "pyproject.toml", "LICENSE", "README.md"} <= held
    assert {"bench/run.py", "bench/kernels.c", "bench/limit/echo.c"} <= held  # the tests use them
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "packaging").glob("*/*")} <= held
    assert [name for name in held if name.endswith((".so", ".c")) and name.startswith("kms_fast/")] == []


def test_a_built_package_holds_what_pages_are_made_of(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "egg_info", "-e", tmp_path, "build_py", "-d", tmp_path / "built"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=100)
    built = {str(path.relative_to(tmp_path / "built")) for path in (tmp_path / "built").rglob("*") if path.is_file()}
    assert find_static() | {"kms_fast/py.typed", "kms_fast/charts.py"} <= built


def find_static() -> set[str]:
    """The files that pages are made of."""
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "kms_fast/static").rglob("*") if path.is_file()}
    assert "kms_fast/static/uplot/LICENSE" in found
    return found


def test_units_and_samples_are_installed() -> None:
    told = PROJECT["tool"]["setuptools"]["data-files"]
    shipped = {path for patterns in told.values() for pattern in patterns for path in ROOT.glob(pattern)}
    assert shipped == {path for path in (ROOT / "packaging").rglob("*") if path.is_file()}


def test_every_package_is_named() -> None:
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "kms_fast").rglob("__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found
    assert "kms_fast._core" not in found


def test_dependencies_are_those_that_are_imported() -> None:
    imported = set()
    for path in (ROOT / "kms_fast").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    declared = {re.split(r"[<>=; ]", text)[0] for text in PROJECT["project"]["dependencies"]}
    foreign = imported - sys.stdlib_module_names - {"kms_fast"}
    assert foreign == {MODULES.get(name, name) for name in declared}
