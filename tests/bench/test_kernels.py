"""The kernels' benchmark: every kernel is measured in C, from Python and beside `cryptography`, on the same sizes."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from kernels import (
    OPENSSL,
    compile_kernels,
    make_core_calls,
    make_hashlib_calls,
    make_reference_calls,
    measure_core,
)
from program import MachineLacks
from rows import Table

from kms_fast._core import backend


def test_every_kernel_is_measured_in_c(tmp_path: Path, unavailable: Callable[[str], NoReturn]) -> None:
    try:
        program = compile_kernels(tmp_path)
    except MachineLacks as lack:
        unavailable(str(lack))
    table = Table()
    measure_core(table, program, rounds=2, milliseconds=1)
    measured = {(row.labels["kernel"], row.labels["bytes"]) for row in table.rows}
    wanted = make_core_calls().keys()
    if backend()["aes"] != "aesni":
        wanted = {(kernel, size) for kernel, size in wanted if not str(kernel).startswith("AES")}
    assert measured == wanted
    assert all(len(row.rounds["ns"]) == 2 for row in table.rows)


def test_every_kernel_has_something_beside_it() -> None:
    beside = make_reference_calls() | make_hashlib_calls()
    assert make_core_calls().keys() <= beside.keys()
    assert OPENSSL.keys() <= make_core_calls().keys()


@pytest.mark.parametrize("make_calls", [make_core_calls, make_reference_calls, make_hashlib_calls])
def test_what_is_measured_can_be_called(
    make_calls: Callable[[], dict[tuple[str, int], Callable[[int], object]]],
) -> None:
    assert all(call(number) is not None for call in make_calls().values() for number in (0, 255))
