"""The figures of bench/limits.py from given measurements: which are ratios of what, and when they are null."""

from dataclasses import replace

from limits import make_figures, make_table
from rows import read_rows
from samples import Sample
from servers import ANSWER_SIZE, make_ready_bytes
from yardsticks import YARDSTICKS

from kms_fast._core import RpcCounters, Session, build_bind

RUNS = [
    f"{server} {way}"
    for server in ("echo", "uvloop", "host")
    for way in ("kept open", "per connection", "at 20k", "half load", "verify none", "verify all")
]


def make_round(*, busy: float = 0.99, host_us: float = 12.0) -> dict[str, Sample]:
    sample = Sample(server_us=10.0, load_us=5.0, rate=1000.0, busy=busy, p99_ms=2.0, batch=None)
    samples = dict.fromkeys(RUNS, sample)
    samples["host kept open"] = replace(sample, server_us=host_us, rate=800.0)
    samples["host verify all"] = replace(sample, load_us=8.0)
    return samples


def test_figures_are_the_ratios_they_are_named_for() -> None:
    figures = make_figures(make_table([make_round()]))
    assert set(figures) == set(YARDSTICKS)
    assert figures["cpu_ratio_kept_open"] == figures["echo_ratio_kept_open"] == 1.2
    assert figures["cpu_ratio_per_connection"] == figures["cpu_ratio_at_20k"] == 1.0
    assert figures["rate_ratio_uvloop"] == 0.8
    assert (figures["load_ratio_verify_none"], figures["load_ratio_verify_all"]) == (0.5, 0.8)
    assert figures["p99_ms_half_load"] == 2.0


def test_a_figure_is_the_median_of_its_rounds_and_the_report_keeps_each() -> None:
    table = make_table([make_round(host_us=us) for us in (30.0, 11.0, 12.0)])
    assert make_figures(table)["cpu_ratio_kept_open"] == 1.2
    rows = {row.name: row for row in read_rows({"rows": table.to_json()})}
    assert rows["cpu_ratio_kept_open"].rounds == {"value": [3.0, 1.1, 1.2]}
    assert rows["host kept open"].rounds["server_us"] == [30.0, 11.0, 12.0]


def test_a_rate_ratio_of_servers_that_were_not_busy_is_null() -> None:
    idle, busy = make_round(busy=0.94), make_round()
    assert make_figures(make_table([idle]))["rate_ratio_uvloop"] is None
    assert make_figures(make_table([idle, busy]))["rate_ratio_uvloop"] == 0.8


def test_what_is_not_measured_is_null() -> None:
    figures = make_figures(make_table([make_round()]))
    assert figures["rate_ratio_10m"] is figures["recorder_per_s"] is figures["dashboard_ms"] is None


def test_the_ready_made_answers_are_what_a_client_reads() -> None:
    session = Session(RpcCounters())
    session.receive(build_bind())
    bind_ack, response = map(bytes.fromhex, make_ready_bytes())
    assert session.take_output() == bind_ack
    assert len(response) == 36 + ANSWER_SIZE + 4
