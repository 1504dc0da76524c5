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
    """Where the passphrase comes from; nothing is read or asked before `read`, so that cheap checks come first."""

    def __init__(self, passphrase_file: Path | None, key_file: Path | None) -> None:
        if passphrase_file and key_file:
            raise click.UsageError("Give --passphrase-file or --key-file, not both.")
        self._passphrase_file = passphrase_file
        self._key_file = key_file

    def read(self) -> bytes:
        """The passphrase of keys that exist. Raises OSError or `ConfigurationError`."""
        if self._key_file:
            return _strip_line_end(read_bounded(self._key_file, _LIMIT_BYTES))
        if self._passphrase_file:
            lines = read_bounded(self._passphrase_file, _LIMIT_BYTES).splitlines()
            return lines[0] if lines else b""
        from_environment = os.environ.get("KMS_FAST_PASSPHRASE")
        return os.fsencode(from_environment) if from_environment is not None else _ask(confirm=False)

    def choose(self) -> bytes:
        """The passphrase of keys to be made: a key file that does not exist is made, a typed one is asked for twice."""
        return self.read() if "KMS_FAST_PASSPHRASE" in os.environ and not self._has_file else self.choose_another()

    def choose_another(self) -> bytes:
        """The same for keys that have one already, which is the one that KMS_FAST_PASSPHRASE holds."""
        if self._key_file and not self._key_file.exists():
            self._key_file.parent.mkdir(SECRET_FOLDER, parents=True, exist_ok=True)
            write_atomically(self._key_file, secrets.token_hex(32).encode() + b"\n", mode=SECRET)
        return self.read() if self._has_file else _ask(confirm=True)

    @property
    def _has_file(self) -> bool:
        return self._key_file is not None or self._passphrase_file is not None


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


def _ask(*, confirm: bool) -> bytes:
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "No passphrase was given and there is no terminal to ask for it: use --passphrase-file, --key-file or "
            "KMS_FAST_PASSPHRASE.",
            name="KEY_FILE_LOCKED",
        )
    prompt = "Passphrase of the publisher's keys"
    return str(click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)).encode()


def _strip_line_end(data: bytes) -> bytes:
    return data.removesuffix(b"\n").removesuffix(b"\r")
