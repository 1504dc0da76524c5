"""``kms-fast ledger``: prove that a ledger is whole, list what it holds, drop what is old."""

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.cli.store import store_options
from kms_fast.cli.stores import read_watermarks
from kms_fast.cli.times import TimeType
from kms_fast.clock import wall_clock_ms
from kms_fast.errors import ConfigurationError
from kms_fast.files import SECRET, open_atomically
from kms_fast.host.audit import Verdict, verify_ledger
from kms_fast.host.export import export_entries, write_events
from kms_fast.host.prune import prune_ledger
from kms_fast.host.segment import END
from kms_fast.model.policy import format_time
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.settings import HostSettings, host_options


@click.group
def command() -> None:
    """Verify, list and prune what a host has signed.

    \b
    Examples:
      kms-fast ledger verify
      kms-fast ledger export --home /var/lib/kms-fast | grep c0ffee
    """


@command.command
@click.option(
    "--processes",
    type=click.IntRange(1, 1024),
    default=lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    help="How many processes share the work; else one a core.",
)
@home_option
@json_option
def verify(processes: int, home: Path, out: Output) -> None:
    """Check certificates, chain, signatures, trees and times of every batch; exit code 1 names the first that is
    wrong. Hosts may run meanwhile.

    \b
    Examples:
      kms-fast ledger verify
      kms-fast ledger verify --json | jq .details.problems
    """
    publisher = PublisherFile.parse(_host_file(home, "publisher.json").read_bytes())
    verdict = verify_ledger(
        _host_file(home, "ledger"),
        roots=publisher.roots,
        publisher_id=publisher.publisher_id,
        on_progress=lambda so_far: out.progress(f"{so_far.batches} batches, {so_far.records} records verified"),
        processes=processes,
    )
    out.result(verdict.to_json(), _describe(verdict))


@command.command
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "csv", "events"]),
    default="json",
    show_default=True,
    help="How lines look; events: as event 12290.",
)
@click.option("--since", "since_ms", type=TimeType(), default=0, help="Only what was signed then or later.")
@click.option("--until", "until_ms", type=TimeType(), default=END, help="Only what was signed before.")
@click.option(
    "--out", "path", type=click.Path(dir_okay=False, path_type=Path), help="The file to write; else standard output."
)
@home_option
@json_option
def export(form: str, since_ms: int, until_ms: int, path: Path | None, home: Path, out: Output) -> None:
    """Print every entry with all its fields, a line each: JSON objects, or CSV with a line of names first.

    Times are in ms since 1970. --since and --until take a date or time (UTC), or how long ago it was. With --format
    events a line is the time of signing and the event 12290 with its usual fields.

    \b
    Examples:
      kms-fast ledger export --since 7d | jq -r .name
      kms-fast ledger export --format csv --since 2026-01-01 --until 2026-02-01 --out january.csv
      kms-fast ledger export --format events --since 1h
    """
    pieces = export_entries(_host_file(home, "ledger"), csv=form == "csv", since_ms=since_ms, until_ms=until_ms)
    if form == "events":
        pieces = write_events(pieces)
    if path is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        return
    entries = _write(path, pieces, out) - (form == "csv")
    out.result({"file": path, "entries": entries}, f"Wrote {entries} entries to {path}.")


def _write(path: Path, pieces: Iterable[bytes], out: Output) -> int:
    """Write the file whole or not at all; its number of lines."""
    lines = 0
    with open_atomically(path, mode=SECRET) as file:
        for piece in pieces:
            file.write(piece)
            lines += piece.count(b"\n")
            out.progress(f"{lines} entries written")
    return lines


@command.command
@click.option("--keep", help="Drop records older than this, such as 90d; else the setting keep_records.")
@store_options
def prune(keep: str | None, settings: HostSettings, home: Path, out: Output) -> None:
    """Drop the records of segments that are older than keep_records, keeping all signed headers.

    Only what the inventory has taken up goes. The recorder of a running host does the same about hourly.

    \b
    Examples:
      kms-fast ledger prune
      kms-fast ledger prune --keep 90d --json
      kms-fast ledger prune --store postgresql://host@db.example.org/kms
    """
    folder = _host_file(home, "ledger")
    keep_s = _read_keep(keep, settings)
    watermarks = asyncio.run(read_watermarks(settings, home))
    pruned = prune_ledger(
        folder,
        watermarks,
        before_ms=wall_clock_ms() - 1000 * keep_s,
        on_progress=lambda so_far: out.progress(f"{so_far.segments} segments pruned"),
    )
    waiting = f"\n{pruned.waiting} wait until the inventory has taken them up." if pruned.waiting else ""
    out.result(
        pruned.to_json(),
        f"Dropped the records of {pruned.segments} segments ({pruned.batches} batches): "
        f"{pruned.freed_bytes / 1e6:.1f} MB.{waiting}",
    )


def _read_keep(keep: str | None, settings: HostSettings) -> int:
    if keep is not None:
        try:
            return int(host_options()["keep_records"].parse(keep, strict=False))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--keep") from None
    if settings.keep_records_s is None:
        raise ConfigurationError("keep_records is not set, so records are kept for ever. Say how long with --keep.")
    return settings.keep_records_s


def _host_file(home: Path, name: str) -> Path:
    path = home / "host" / name
    if not path.exists():
        raise ConfigurationError(
            f"{path} is not there: {home} is not the home of a host that has run. Name it with --home.", file=str(path)
        )
    return path


def _describe(verdict: Verdict) -> str:
    if verdict.first_ms is None or verdict.last_ms is None:
        return f"The ledger is whole and empty (segments: {verdict.segments})."
    notes = ""
    if verdict.pruned_segments:
        notes += f"\nsegments without their records (pruned): {verdict.pruned_segments}"
    if verdict.torn_tails:
        notes += f"\n{verdict.torn_tails} cut short by a crash, never answered"
    if verdict.lost_heads:
        notes += f"\nsegments whose last batches are lost, which was accepted: {verdict.lost_heads}"
    if verdict.clock_resets:
        notes += f"\nresets of the host's clock, each named by the segment it begins: {verdict.clock_resets}"
    return (
        f"The ledger is whole: every chain, signature and tree verifies.\n"
        f"segments: {verdict.segments}, batches: {verdict.batches}, records: {verdict.records}, "
        f"granted: {verdict.granted}\n"
        f"signed from {format_time(verdict.first_ms)} to {format_time(verdict.last_ms)}{notes}"
    )
