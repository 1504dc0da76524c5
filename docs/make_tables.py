"""Write the tables of the documents that are made from the code: ``python docs/make_tables.py``, kms_fast installed.

errors.md is made whole; in configuration.md and logs.md what stands between the markers is replaced.
"""

import re
from logging import getLevelName
from pathlib import Path

from kms_fast.cli.settings import OTHER_VARIABLES
from kms_fast.messages import MESSAGES
from kms_fast.model.settings import host_options
from kms_fast.results import RESULTS

DOCS = Path(__file__).parent

ERRORS_HEAD = """# Results

Made by `docs/make_tables.py` from `kms_fast/results.py`. `kms-fast explain CODE` tells a row on the command line. Codes
from 0xE04B0000 on are kms_fast's own; the others are those that administrators of volume activation know. In a
failure's JSON object, `signed` says whether a host signed the result.

| code | name | meaning | what to do |
| --- | --- | --- | --- |
"""


def render_errors() -> str:
    """The text of errors.md."""
    rows = (f"| {row.hex} | {row.name} | {row.meaning} | {row.cure} |\n" for row in RESULTS.values())
    return ERRORS_HEAD + "".join(rows)


def render_configuration(text: str) -> str:
    """configuration.md with its tables made anew."""
    options = ["| option | default | meaning |", "| --- | --- | --- |"]
    for option in host_options().values():
        default = "not set" if option.default is None else f"`{option.format(option.default)}`"
        options.append(f"| `{option.name}` | {default} | {option.description} |")
    variables = ["| variable | meaning |", "| --- | --- |"]
    variables += [f"| `{name}` | {meaning} |" for name, meaning in OTHER_VARIABLES.items()]
    return _replace(_replace(text, "options", options), "variables", variables)


def render_logs(text: str) -> str:
    """logs.md with its table made anew."""
    rows = ["| event | level | text |", "| --- | --- | --- |"]
    rows += [f"| `{row.event}` | {getLevelName(row.level).lower()} | {row.text} |" for row in MESSAGES.values()]
    return _replace(text, "messages", rows)


def _replace(text: str, name: str, lines: list[str]) -> str:
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    made = "\n".join([begin, *lines, end])
    return re.sub(f"{begin}.*?{end}", lambda _: made, text, count=1, flags=re.DOTALL)


def main() -> None:
    """Write all of them."""
    (DOCS / "errors.md").write_text(render_errors(), encoding="utf-8")
    for name, render in (("configuration.md", render_configuration), ("logs.md", render_logs)):
        page = DOCS / name
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
