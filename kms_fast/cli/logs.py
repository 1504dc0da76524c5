"""Logging of long-running commands, to stderr or a file: lines for people, or one JSON object each."""

import functools
import json
import logging
import sys
import time
from collections.abc import Callable
from logging.handlers import WatchedFileHandler
from typing import Any

import click

from kms_fast.cli.output import escape_controls
from kms_fast.errors import KmsFastError
from kms_fast.model.events import Event
from kms_fast.model.settings import host_options


def logging_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--log-level``, ``--log-format`` and ``--log-file`` to a command, which then logs as they say.

    For commands that are not ``serve``: there they are settings of the host, which this reads its words from.
    """
    options = host_options()

    @functools.wraps(function)
    def command(*args: Any, log_level: str, log_format: str, log_file: str | None, **others: Any) -> None:
        start_logging(log_level, log_format, log_file)
        function(*args, **others)

    for name in ("log_file", "log_format", "log_level"):
        option = options[name]
        command = click.option(
            f"--{name.replace('_', '-')}",
            type=click.Choice(option.choices) if option.choices else click.Path(dir_okay=False),
            envvar=f"KMS_FAST_{name.upper()}",
            default=option.default,
            show_default=option.default is not None,
            help=option.description,
        )(command)
    return command


def start_logging(level: str, form: str, file: str | None, who: str = "") -> None:
    """Log from now on, to stderr without a ``file``; ``who`` tells the processes of one host apart.

    Raises OSError when the file cannot be opened; then the log goes where it went before.
    """
    handler = (
        logging.StreamHandler(sys.stderr)
        if file is None
        else _LogFile(file, encoding="utf-8", errors="backslashreplace")
    )
    handler.setFormatter(_JsonFormatter(who) if form == "json" else _TextFormatter(who))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _LogFile(WatchedFileHandler):
    """A file that several processes append to, each line in one write, and that logrotate may move or empty."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            # It was moved, and no other can be opened in its place.
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """To stderr what the file does not take, as on a full disk: no reason to stop what was being done."""
        sys.stderr.write(self.format(record) + "\n")


class _TextFormatter(logging.Formatter):
    def __init__(self, who: str) -> None:
        said_by = f"{who}: " if who else ""
        super().__init__(f"%(asctime)s.%(msecs)03dZ %(levelname)s {said_by}%(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:
        return escape_controls(super().formatMessage(record))


class _JsonFormatter(logging.Formatter):
    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = {"process": who} if who else {}

    def format(self, record: logging.LogRecord) -> str:
        # A row of kms_fast.messages; what other libraries log has none.
        event = getattr(record, "event", None)
        told: dict[str, Any] = {
            "time_ms": int(record.created * 1000),
            "level": record.levelname.lower(),
            **({"logger": record.name} if event is None else {"event": event}),
            **self._who,
            "message": record.getMessage(),
        }
        if fields := getattr(record, "fields", None):
            told["fields"] = fields
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=_plain)


def _plain(value: object) -> object:
    return value.to_json() if isinstance(value, KmsFastError | Event) else str(value)
