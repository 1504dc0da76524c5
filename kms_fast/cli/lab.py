"""``kms-fast lab``: a publisher, a host and its clients on one machine, and the proof that all of it is true."""

import asyncio
import secrets
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Group

from kms_fast.cli.lab_findings import Findings, describe
from kms_fast.cli.lab_page import draw, draw_commands, make_lab_page
from kms_fast.cli.load import STOPPED, Progress, VerifyShare
from kms_fast.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, Output, json_option
from kms_fast.cli.realm import FAMILY, WARM_UP_CONNECTIONS, HostOptions, Realm, make_realm, make_store, prepare_home
from kms_fast.cli.report import check_report, describe_command, report_option, write_report
from kms_fast.load.plan import LoadPlan, LoadResult, find_product
from kms_fast.load.processes import Interrupted, run_load, terminated_as_interrupted
from kms_fast.load.proof import prove_ledger
from kms_fast.load.report import find_failure
from kms_fast.model import policy
from kms_fast.model.settings import check_store_url


def check_store(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A click callback: the URL as it is. Raises click.BadParameter, which tells nothing of it, when it is none."""
    if value is not None:
        try:
            check_store_url(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None
    return value


@click.command
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=10, show_default=True, help="How long to load."
)
@click.option(
    "--connections", type=click.IntRange(1, 60_000), default=256, show_default=True, help="Connections at once."
)
@click.option(
    "--clients", type=click.IntRange(1, 10**10), default=100_000, show_default=True, help="Distinct machines."
)
@click.option(
    "--per-connection",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Activations on one connection before it is closed; 0 keeps it open.",
)
@click.option("--verify", type=VerifyShare(), default="all", show_default=True, help="Share of answers to check.")
@click.option(
    "--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes that serve side by side."
)
@click.option(
    "--store",
    callback=check_store,
    metavar="URL",
    help="PostgreSQL server to keep counts and inventory in: a database of the lab's own, removed at the end.",
)
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="New or empty folder to use and to leave; else a temporary one, removed at the end.",
)
@click.option("--keep", is_flag=True, help="Leave home and host up, and print the commands to activate by hand.")
@report_option
@json_option
def command(
    seconds: float,
    connections: int,
    clients: int,
    per_connection: int,
    verify: float,
    workers: int,
    store: str | None,
    home: Path | None,
    keep: bool,
    report: Path | None,
    out: Output,
) -> None:
    """Show the whole of it on this machine: make a publisher and its keys, certify a host, run it, load it, and compare
    what its clients were told with its ledger. Exit code 0 only if nothing was missing, wrong or unverified.

    \b
    Examples:
      kms-fast lab
      kms-fast lab --seconds 5 --per-connection 1 --connections 64
      kms-fast lab --workers 2 --store postgresql://postgres@127.0.0.1/postgres
      kms-fast lab --keep --home /tmp/lab
      kms-fast lab --seconds 60 --report lab.html
    """
    if report:
        check_report(report)
    with ExitStack() as cleanup:
        cleanup.enter_context(terminated_as_interrupted())
        folder = prepare_home(home, cleanup)
        out.progress("making a publisher, a catalog, keys and a certificate")
        realm = make_realm(folder, threshold=min(policy.THRESHOLDS[FAMILY], clients))
        plan = LoadPlan(
            address="127.0.0.1",
            port=0,
            product=find_product(realm.publisher, realm.setup_key),
            connections=connections,
            per_connection=per_connection,
            clients=(0, clients),
            machine_seed=secrets.token_bytes(32),
            seconds=seconds,
            verify_percent=verify,
            record=str(folder / "acknowledged.jsonl"),
        )
        host = HostOptions(workers, make_store(store, cleanup) if store else None)
        findings = Findings(plan, host, LoadResult(), LoadResult())
        code = show_findings(realm, findings, out, kept_by=cleanup if keep else None)
        if report is not None:
            notice = STOPPED if code == EXIT_INTERRUPTED else ""
            page = make_lab_page(findings, command=describe_command(sys.argv[1:]), notice=notice)
            code = code if write_report(report, page, out) else code or EXIT_FAILED
    click.get_current_context().exit(code)


def show_findings(realm: Realm, findings: Findings, out: Output, *, kept_by: ExitStack | None) -> int:
    """Measure, and print what was found; the exit code.

    ``kept_by``: what would clean up; then it does not, and the host is left up. Raises `KmsFastError` when nothing
    could be measured.
    """
    code = EXIT_INTERRUPTED
    try:
        measure(realm, findings, out)
        code = 0 if findings.ok else EXIT_FAILED
        figures, page = describe(findings), draw(findings)
        if kept_by is not None:
            kept = leave_up(realm, findings.host)
            kept_by.pop_all()
            figures, page = figures | {"kept": kept}, Group(page, draw_commands(kept))
    except KeyboardInterrupt:
        figures, page = describe(findings) | {"ok": False, "interrupted": True}, draw(findings)
    out.result(figures, page)
    if code == EXIT_INTERRUPTED:
        out.warning("Stopped by Ctrl-C; this is what was known until then.")
    return code


def measure(realm: Realm, findings: Findings, out: Output) -> None:
    """Run the host, warm its count past the threshold, load it, stop it, and prove its ledger.

    Fills ``findings`` in as it goes. Raises KeyboardInterrupt on Ctrl-C, `KmsFastError` when nothing could be measured.
    """
    out.progress("starting the host")
    server = findings.host.start(realm.home, connections=findings.plan.connections)
    try:
        findings.plan = replace(findings.plan, address=server.address, port=server.port)
        _warm_up(realm, findings)
        cpu_before_s = server.cpu_s()
        try:
            findings.load = run_load(findings.plan, report=Progress(out, findings.timeline))
        except Interrupted as interrupted:
            findings.load = interrupted.result
            raise
        failure = find_failure(findings.plan, findings.load)
        if failure is not None:
            raise failure
        cpu_after_s = server.cpu_s()
        if cpu_before_s is not None and cpu_after_s is not None:
            findings.server_cpu_s = cpu_after_s - cpu_before_s
        out.progress("stopping the host")
        findings.server_exit_code = server.drain()
    finally:
        server.kill()
    out.progress("comparing the ledger with what clients were told")
    assert findings.plan.record is not None
    findings.ledger = prove_ledger(realm.home, Path(findings.plan.record))
    findings.inventory = asyncio.run(findings.host.read_inventory(realm.home))


def _warm_up(realm: Realm, findings: Findings) -> None:
    """Let so many machines ask that the count stands at its cap: twice the threshold."""
    machines = min(2 * realm.threshold, findings.plan.clients[1])
    plan = replace(
        findings.plan,
        activations=machines,
        seconds=0.0,
        per_connection=0,
        connections=min(WARM_UP_CONNECTIONS, machines),
        verify_percent=100.0,
    )
    findings.warm_up = run_load(plan)
    failure = find_failure(plan, findings.warm_up)
    if failure is not None:
        raise failure


def leave_up(realm: Realm, host: HostOptions) -> dict[str, Any]:
    """Start the host again, for use by hand; what is needed to find and to end it."""
    server = host.start(realm.home)
    return {
        "address": f"{server.address}:{server.port}",
        "pid": server.process.pid,
        "home": str(realm.home),
        "publisher": str(realm.publisher_path),
        "key": realm.setup_key,
        "database": host.database,
    }
