"""Instructions of the core per activation stay within their bounds, and a core that does more is noticed."""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.guard.bounds import Costs, find_excesses, read_bounds
from tests.guard.instructions import (
    NotCountable,
    Profile,
    choose_leniency,
    count_instructions,
    describe_tools,
    read_profile,
    shorten_name,
)
from tests.hosts import make_realm

CORE = "_core.cpython-311-x86_64-linux-gnu.so"
DUMP = f"""\
# callgrind format
events: Ir
summary: 145

ob=/usr/lib/{CORE}
fl=core.c
fn=kf_sha256_blocks_c
12 100

fn=__pyx_f_8kms_fast_5_core_5Batch_admit
3 20
4 10
cob=/usr/lib/{CORE}
cfn=kf_sha256_blocks_c
calls=2 0
5 100

ob=/usr/lib/libc.so.6
fn=memcpy
0 15

totals: 145
"""


def test_a_dump_is_read_without_what_callees_cost(tmp_path: Path) -> None:
    path = tmp_path / "dump.1"
    path.write_text(DUMP)
    profile = read_profile(path)
    assert (profile.sum_compression(), profile.sum_core(), profile.sum_other()) == (100, 30, 15)
    assert profile.list_parts(1) == {"kf_sha256_blocks_c": 100}
    assert Profile({(CORE, "kf_siv_seal.part.0"): 700, (CORE, "kf_siv_seal"): 300}).list_parts(10) == {
        "kf_siv_seal": 100
    }


@pytest.mark.parametrize(
    ("library", "name", "short"),
    [
        (CORE, "__pyx_f_8kms_fast_5_core_5Batch_build_answer", "Batch.build_answer"),
        (CORE, "__pyx_pw_8kms_fast_5_core_10Connection_5data_received", "Connection.data_received"),
        (CORE, "__pyx_pf_8kms_fast_5_core_5Batch_4decide_product_and_clock.isra.0", "Batch.decide_product_and_clock"),
        (CORE, "__pyx_f_8kms_fast_5_core_handle_request", "handle_request"),
        (CORE, "__pyx_pw_8kms_fast_5_core_10hmac_sha256", "hmac_sha256"),
        (CORE, "kf_siv_open.constprop.0", "kf_siv_open"),
        ("libc.so.6", "malloc'2", "libc: malloc"),
    ],
)
def test_functions_are_named_as_in_their_source(library: str, name: str, short: str) -> None:
    assert shorten_name(library, name) == short


def test_other_tools_are_allowed_more() -> None:
    assert choose_leniency({"date": "2026-11-24"} | describe_tools()) == 1.0
    assert choose_leniency(describe_tools() | {"compiler": "GCC: (GNU) 1.0"}) > 1.0


@pytest.fixture
def count(
    require_tool: Callable[[str], str], unavailable: Callable[[str], NoReturn], untraced: None, tmp_path: Path
) -> Callable[[str], Costs]:
    """Call it with what to plant; gives the instructions."""
    require_tool("valgrind")
    (tmp_path / "dumps").mkdir()

    def count_planted(plant: str) -> Costs:
        try:
            return count_instructions(make_realm(tmp_path).home, tmp_path / "dumps", plant)
        except NotCountable as error:
            unavailable(str(error))

    return count_planted


def test_instructions_are_within_their_bounds(count: Callable[[str], Costs]) -> None:
    bounds = read_bounds()
    excesses = find_excesses(count("nothing"), bounds.costs, choose_leniency(bounds.recorded))
    assert not excesses, "\n".join(excesses)


def test_a_wasteful_core_is_noticed(count: Callable[[str], Costs]) -> None:
    """The negative control: each request is hashed once more, with a call from the interpreter."""
    bounds = read_bounds()
    excesses = "\n".join(find_excesses(count("hashed requests"), bounds.costs, choose_leniency(bounds.recorded)))
    for size in (64, 256):
        assert f"host, batches of {size}: sha256_blocks is" in excesses
        assert f"host, batches of {size}: other_instructions is" in excesses
    assert "kf_sha256_blocks_c (now" in excesses
    assert "load, checking no answer" not in excesses
