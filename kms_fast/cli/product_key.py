"""A key as users give it to a command."""

from pathlib import Path

from kms_fast.files import read_bounded

_LIMIT_BYTES = 1 << 16


def read_key(key: str) -> str:
    """The key itself; ``@FILE`` keeps it out of the shell's history and the list of processes. Raises OSError."""
    return read_bounded(Path(key[1:]), _LIMIT_BYTES).decode("utf-8", "replace") if key.startswith("@") else key
