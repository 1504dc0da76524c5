"""The file of bounds, and what is said of a figure above its bound."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.guard.bounds import Bounds, Cost, Figure, find_excesses, format_costs, read_bounds, write_bounds
from tests.guard.core_work import BATCH_SIZES
from tests.guard.system_calls import LOADS

BOUND = Cost({"sends": Figure(1, 1.01), "waits": Figure(0.25, 1.5)}, {"write socket": 1, 'a "quoted" name': 2.5})
BOUNDS = Bounds({"date": "2026-11-24", "commit": "1358761"}, {"worker, kept open": BOUND})


def cost_with(**measured: float) -> dict[str, Cost]:
    figures = {name: replace(figure, measured=measured.get(name, 0.0)) for name, figure in BOUND.figures.items()}
    return {"worker, kept open": Cost(figures, {"write socket": 2, "read socket": 1, 'a "quoted" name': 1})}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bounds.toml"
    write_bounds(BOUNDS, path)
    assert read_bounds(path) == BOUNDS


def test_nothing_is_said_up_to_the_bound() -> None:
    assert find_excesses(cost_with(sends=1.01, waits=1.5), BOUNDS.costs) == []


def test_an_excess_names_figure_values_and_what_grew() -> None:
    assert find_excesses(cost_with(sends=2), BOUNDS.costs) == [
        "worker, kept open: sends is 2, allowed 1.01, recorded 1",
        "         +1.00 write socket (now 2)",
        "         +1.00 read socket (now 1)",
    ]


def test_leniency_raises_every_bound() -> None:
    assert find_excesses(cost_with(sends=1.1), BOUNDS.costs, leniency=1.15) == []
    assert find_excesses(cost_with(sends=1.2), BOUNDS.costs, leniency=1.15)


@pytest.mark.parametrize("costs", [{}, {"worker, kept open": Cost({}, {})}])
def test_a_figure_without_a_bound_is_an_excess(costs: dict[str, Cost]) -> None:
    assert find_excesses(cost_with(), costs) == [
        f"worker, kept open: {name} has no bound" for name in ("sends", "waits")
    ]


def test_the_table_shows_measured_recorded_and_allowed() -> None:
    rows = format_costs(cost_with(sends=1), BOUNDS.costs).splitlines()
    assert rows[1].split() == ["worker,", "kept", "open:", "sends", "1", "1", "1.01"]
    assert format_costs(cost_with(sends=1), {}).splitlines()[1].split()[-3:] == ["1", "-", "-"]


def test_every_kind_of_work_is_recorded() -> None:
    recorded = read_bounds()
    hosts = {f"host, batches of {size}" for size in BATCH_SIZES}
    loads = {"load, checking no answer", "load, checking every answer"}
    assert recorded.costs.keys() == hosts | loads | LOADS.keys()
    assert {"date", "commit", "compiler", "python"} == recorded.recorded.keys()
    for cost in recorded.costs.values():
        assert cost.parts
        assert all(figure.measured <= figure.allowed for figure in cost.figures.values())
