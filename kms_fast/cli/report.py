"""The page that ``--report FILE`` asks for: the option, the file, and the command line to show."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from kms_fast.charts import Page, draw_page
from kms_fast.cli.output import Output
from kms_fast.model.settings import mask_password

# Options whose values are, or hold, secrets; and how a value is shown.
_SECRETS: dict[str, Callable[[str], str]] = {
    "--key": lambda key: "XXXXX-XXXXX-XXXXX-XXXXX-XXXXX",
    "--store": mask_password,
}


def report_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--report`` to a command and hand it the file, or None, as ``report``."""
    return click.option(
        "--report",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write a page with charts: one HTML file, which needs no network.",
    )(function)


def check_report(path: Path) -> None:
    """Find out before a load whether its page can be written, and leave all as it is. Raises OSError."""
    try:
        path.open("xb").close()
        path.unlink()
    except FileExistsError:
        path.open("ab").close()


def write_report(path: Path, page: Page, out: Output) -> bool:
    """Write the page. False, with a warning, when that fails: the figures are worth more than an error."""
    try:
        path.write_bytes(draw_page(page))
    except OSError as error:
        out.warning(f"{path}: {error.strerror}. The page was not written.")
        return False
    return True


def describe_command(arguments: Sequence[str]) -> str:
    """The command line as it can be typed again, except for secrets: those are masked."""
    shown: list[str] = []
    mask: Callable[[str], str] | None = None
    for argument in arguments:
        name, assigned, value = argument.partition("=")
        if mask is not None:
            shown.append(mask(argument))
            mask = None
        elif name in _SECRETS and assigned:
            shown.append(f"{name}={_SECRETS[name](value)}")
        else:
            shown.append(argument)
            mask = _SECRETS.get(argument)
    return shlex.join(["kms-fast", *shown])
