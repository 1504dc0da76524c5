"""This package's programs as processes of their own."""

import sys
from pathlib import Path


def program_command(module: str) -> list[str]:
    """The command that runs ``main`` of a module of this very package, wherever that lies; arguments may follow.

    Unlike ``python -m`` it never looks for modules in the working folder (``-P``), which may be anybody's, or a
    checkout whose core is not compiled.
    """
    root = str(Path(__file__).parents[1])
    code = f"import sys; {root!r} in sys.path or sys.path.insert(0, {root!r}); from {module} import main; main()"
    return [sys.executable, "-P", "-c", code]
