"""What every benchmark program does: options from their defaults, one JSON object, and an exit code for each ending."""

import json
from typing import Any

import pytest
from program import LACKING, MachineLacks, Say, run_program
from rows import Table


def run(say: Say, *, rounds: int, sizes: tuple[int, ...], way: str) -> dict[str, Any]:
    """A program that measures nothing."""
    say("measuring")
    endings: dict[str, BaseException] = {
        "lacks": MachineLacks("needs a server"),
        "fails": RuntimeError("the host: TIMEOUT"),
        "stops": KeyboardInterrupt(),
    }
    if way in endings:
        raise endings[way]
    table = Table()
    for number in range(rounds):
        for size in sizes:
            table.add({"size": size}, {"ms": 10.0 * size + number})
    return {"way": way, "table": table}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["program.py", *arguments])
    return run_program("A program.", run, rounds=(2, "rounds"), sizes=((1, 2), "sizes"), way=("plain", "a way"))


def test_the_report_is_one_json_object_with_its_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--json", "--rounds", "3", "--sizes", "4") == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert said.err == "measuring\n"
    assert report["rows"] == [{"labels": {"size": 4}, "rounds": {"ms": [40.0, 41.0, 42.0]}}]
    assert {"way", "date", "commit", "machine", "load_average", "took_s"} <= report.keys()


def test_people_get_the_medians(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == [["ms"], ["size", "1", "10.5"], ["size", "2", "20.5"]]
    assert ["way", "plain"] in lines


@pytest.mark.parametrize(
    ("way", "exit_code", "said"),
    [
        ("lacks", LACKING, "needs a server"),
        ("fails", 1, "not measured: the host: TIMEOUT"),
        ("stops", 130, "measuring"),
    ],
)
def test_each_ending_has_its_exit_code_and_words(
    way: str, exit_code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--json", "--way", way) == exit_code
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == said
    assert shown.out == ""
