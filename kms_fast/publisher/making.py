"""The folder of a new publisher: one process at a time makes it, and none where something of another one is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kms_fast.errors import ConfigurationError
from kms_fast.files import SECRET_FOLDER, lock_folder


@contextmanager
def claim_folder(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other processes from making a publisher in it meanwhile: they wait.

    Raises OSError or `ConfigurationError`: there is a publisher, or a part of one.
    """
    folder.mkdir(SECRET_FOLDER, parents=True, exist_ok=True)
    with lock_folder(folder):
        _refuse_used(folder)
        yield


def check_unused(folder: Path) -> None:
    """Raise `ConfigurationError` when there is a publisher in the folder, or a part of one; or OSError."""
    if folder.exists():
        with lock_folder(folder):
            _refuse_used(folder)


def describe_lost_catalog(folder: Path) -> str:
    """What to say of a publisher whose catalog.toml is missing."""
    return (
        f"{folder / 'catalog.toml'} is missing; it alone has the products with their setup keys. Put it back, or make "
        "the publisher from a backup, in another home (kms-fast publisher restore FILE)."
    )


def _refuse_used(folder: Path) -> None:
    """Ask with the lock held: what is not whole is then not being made, either."""
    if (folder / "catalog.toml").exists():
        raise ConfigurationError(f"{folder} already holds a publisher; a second one needs a folder of its own: --home.")
    # A root key must never be lost, so nobody is told to remove anything.
    if (folder / "publisher.db").exists():
        raise ConfigurationError(f"{describe_lost_catalog(folder)} To begin anew, move {folder} away.")
    if any((folder / name).exists() for name in ("root.key", "issuer.key", "issuer.cert")):
        raise ConfigurationError(
            f"{folder} holds keys, but neither catalog.toml nor publisher.db: its publisher was not finished, or lost "
            "them. Make it from a backup, in another home (kms-fast publisher restore FILE); to begin anew, move "
            f"{folder} away."
        )
