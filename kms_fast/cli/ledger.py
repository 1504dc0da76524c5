"""``kms-fast ledger``: prove that a ledger is whole, and list what it holds."""

import sys
from pathlib import Path

import click

from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.errors import ConfigurationError
from kms_fast.host.audit import Verdict, list_records, verify_ledger
from kms_fast.model.policy import format_time
from kms_fast.model.publisher_file import PublisherFile

PROGRESS_EVERY = 1000


@click.group
def command() -> None:
    """Verify and list what a host has signed.

    \b
    Examples:
      kms-fast ledger verify
      kms-fast ledger records --home /var/lib/kms-fast | grep c0ffee
    """


@command.command
@home_option
@json_option
def verify(home: Path, out: Output) -> None:
    """Check certificates, chain, signatures, trees and times of every batch; exit code 1 names the first that is
    wrong.
    """
    publisher = PublisherFile.parse(_host_file(home, "publisher.json").read_bytes())

    def show_progress(verdict: Verdict) -> None:
        if verdict.batches % PROGRESS_EVERY == 0:
            out.progress(f"{verdict.batches} batches, {verdict.records} records verified")

    verdict = verify_ledger(
        _host_file(home, "ledger"),
        roots=publisher.roots,
        publisher_id=publisher.publisher_id,
        on_progress=show_progress,
    )
    out.result(verdict.to_json(), _describe(verdict))


@command.command
@home_option
@json_option
def records(home: Path, out: Output) -> None:
    """Print every record as a line of JSON: request hash, CMID, SKU, result, time (ms since 1970), batch and index."""
    sys.stdout.writelines(line + "\n" for line in list_records(_host_file(home, "ledger")))


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
    torn = f"\n{verdict.torn_tails} cut short by a crash, never answered" if verdict.torn_tails else ""
    return (
        f"The ledger is whole: every chain, signature and tree verifies.\n"
        f"segments: {verdict.segments}, batches: {verdict.batches}, records: {verdict.records}, "
        f"granted: {verdict.granted}\n"
        f"signed from {format_time(verdict.first_ms)} to {format_time(verdict.last_ms)}{torn}"
    )
