"""What publishers hand out, as users give it to commands: keys, and the publisher file."""

from collections.abc import Callable
from pathlib import Path

import click

from kms_fast.files import SMALL_BYTES, read_bounded


def make_publisher_option(help_text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """``--publisher FILE``, which hands a command the file's bytes as ``publisher_data``, or None."""
    return click.option(
        "--publisher",
        "publisher_data",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=lambda ctx, param, path: None if path is None else read_bounded(path),
        help=help_text,
    )


def read_key(ctx: click.Context, param: click.Parameter, key: str | None) -> str | None:
    """A callback: the key itself; ``@FILE`` keeps it out of the shell's history and the list of processes."""
    if key is None or not key.startswith("@"):
        return key
    return read_bounded(Path(key[1:]), SMALL_BYTES).decode("utf-8", "replace")


def read_keys(ctx: click.Context, param: click.Parameter, keys: tuple[str, ...]) -> list[str]:
    """The same for an option or argument that is repeatable."""
    return [read for key in keys if (read := read_key(ctx, param, key)) is not None]
