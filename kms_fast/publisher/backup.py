"""A publisher in one archive, also while its service runs, and a publisher made from one. Keys stay encrypted."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from kms_fast.archive import Contents, Copied, open_archive, restore_folder
from kms_fast.publisher.publisher import Publisher
from kms_fast.publisher.records import Records

FORMAT: Final = "kms_fast publisher backup 1"
FILES: Final = ("root.key", "issuer.key", "issuer.cert", "catalog.toml", "publisher.json")
DATABASE: Final = "publisher.db"


def write_backup(
    publisher: Publisher,
    target: Path,
    *,
    created_ms: int,
    on_progress: Callable[[Copied], None],
) -> Copied:
    """Write the archive of a publisher's folder, whole or not at all, readable by its owner only.

    A key that is kept elsewhere is not in it. Raises OSError or `KmsFastError`.
    """
    folder = publisher.folder
    # Nothing is exported or certified meanwhile, so that files and numbers belong together.
    with open_archive(target, FORMAT, created_ms, on_progress) as writer, publisher.records.transaction():
        for name in FILES:
            if (folder / name).exists():
                writer.add_file(name, folder / name)
        writer.add_database(DATABASE, folder / DATABASE)
    return writer.copied


def restore_backup(archive: Path, home: Path, on_progress: Callable[[Copied], None]) -> Contents:
    """Make the publisher's folder of a home from an archive, whole or not at all.

    Numbers and serials that may have been given out after the backup are left out. Raises `ConfigurationError` for a
    folder that is not empty, `KmsFastError` (BACKUP_DAMAGED), OSError.
    """

    def finish(folder: Path, contents: Contents) -> None:
        with closing(Records(folder / DATABASE)) as records:
            records.skip_numbers()

    return restore_folder(
        archive,
        FORMAT,
        home,
        "publisher",
        takes=lambda name: name in (*FILES, DATABASE),
        finish=finish,
        on_progress=on_progress,
    )
