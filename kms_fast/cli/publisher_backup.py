"""``kms-fast publisher backup | restore``: a publisher in one file."""

from contextlib import closing
from pathlib import Path

import click

from kms_fast.cli.output import Output, following, home_option, json_option
from kms_fast.clock import wall_clock_ms
from kms_fast.model.policy import format_time
from kms_fast.publisher.backup import restore_backup, write_backup
from kms_fast.publisher.publisher import Publisher


@click.command
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@home_option
@json_option
def backup(file: Path, home: Path, out: Output) -> None:
    """Write keys, catalog and records of this publisher to one FILE; its service may run meanwhile.

    Private keys stay encrypted: keep the passphrase elsewhere. A root key that is not in the folder is not in FILE.

    \b
    Examples:
      kms-fast publisher backup /srv/backup/publisher-$(date +%F).tar
    """
    with closing(Publisher(home / "publisher")) as publisher:
        copied = write_backup(
            publisher,
            file,
            created_ms=wall_clock_ms(),
            on_progress=lambda copied: out.progress(str(copied)),
        )
        has_root = (publisher.folder / "root.key").exists()
    if not has_root:
        out.warning("The root key is not in the folder, so it is not in the backup either.")
    out.result(
        {"file": file, "files": copied.files, "bytes": copied.size_bytes, "root_key": has_root},
        f"Wrote {copied} to {file}.",
    )


@click.command
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@home_option
@json_option
def restore(file: Path, home: Path, out: Output) -> None:
    """Make a publisher from a FILE that `publisher backup` wrote, where there is none yet, whole or not at all.

    What was certified, revoked or disabled after the backup is not known. Numbers and serials go on far above those of
    the backup, so that none is given out twice.

    \b
    Examples:
      kms-fast publisher restore /srv/backup/publisher-2026-01-31.tar --home /srv/publisher
      kms-fast publisher export --home /srv/publisher
    """
    contents = restore_backup(file, home, lambda copied: out.progress(str(copied)))
    made = format_time(contents.created_ms)
    out.result(
        {"folder": home / "publisher", "files": len(contents.files), "backup_created_ms": contents.created_ms},
        f"Restored {home / 'publisher'} as it was at {made}.\n"
        f"Revoke and disable again what was since then. Next: {following('kms-fast publisher export')}",
    )
