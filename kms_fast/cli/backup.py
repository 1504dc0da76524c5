"""``kms-fast host backup | restore``: a host in one file."""

import asyncio
from pathlib import Path

import click

from kms_fast.cli.output import Output, following, home_option, json_option
from kms_fast.cli.store import store_options
from kms_fast.cli.stores import read_watermarks
from kms_fast.clock import wall_clock_ms
from kms_fast.errors import ConfigurationError, KmsFastError, LedgerError
from kms_fast.host.backup import restore_backup, write_backup
from kms_fast.model.policy import format_time
from kms_fast.model.settings import HostSettings
from kms_fast.store import Watermark


@click.command
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--damaged", is_flag=True, help="Copy what of the ledger is damaged as it lies, instead of refusing.")
@store_options
def backup(file: Path, damaged: bool, settings: HostSettings, home: Path, out: Output) -> None:
    """Write keys, certificates, catalog, ledger, counts and inventory of this host to one FILE; it may run meanwhile.

    FILE holds the host's private key: keep it as safe as the host itself. A FILE that is there is replaced once the new
    one is whole. Counts and inventory in PostgreSQL are not in it, nor counts.db and inventory.db in the home then;
    back that up with its own tools.

    \b
    Examples:
      kms-fast host backup /srv/backup/kms-$(date +%F).tar
      kms-fast host backup /srv/backup/evidence.tar --damaged
    """
    folder = home / "host"
    if not (folder / "host.key").exists():
        raise ConfigurationError(
            f"{folder} holds no host: {home} is not the home of one. Name it with --home.", file=str(folder)
        )

    told: list[str] = []

    def note_damage(error: LedgerError) -> None:
        if not damaged:
            raise error
        told.append(error.message)
        out.warning(f"{error.message} It is copied as it lies.")

    copied = write_backup(
        folder,
        file,
        with_databases=settings.store is None,
        read_watermarks=lambda: _read_watermarks(settings, home, out),
        created_ms=wall_clock_ms(),
        on_progress=lambda copied: out.progress(str(copied)),
        on_damage=note_damage,
    )
    out.result(
        {"file": file, "files": copied.files, "bytes": copied.size_bytes, "damage": told}, f"Wrote {copied} to {file}."
    )


def _read_watermarks(settings: HostSettings, home: Path, out: Output) -> list[Watermark]:
    """What the inventory has of this host; a database that is not in the backup does not hold it up."""
    try:
        return asyncio.run(read_watermarks(settings, home, reading=True))
    except KmsFastError as error:
        if settings.store is None:
            raise
        out.warning(f"{error.message} So the ledger is not compared with the inventory.")
        return []


@click.command
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@home_option
@json_option
def restore(file: Path, home: Path, out: Output) -> None:
    """Make a host from a FILE that `host backup` wrote, where there is no host yet, whole or not at all.

    What the host signed after the backup is not known, so it refuses to serve until told that this is accepted.

    \b
    Examples:
      kms-fast host restore /srv/backup/kms-2026-01-31.tar --home /var/lib/kms-fast
      kms-fast serve --accept-rollback
    """
    contents = restore_backup(file, home, lambda copied: out.progress(str(copied)))
    made = format_time(contents.created_ms)
    out.result(
        {"folder": home / "host", "files": len(contents.files), "backup_created_ms": contents.created_ms},
        f"Restored {home / 'host'} as it was at {made}. What this host signed after that is not known.\n"
        f"Make sure that the old host does not run, then: {following('kms-fast serve --accept-rollback')}",
    )
