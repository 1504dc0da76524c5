"""Back ends and a C compiler for the kernel tests."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kms_fast import _core

ROOT = Path(__file__).parents[2]


def choose(**names: str) -> Iterator[None]:
    before = _core.backend()
    try:
        _core._use_backend(**names)
    except ValueError as error:
        pytest.skip(str(error))
    assert names.items() <= _core.backend().items()
    yield
    _core._use_backend(**before)


@pytest.fixture(params=["aesni", "cryptography"])
def each_aes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs the test once with each AES back end."""
    yield from choose(aes=request.param)


@pytest.fixture(params=["shani", "c"])
def each_sha256(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs the test once with each SHA-256 back end."""
    yield from choose(sha256=request.param)


@pytest.fixture(scope="session")
def compile_harness(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles tests/c/kernels.c with extra compiler flags; gives the program."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        if os.environ.get("KMS_FAST_REQUIRE_SERVICES") == "1":
            pytest.fail("no C compiler here (cc, or what CC names)")
        pytest.skip("no C compiler here (cc, or what CC names)")
    headers, source = ROOT / "kms_fast" / "_core", ROOT / "tests" / "c" / "kernels.c"

    def compile_with(*flags: str) -> Path:
        program = tmp_path_factory.mktemp("harness") / "kernels"
        warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-parameter"]
        command = [compiler, "-std=c11", "-g", *warnings, *flags, f"-I{headers}", str(source), "-o", str(program)]
        subprocess.run(command, check=True, timeout=120)
        return program

    return compile_with
