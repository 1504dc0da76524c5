"""What commands print: results on stdout, everything else on stderr, one JSON object under ``--json``."""

import functools
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click
from click.core import ParameterSource

from kms_fast.errors import KmsFastError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141  # what a shell shows of a program that SIGPIPE ended

# Control characters could drive the reader's terminal; names and texts from elsewhere are shown with them escaped.
_ESCAPES = {n: f"\\x{n:02x}" for n in (*range(0x20), *range(0x7F, 0xA0)) if chr(n) not in "\n\t"}


class Output:
    """Prints for one command, as text or as JSON.

    A command calls :meth:`result` once, or :meth:`line` for each of many results; :meth:`progress` and :meth:`warning`
    go to stderr and are never part of the result.
    """

    _progress_shown: ClassVar[bool] = False

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    def result(self, value: Mapping[str, Any] | str, text: "RenderableType | None" = None) -> None:
        """Print the command's result.

        ``value`` is the object of ``--json`` (``"ok": true`` is put in front unless it says otherwise); ``text``, a
        string or anything rich can draw, is what people see. Without ``text`` the value's keys and values are listed.
        """
        self.clear_progress()
        if self.as_json:
            fields = {"message": value} if isinstance(value, str) else value
            _write_json({"ok": True, **fields})
        elif text is None:
            _print_text(value if isinstance(value, str) else "\n".join(list_fields(value)))
        elif isinstance(text, str):
            _print_text(text)
        else:
            stdout_console().print(text)

    def line(self, value: Mapping[str, Any], text: str | None = None) -> None:
        """Print one of many results on one line, at once; the object itself when there is no ``text``."""
        if self.as_json or text is None:
            _write_json(value)
        else:
            _print_text(text)
        sys.stdout.flush()

    def progress(self, text: str) -> None:
        """Replace the progress line on stderr; nothing when stderr is not a terminal."""
        if sys.stderr.isatty():
            Output._progress_shown = True
            width = shutil.get_terminal_size().columns
            sys.stderr.write(f"\r\x1b[K{escape_controls(text)[: width - 1]}")
            sys.stderr.flush()

    def warning(self, text: str) -> None:
        """Print a line on stderr, terminal or not."""
        self.clear_progress()
        print(escape_controls(text), file=sys.stderr, flush=True)

    @classmethod
    def clear_progress(cls) -> None:
        """Remove the progress line, if there is one."""
        if cls._progress_shown:
            cls._progress_shown = False
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def error(self, error: KmsFastError) -> None:
        """Print a failure: what happened, what it means, what to do.

        One line in a log; a line for each part on a terminal. Under ``--json`` the object of ``to_json()`` on stdout.
        """
        self.clear_progress()
        if self.as_json:
            _write_json(error.to_json())
            return
        result = error.result
        message = error.message if error.message.endswith((".", "!", "?")) else f"{error.message}."
        parts = [f"error: {message}", result.meaning, f"{result.cure} ({result.hex} {result.name})"]
        if result.meaning.rstrip(".") in message or message.rstrip(".") in result.meaning:
            del parts[1]
        between = "\n       " if sys.stderr.isatty() else " "
        print(escape_controls(between.join(parts)), file=sys.stderr, flush=True)


def json_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--json`` to a command and hand it an :class:`Output` as ``out``."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object, also for a failure.")
    @functools.wraps(function)
    def command(*args: Any, as_json: bool, **options: Any) -> None:
        function(*args, out=Output(as_json=as_json), **options)

    return command


def home_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--home`` to a command and hand it the folder as ``home``."""
    return click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="KMS_FAST_HOME",
        default=default_home,
        help="Folder of keys, state and ledger; else KMS_FAST_HOME, else /var/lib/kms-fast for root.",
    )(function)


def following(command: str, *options: str) -> str:
    """``command`` as it can be run after this one: with the ``--home`` that was written here, and those ``options``."""
    context = click.get_current_context()
    given = [
        f" --{name.replace('_', '-')} {shlex.quote(str(context.params[name]))}"
        for name in ("home", *options)
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    return "".join([command, *given])


def default_home() -> Path:
    """``/var/lib/kms-fast`` for root, otherwise the platform's folder for a user's data."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local")).expanduser() / "kms-fast"
    if os.geteuid() == 0:
        return Path("/var/lib/kms-fast")
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/kms-fast").expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "kms-fast"


def escape_controls(text: str) -> str:
    """The text with control characters written as ``\\x1b``; line ends and tabs stay."""
    return text.translate(_ESCAPES)


@functools.cache
def stdout_console() -> "Console":
    """Rich's console on stdout; it leaves colours out for a pipe and under NO_COLOR."""
    from rich.console import Console

    return Console(highlight=False, markup=False)


def _print_text(text: str) -> None:
    # Not through rich: it would fold lines at the width of a terminal that is not there.
    print(escape_controls(text))


def _write_json(value: Mapping[str, Any]) -> None:
    print(json.dumps(value, default=_plain))


def _plain(value: object) -> object:
    """What JSON has no type for, as it is written everywhere here: bytes in hex, the rest (UUID, path) as text."""
    return value.hex() if isinstance(value, bytes) else str(value)


def list_fields(fields: Mapping[str, Any], indent: str = "") -> list[str]:
    """Lines of aligned names and values; a mapping, or each of a list of them, is indented below its name."""
    width = max((len(name) for name in fields), default=0) + 2
    lines = []
    for name, value in fields.items():
        label = name.replace("_", " ")
        items = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(item, Mapping) for item in items):
            lines.append(indent + label)
            lines += [line for item in items for line in list_fields(item, indent + "  ")]
        else:
            lines.append(f"{indent}{label:{width}}{', '.join(map(_show, items)) or '-'}")
    return lines


def _show(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(_plain(value))
