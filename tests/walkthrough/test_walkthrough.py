"""The page is what happens, each way takes at most six commands, and a page that is wrong is noticed."""

from pathlib import Path

import pytest

from tests import walkthrough
from tests.walkthrough import PAGE, Differs, read_sections, walk

MOST_COMMANDS = 6


def test_the_walkthrough() -> None:
    walk()


def test_each_way_from_empty_homes_takes_few_commands() -> None:
    ways = dict(read_sections(PAGE.read_text(encoding="utf-8")))
    for title in ("Online", "Offline"):
        lines = [command.line for command in ways[title]]
        activated = next(number for number, line in enumerate(lines, 1) if line.startswith("kms-fast client activate"))
        assert activated <= MOST_COMMANDS


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("$ echo now\nthen\n", "printed:\nnow"),
        ("$ false\n", "exit code 1"),
        ("$ kms-fast serve --home none &\nlistening on 127.0.0.1:1688\n", "HOST_NOT_ACTIVATED"),
    ],
)
def test_what_is_not_as_recorded_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: str, words: str
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"## One\n\n```console\n{block}```\n")
    monkeypatch.setattr(walkthrough, "PAGE", page)
    with pytest.raises(Differs, match=words):
        walk()
