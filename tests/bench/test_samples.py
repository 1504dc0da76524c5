"""A sample of a real host: whose CPU and memory is counted, and that a load which failed is no sample."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from samples import measure, measure_open, read_rss_kib_by_role
from servers import run_host


@pytest.fixture(autouse=True)
def _two_cores(unavailable: Callable[[str], NoReturn]) -> None:
    if not {0, 1} <= os.sched_getaffinity(0):
        unavailable("needs the cores 0 and 1")


def test_a_real_host_is_sampled(tmp_path: Path) -> None:
    with run_host(tmp_path / "home", "--workers", "2", cores=(0, 1)) as host:
        memory = read_rss_kib_by_role(host.pid)
        sample = measure(host, connections=4, seconds=0, activations=200)
        grown = measure_open(host, 50)
        with pytest.raises(RuntimeError, match="host: "):
            measure(replace(host, port=1), connections=1, seconds=0, activations=1)
    assert memory.keys() == {"first", "worker", "recorder"}
    assert memory["worker"] > memory["first"]  # two of them
    assert sample.server_us > 0
    assert sample.batch is not None
    assert 1 <= sample.batch <= 4
    assert sample.p50_ms is not None
    assert 0 < sample.p50_ms <= sample.p99_ms
    assert grown["kib"] == pytest.approx(
        sum(value for role, value in grown.items() if value is not None and role in {"worker_kib", "recorder_kib"}),
        abs=memory["first"] / 50,
    )
