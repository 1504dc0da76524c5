"""The documents agree with the code and with each other."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from docs import make_tables
from kms_fast.cli.main import cli
from kms_fast.model.settings import host_options
from kms_fast.results import RESULTS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def walk_commands(command: click.Command, path: str = "kms-fast") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from walk_commands(inner, f"{path} {name}")


COMMANDS = dict(walk_commands(cli))


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if not isinstance(command, click.Group)])
def test_help_has_examples(path: str) -> None:
    shown = re.findall(rf"(?:^ +|&& )(?:\w+=\S* )*({path}\b.*)", COMMANDS[path].help or "", re.MULTILINE)
    assert shown
    assert [complaint for line in shown if (complaint := complain(line))] == []


def find_commands(text: str) -> Iterator[str]:
    """Command lines of kms-fast: in code blocks and between backticks, continuation lines joined."""
    for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if match := re.match(r"\s*\$ (?:\w+=\S* )*(kms-fast .*)", line):
                yield match[1]
    yield from re.findall(r"(?<!`)`(kms-fast [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def complain(line: str) -> str | None:
    """What is wrong with a command line as far as names of commands and options go."""
    words = re.split(r"\s[#|>&]", line)[0].split()
    path = words.pop(0)
    while words and isinstance(COMMANDS[path], click.Group) and re.fullmatch(r"[a-z][a-z-]*[,.;:]?", words[0]):
        path += f" {words.pop(0).rstrip(',.;:')}"
        if path not in COMMANDS:
            return f"there is no {path}: {line}"
    known = {name for param in COMMANDS[path].params for name in (*param.opts, *param.secondary_opts)} | {
        "--help",
        "-h",
    }
    for word in words:
        option = re.match(r"\[?(--[a-z-]+)", word)
        if option and option[1] not in known:
            return f"{path} has no {option[1]}: {line}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        other = page.parent / name if name else page
        assert other.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), target


def test_every_page_is_in_the_list() -> None:
    listed = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.parent.name == "docs" and f"({page.name})" not in listed] == [
        "README.md"
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_documents_exist(page: Path) -> None:
    lines = find_commands(page.read_text(encoding="utf-8"))
    assert [complaint for line in lines if (complaint := complain(line))] == []


def test_commands_of_the_cures_exist() -> None:
    lines = [f"kms-fast{rest}" for row in RESULTS.values() for rest in re.findall(r"kms-fast( [a-z][^.;:]*)", row.cure)]
    assert len(lines) > 5
    assert [complaint for line in lines if (complaint := complain(line))] == []


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_explains_itself_and_its_examples_exist(path: str) -> None:
    command = COMMANDS[path]
    assert command.help, "a command needs a docstring"
    assert [param.name for param in command.params if isinstance(param, click.Option) and not param.help] == []
    for line in re.findall(r"^\s*(?:\w+=\S+ )*(kms-fast [a-z].*)$", command.help, re.MULTILINE):
        assert complain(line) is None


@pytest.mark.parametrize("line", ["kms-fast no-such", "kms-fast config no-such", "kms-fast config show --no-such"])
def test_a_wrong_command_is_found(line: str) -> None:
    assert complain(line) is not None
    assert list(find_commands(f"text `{line}` text")) == [line]
    assert list(find_commands(f"```console\n$ A=1 {line}\n```")) == [line]


def test_every_option_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert [name for name in host_options() if f"| `{name}` |" not in text] == []


def test_tables_are_those_of_the_code() -> None:
    """Otherwise run ``python docs/make_tables.py``."""
    configuration = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert make_tables.render_errors() == (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert make_tables.render_configuration(configuration) == configuration
    logs = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
    assert make_tables.render_logs(logs) == logs


def test_every_result_is_documented() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert [row.name for row in RESULTS.values() if f"| {row.hex} | {row.name} |" not in text] == []
