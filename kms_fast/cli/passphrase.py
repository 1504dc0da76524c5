"""The passphrase of the publisher's private keys: key file, passphrase file, KMS_FAST_PASSPHRASE, or a prompt."""

import functools
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kms_fast.errors import ConfigurationError
from kms_fast.files import SECRET, SECRET_FOLDER, read_bounded, write_atomically

_LIMIT_BYTES = 1 << 16


class Passphrase:
    """Where the passphrase comes from; nothing is read or asked before `read`, so that cheap checks come first.

    ``new``: it is to take the place of one, which is the one that KMS_FAST_PASSPHRASE holds then; its options have
    names of their own.
    """

    def __init__(self, passphrase_file: Path | None, key_file: Path | None, *, new: bool = False) -> None:
        self._new = new
        if passphrase_file and key_file:
            raise click.UsageError(f"Give {' or '.join(self._options)}, not both.")
        self._passphrase_file = passphrase_file
        self._key_file = key_file

    def read(self) -> bytes:
        """The passphrase of keys that exist. Raises OSError or `ConfigurationError`."""
        return self._find(confirm=False)

    def choose(self) -> bytes:
        """The passphrase of keys to be made: a key file that does not exist is made, a typed one is asked for twice."""
        if self._key_file and not self._key_file.exists():
            self._key_file.parent.mkdir(SECRET_FOLDER, parents=True, exist_ok=True)
            write_atomically(self._key_file, secrets.token_hex(32).encode() + b"\n", mode=SECRET)
        return self._find(confirm=True)

    def _find(self, *, confirm: bool) -> bytes:
        if self._key_file:
            return _strip_line_end(read_bounded(self._key_file, _LIMIT_BYTES))
        if self._passphrase_file:
            lines = read_bounded(self._passphrase_file, _LIMIT_BYTES).splitlines()
            return lines[0] if lines else b""
        if not self._new and (given := os.environ.get("KMS_FAST_PASSPHRASE")) is not None:
            return os.fsencode(given)
        if not sys.stdin.isatty():
            ways = self._options if self._new else (*self._options, "KMS_FAST_PASSPHRASE")
            raise ConfigurationError(
                f"No {'new ' if self._new else ''}passphrase was given and there is no terminal to ask for it: use "
                f"{', '.join(ways[:-1])} or {ways[-1]}.",
                name="PASSPHRASE_MISSING",
            )
        prompt = f"{'New passphrase' if self._new else 'Passphrase'} of the publisher's keys"
        return str(click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)).encode()

    @property
    def _options(self) -> tuple[str, ...]:
        return ("--new-passphrase-file", "--new-key-file") if self._new else ("--passphrase-file", "--key-file")


def passphrase_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--passphrase-file`` and ``--key-file`` to a command and hand it a `Passphrase` as ``passphrase``."""

    @click.option(
        "--passphrase-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File whose first line is the passphrase; else KMS_FAST_PASSPHRASE, else a prompt.",
    )
    @click.option(
        "--key-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File whose content is the passphrase, for use without people; publisher init makes a missing one.",
    )
    @functools.wraps(function)
    def command(*args: Any, passphrase_file: Path | None, key_file: Path | None, **options: Any) -> None:
        function(*args, passphrase=Passphrase(passphrase_file, key_file), **options)

    return command


def _strip_line_end(data: bytes) -> bytes:
    return data.removesuffix(b"\n").removesuffix(b"\r")
