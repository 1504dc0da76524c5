"""Imports point one way: which part of kms_fast may import which, and that nothing does otherwise."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# "store" stands for the contracts, kms_fast.store alone; "files" writes files whole or not at all, "archive" folders,
# "sqlite" copies databases, "charts" draws pages, "systemd" talks to a service manager, "programs" starts those of this
# package; rules get the time from those who may ask the "clock".
ALLOWED = {
    "results": set(),
    "errors": {"results"},
    "messages": set(),
    "clock": set(),
    "files": set(),
    "charts": set(),
    "systemd": set(),
    "programs": set(),
    "sqlite": set(),
    "archive": {"files", "sqlite"},
    "_core": set(),
    "model": {"_core"},
    "store": {"files", "sqlite", "model"},
    "publisher": {"archive", "clock", "files", "sqlite", "model"},
    "discovery": {"model"},
    "directory": {"model"},
    "web": {"store", "model"},
    "client": {"clock", "files", "discovery", "model", "_core"},
    "host": {"archive", "clock", "files", "programs", "systemd", "store", "model", "_core"},
    "load": {"charts", "client", "programs", "model", "_core"},
}
# Free to all, as is the package itself for its version.
FREE = {"errors", "messages", "results", "__version__"}
# What values and rules have no business with; ``open`` and ``print`` are looked for too.
INPUT_OUTPUT = {
    "asyncio",
    "io",
    "os",
    "pathlib",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
}


def part_of(module: str) -> str:
    """``kms_fast.host.ledger`` -> ``host``; the package itself and its entry point are the empty part."""
    names = module.split(".")
    return names[1] if len(names) > 1 and names[1] != "__main__" else ""


def find_imports(source: str, package: str) -> Iterator[str]:
    """Every module that Python source imports, anywhere in it; ``package`` is what a relative import starts from."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            # `from kms_fast import host` imports the part, `from kms_fast.host import serve` perhaps a name only.
            yield from (f"{module}.{alias.name}" for alias in node.names) if module == "kms_fast" else [module]


def find_cython_imports(source: str) -> Iterator[str]:
    """The same for a part of the extension, by its lines: there is no parser for it here."""
    for match in re.finditer(r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))", source, re.MULTILINE):
        yield match[1] or match[2]


def complain(module: str, imported: str) -> str | None:
    """Why ``module`` may not import ``imported``; None when it may."""
    part, other = part_of(module), part_of(imported)
    if not imported.startswith("kms_fast.") or part in {"cli", "", other} or other in FREE:
        return None
    if other not in ALLOWED[part]:
        return f"{module} imports {imported}"
    if other == "store" and imported != "kms_fast.store":
        return f"{module} imports the concrete {imported}"
    return None


def find_sources() -> Iterator[tuple[str, str, Path]]:
    """Every source file: the module it belongs to, the package relative imports start from, its path."""
    for path in sorted((ROOT / "kms_fast").rglob("*.py*")):
        if path.suffix == ".py":
            names = path.relative_to(ROOT).with_suffix("").parts
            module = ".".join(names[:-1] if names[-1] == "__init__" else names)
            yield module, ".".join(names[:-1]), path


def find_violations(module: str, package: str, source: str) -> list[str]:
    found = [complain(module, imported) for imported in find_imports(source, package)]
    return [violation for violation in found if violation]


def find_input_output(source: str) -> list[str]:
    imports = {name.split(".")[0] for name in find_imports(source, "kms_fast.model")} & INPUT_OUTPUT
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"open", "print", "input"}
    }
    return sorted(imports | calls)


def test_imports_point_one_way() -> None:
    violations = [
        violation
        for module, package, path in find_sources()
        for violation in find_violations(module, package, path.read_text(encoding="utf-8"))
    ]
    assert violations == []


def test_every_part_has_a_rule() -> None:
    parts = {part_of(module) for module, _, _ in find_sources()}
    assert parts - {"", "cli"} <= ALLOWED.keys()


def test_the_core_imports_nothing_of_ours_but_itself_errors_and_results() -> None:
    parts = [ROOT / "kms_fast" / "_core.pyx", *(ROOT / "kms_fast" / "_core").glob("*.p*")]
    assert len(parts) > 5
    for path in parts:
        ours = {name for name in find_cython_imports(path.read_text(encoding="utf-8")) if name.startswith("kms_fast")}
        assert {name for name in ours if part_of(name) not in {"_core", "errors", "results"}} == set(), path.name


def test_the_model_does_no_input_or_output() -> None:
    for _, _, path in find_sources():
        if path.parent.name == "model":
            assert find_input_output(path.read_text(encoding="utf-8")) == [], path.name


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kms_fast.client.state", "import kms_fast.host"),
        ("kms_fast.client.state", "from kms_fast import host"),
        ("kms_fast.client.state", "from ..host import ledger"),
        ("kms_fast.client.state", "def f():\n    from kms_fast.host.ledger import Ledger"),
        ("kms_fast.host.server", "from kms_fast.store.sqlite_counts import SqliteCounts"),
        ("kms_fast.host.server", "from kms_fast.client import Client"),
        ("kms_fast.publisher.issuer", "from kms_fast.cli import output"),
        ("kms_fast.model.keys", "from kms_fast.publisher import root"),
        ("kms_fast.errors", "from kms_fast import _core"),
    ],
)
def test_a_planted_import_is_found(module: str, source: str) -> None:
    assert find_violations(module, module.rpartition(".")[0], source) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kms_fast.host.server", "from kms_fast.store import Counts\nfrom . import ledger\nimport asyncio"),
        ("kms_fast.host.server", "from kms_fast import __version__, _core\nfrom kms_fast.errors import KmsFastError"),
        ("kms_fast.cli.serve", "from kms_fast.store.sqlite_counts import SqliteCounts"),
    ],
)
def test_an_import_that_may_be(module: str, source: str) -> None:
    assert find_violations(module, module.rpartition(".")[0], source) == []


def test_planted_input_and_output_are_found() -> None:
    assert find_input_output("import os.path\nfrom socket import socket\nprint(open('x'))") == [
        "open",
        "os",
        "print",
        "socket",
    ]


def test_a_planted_cython_import_is_found() -> None:
    source = "from kms_fast.host cimport x\n  cimport kms_fast.model\nfrom libc.string cimport memcpy"
    assert list(find_cython_imports(source)) == ["kms_fast.host", "kms_fast.model", "libc.string"]
