"""An interrupted run goes on where it was; a finished one, another target or other code begins anew."""

from pathlib import Path

from tests.durability.progress import FINDINGS, Progress, State, hash_code


def make(**changes: object) -> State:
    return State(**{"targets": (20, 200, 200), "code": "a", "seed": 2} | changes)  # type: ignore[arg-type]


def test_a_run_goes_on(tmp_path: Path) -> None:
    progress = Progress(tmp_path, make(seed=1))
    progress.state.kills = 7
    progress.save("step")
    assert (Progress(tmp_path, make()).state.kills, Progress(tmp_path, make()).state.seed) == (7, 1)


def test_another_run_begins_anew(tmp_path: Path) -> None:
    progress = Progress(tmp_path, make())
    progress.state.kills = 7
    progress.save("step")
    for other in (make(targets=(21, 200, 200)), make(code="b")):
        assert Progress(tmp_path, other).state.kills == 0


def test_a_finished_run_leaves_only_findings(tmp_path: Path) -> None:
    progress = Progress(tmp_path, make())
    progress.save("step")
    (tmp_path / "recording-0").mkdir()
    (tmp_path / FINDINGS).mkdir()
    progress.end()
    assert [path.name for path in tmp_path.iterdir()] == [FINDINGS]


def test_figures_say_that_every_control_was_caught() -> None:
    assert make(controls={"a": True, "b": True}).figures(2)["controls_caught"] is True
    assert make(controls={"a": True}).figures(2)["controls_caught"] is False
    assert make(controls={"a": True, "b": False}).figures(2)["controls_caught"] is False


def test_the_code_has_one_name() -> None:
    assert hash_code() == hash_code()
