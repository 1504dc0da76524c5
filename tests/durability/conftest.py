"""What the proofs' own tests need: the compiled shim, a checker process, and one recording of an unplanted host."""

import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.durability.checker import CheckerProcess
from tests.durability.recording import Recording
from tests.durability.staging import Script, record
from tests.durability.trace import build_shim


@pytest.fixture(scope="session", autouse=True)
def linux(unavailable: Callable[[str], NoReturn]) -> None:
    """The proofs look into /proc, use all of 127.0.0.0/8 and preload a library made for Linux."""
    if sys.platform != "linux":
        unavailable("the durability proofs are made for Linux")


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory, unavailable: Callable[[str], NoReturn]) -> Path:
    """The compiled library."""
    if shutil.which("cc") is None:
        unavailable("a C compiler is not installed")
    return build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def checker() -> Iterator[CheckerProcess]:
    """A running checker."""
    with CheckerProcess() as process:
        yield process


@pytest.fixture(scope="session")
def recording(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A host that was killed in the middle of its load and started again."""
    return record(tmp_path_factory.mktemp("recording"), shim, Script(), random.Random(1))
