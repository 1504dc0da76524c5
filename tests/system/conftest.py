"""Fixtures for tests of whole installations."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from tests.machine import Machine


@pytest.fixture
def start_machine(
    unavailable: Callable[[str], NoReturn], require_tool: Callable[[str], str], tmp_path: Path
) -> Iterator[Callable[..., Machine]]:
    """Call it with a machine's name, and what else it has: addresses and a resolv.conf."""
    for tool in ("unshare", "nsenter", "ip"):
        require_tool(tool)
    with ExitStack() as stack:

        def start(name: str, addresses: Sequence[str] = (), resolv: str = "") -> Machine:
            try:
                return stack.enter_context(Machine(tmp_path, name, addresses, resolv))
            except PermissionError as error:
                unavailable(f"a machine of its own needs root and Linux's namespaces: {error}")

        yield start
