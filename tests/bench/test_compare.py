"""What bench/compare.py takes for a change and what for noise, on made-up rounds."""

import json
import random
from pathlib import Path

import compare
import pytest
from compare import compare_figure, compare_results, find_drift, mann_whitney, read_figures, read_results
from rows import Table


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        ([10.0, 10.1, 9.9, 10.2, 9.8], [11.0, 11.1, 10.9, 11.2, 10.8], "changed"),
        ([11.0, 11.1, 10.9, 11.2, 10.8], [10.0, 10.1, 9.9, 10.2, 9.8], "changed"),
        # every round is higher, but by less than rounds differ among themselves
        ([10.0, 12.0, 14.0, 11.0, 13.0], [14.1, 14.2, 14.3, 15.0, 14.4], "changed"),
        ([10.0, 12.0, 14.0, 11.0, 13.0], [13.0, 14.1, 12.5, 15.0, 14.4], "noise"),
        # the medians are far apart, the rounds are not
        ([1.0, 1.0, 9.0, 9.0], [1.0, 9.0, 9.0, 9.0], "noise"),
        ([5.0] * 5, [5.0] * 5, "noise"),
        ([5.0] * 5, [6.0] * 5, "changed"),
        ([10.0, 10.0, 10.0], [20.0, 20.0, 20.0], "few rounds"),
        ([10.0], [20.0], "few rounds"),
    ],
)
def test_what_is_a_change(old: list[float], new: list[float], verdict: str) -> None:
    assert compare_figure("figure", old, new).verdict == verdict


def test_the_ranks_test_knows_published_values() -> None:
    # No overlap of five and five: U = 0; exact p is 2/252, the approximation 0.0122.
    assert mann_whitney([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(0.0122, abs=1e-4)
    assert mann_whitney([1, 3, 5], [2, 4, 6]) == pytest.approx(mann_whitney([2, 4, 6], [1, 3, 5]))
    assert mann_whitney([7, 7, 7], [7, 7, 7]) == 1.0


def test_rounds_of_the_same_thing_seldom_seem_changed() -> None:
    chance = random.Random(4)

    def draw(mean: float) -> list[float]:
        return [chance.gauss(mean, 1) for _ in range(5)]

    same = [compare_figure("figure", draw(100), draw(100)).verdict for _ in range(1000)]
    other = [compare_figure("figure", draw(100), draw(104)).verdict for _ in range(1000)]
    assert same.count("changed") < 40
    assert other.count("changed") > 900


def make_report(rates: list[float]) -> dict[str, object]:
    table = Table()
    for rate in rates:
        table.add({"server": "host", "connections": 64}, {"rate": rate})
    return {"rows": table.to_json(), "took_s": 1}


def test_folders_and_files_of_results_are_read_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = make_report([10.0, 10.1, 9.9, 10.0]), make_report([20.0, 20.1, 19.9, 20.0])
    folder, file, single = tmp_path / "old", tmp_path / "bench.json", tmp_path / "single.json"
    folder.mkdir()
    (folder / "connections.json").write_text(json.dumps(old))
    (folder / "bench.json").write_text("{}")
    file.write_text(json.dumps({"results": {"connections": new}, "figures": {}}))
    single.write_text(json.dumps(new))
    assert read_figures(read_results(folder)) == {"connections: host, connections 64: rate": [10.0, 10.1, 9.9, 10.0]}
    assert list(read_figures(read_results(single))) == ["host, connections 64: rate"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["compare.py", str(folder), str(file)])
        assert compare.main() == 0
    shown = capsys.readouterr().out
    assert "connections: host, connections 64: rate" in shown
    assert "+100.0 %" in shown
    assert "1 changed, 0 noise, 0 few rounds" in shown


def test_a_limit_that_changed_tells_of_another_machine() -> None:
    def compare(row: dict[str, str | int], figure: str) -> list[str]:
        tables = Table(), Table()
        for table, value in zip(tables, (1.0, 2.0), strict=True):
            for noise in (0.0, 0.1, 0.2, 0.3):
                table.add(row, {figure: value + noise})
        old, new = ({"limits": {"rows": table.to_json()}} for table in tables)
        changes = compare_results(old, new)
        assert [change.verdict for change in changes] == ["changed"]
        return [change.name for change in find_drift(changes)]

    assert compare({"run": "uvloop at 20k"}, "server_us") == ["limits: uvloop at 20k: server_us"]
    assert compare({"server": "echo", "way": "kept open", "connections": 1}, "rate")
    assert compare({"run": "host kept open"}, "server_us") == []
    assert compare({"figure": "echo_ratio_kept_open"}, "value") == []
    assert compare({"figure": "rate_ratio_uvloop"}, "value") == []


def test_what_are_no_results_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong.json"
    for text in ("[]", "not JSON", '{"rows": [{}]}'):
        wrong.write_text(text)
        monkeypatch.setattr("sys.argv", ["compare.py", str(wrong), str(wrong)])
        assert compare.main() == 1
        assert capsys.readouterr().err.startswith("compare.py: these are no results")
