"""The cursors of wire.pxd, through a probe compiled here, which also shows that other extensions can cimport them."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

SETUP = """
import sys
from Cython.Build import cythonize
from setuptools import Extension, setup
probe = Extension("wire_probe", ["wire_probe.pyx"], extra_compile_args=["-O0"])
setup(ext_modules=cythonize([probe], include_path=[sys.argv.pop()], language_level="3str"))
"""


@pytest.fixture(scope="module")
def wire(tmp_path_factory, compile_harness):
    folder = tmp_path_factory.mktemp("wire")
    (folder / "wire_probe.pyx").write_bytes(Path(__file__).with_name("wire_probe.pyx").read_bytes())
    (folder / "setup.py").write_text(SETUP)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", str(ROOT)]
    clean = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run(command, cwd=folder, env=clean, check=True, timeout=180, capture_output=True)
    (built,) = folder.glob("wire_probe.*.so")
    spec = importlib.util.spec_from_file_location("wire_probe", built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_integers_are_little_endian(wire):
    data = bytes(range(1, 16))
    expected = [0x01, 0x0302, 0x07060504, 0x0F0E0D0C0B0A0908]
    assert wire.read(data, [1, 2, 4, 8]) == (expected, False, 0)
    for size, value in zip([2, 4, 8], expected[1:], strict=True):
        assert wire.store(size, value) == (value.to_bytes(size, "little"), value)
    assert wire.read(b"\xff" * 15, [1, 2, 4, 8])[0] == [2**8 - 1, 2**16 - 1, 2**32 - 1, 2**64 - 1]


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_reading_past_the_end_gives_zero_and_stays_overrun(wire, size):
    for n in range(size):
        assert wire.read(b"\xff" * n, [size]) == ([0], True, n)
    assert wire.read(b"\xff" * 9, [8, 2, 1]) == ([2**64 - 1, 0, 0], True, 1)


def test_byte_strings(wire):
    data = b"0123456789"
    assert wire.cut(data, 2, 8) == (b"23456789", False)
    assert wire.cut(data, 10, 0) == (b"", False)
    assert wire.cut(data, 2, 9) == (None, True)
    assert wire.cut(data, 11, 0) == (None, True)
    assert wire.cut(data, 2**64 - 1, 1) == (None, True)
