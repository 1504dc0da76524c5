"""``kms-fast lab``: a publisher, a host and its clients on one machine, and the proof that all of it is true."""

import asyncio
import os
import secrets
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.text import Text

from kms_fast._core import backend
from kms_fast.cli.load import Progress, VerifyShare
from kms_fast.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, Output, json_option
from kms_fast.cli.realm import FAMILY, WARM_UP_CONNECTIONS, HostOptions, Realm, make_realm, make_store, prepare_home
from kms_fast.load.plan import LoadPlan, LoadResult, find_product
from kms_fast.load.processes import Interrupted, run_load
from kms_fast.load.proof import LedgerProof, prove_ledger
from kms_fast.load.report import draw_load, find_failure, make_figures
from kms_fast.model import policy
from kms_fast.store import Summary


@dataclass(slots=True)
class Findings:
    """What is known so far; the parts not reached yet are None."""

    plan: LoadPlan
    host: HostOptions
    warm_up: LoadResult
    load: LoadResult
    server_cpu_s: float | None = None
    ledger: LedgerProof | None = None
    inventory: Summary | None = None
    server_exit_code: int | None = None

    @property
    def requests(self) -> int:
        """How many requests were sent, those of the warm-up too: as many records there must be."""
        return self.load.requests + self.warm_up.requests

    @property
    def activations(self) -> int:
        """How many activations clients were told of, those of the warm-up too: as many were written down."""
        return self.load.activations + self.warm_up.activations

    @property
    def ok(self) -> bool:
        """Nothing missing, wrong or unverified."""
        load, ledger = self.load, self.ledger
        return (
            load.activations > 0
            and load.failed == load.refused == self.warm_up.failed == 0
            and (self.plan.verify_percent < 100 or load.verified == load.activations)
            and self.server_exit_code == 0
            and ledger is not None
            and ledger.ok
            and ledger.acknowledged == self.activations
            and ledger.records == self.requests
            and self.recorded == (self.activations, self.requests)
        )

    @property
    def recorded(self) -> tuple[int, int]:
        """How many activations and requests the inventory has."""
        results = self.inventory.results if self.inventory else {}
        return results.get(0, 0), sum(results.values())


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
    metavar="URL",
    help="PostgreSQL server to keep counts and inventory in: a database of the lab's own, removed at the end.",
)
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="New or empty folder to use and to leave; else a temporary one, removed at the end.",
)
@click.option("--keep", is_flag=True, help="Leave home and host up, and print the commands to activate by hand.")
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
    """
    with ExitStack() as cleanup:
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
        code = EXIT_INTERRUPTED
        try:
            measure(realm, findings, out)
            code = 0 if findings.ok else EXIT_FAILED
            figures, page = describe(findings), draw(findings)
            if keep:
                kept = leave_up(realm, host)
                cleanup.pop_all()
                figures, page = figures | {"kept": kept}, Group(page, draw_commands(kept))
        except KeyboardInterrupt:
            figures, page = describe(findings) | {"ok": False, "interrupted": True}, draw(findings)
        out.result(figures, page)
        if code == EXIT_INTERRUPTED:
            out.warning("Stopped by Ctrl-C; this is what was known until then.")
    click.get_current_context().exit(code)


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
            findings.load = run_load(findings.plan, report=Progress(out))
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


def describe(findings: Findings) -> dict[str, Any]:
    """The object of `kms-fast lab --json`."""
    load, cpu_s, ledger = findings.load, findings.server_cpu_s, findings.ledger
    return make_figures(load) | {
        "ok": findings.ok,
        "server_cpu_us_per_activation": (
            round(cpu_s * 1e6 / load.activations, 3) if cpu_s is not None and load.activations else None
        ),
        "ledger": ledger.to_json() if ledger else None,
        "inventory": _describe_inventory(findings),
        "warmup": {"requests": findings.warm_up.requests, "refused": findings.warm_up.refused},
    }


def _describe_inventory(findings: Findings) -> dict[str, int] | None:
    if findings.inventory is None:
        return None
    granted, requests = findings.recorded
    return {
        "machines": sum(number for _, number in findings.inventory.products),
        "granted": granted,
        "refused": requests - granted,
    }


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


def draw(findings: Findings) -> RenderableType:
    """The page."""
    ran_on = ", ".join([findings.host.describe(), f"{os.cpu_count()} cores", *backend().values()])
    parts: list[RenderableType] = [
        Text.assemble("\n  ", ("kms_fast lab", "bold"), (f"   {ran_on}", "dim")),
        draw_load(findings.plan, findings.load),
    ]
    figures = describe(findings)
    cpu_us, batch = figures["server_cpu_us_per_activation"], figures["batch_size"]
    if cpu_us is not None:
        parts.append(
            Text.assemble(
                ("\n  server\n", "bold"),
                f"    {cpu_us:.1f} µs of CPU an activation, all of its processes\n",
                f"    {batch['mean'] or 0:,.0f} activations a signature and sync, at most {batch['max'] or 0:,}",
            )
        )
    return Group(*parts, Text("\n  proof", style="bold"), draw_proof(findings))


def draw_proof(findings: Findings) -> Text:
    """What was checked, line by line."""
    load, warm_up, ledger = findings.load, findings.warm_up, findings.ledger
    verified = load.activations > 0 and load.failed == load.refused == 0
    lines = [
        (verified, f"{load.verified:,} of {load.activations:,} leases verified, as a product verifies them"),
        (warm_up.activations > 0, f"{warm_up.refused:,} machines refused before, until enough had asked"),
    ]
    if ledger is not None:
        whole = f"{ledger.batches:,} batches, {ledger.records:,} records: signatures, trees and chain verify"
        told = (
            f"{ledger.acknowledged:,} activations acknowledged: {ledger.missing:,} missing, {ledger.repeated:,} twice"
        )
        lines += [
            (ledger.chain_ok, f"ledger: {whole if ledger.chain_ok else ledger.problem}"),
            (
                ledger.missing == ledger.repeated == 0 and ledger.acknowledged == findings.activations,
                f"{told} in the ledger",
            ),
        ]
        if ledger.records != findings.requests:
            lines.append((False, f"{findings.requests:,} requests were made, not {ledger.records:,}"))
    if (inventory := _describe_inventory(findings)) is not None:
        told = "{machines:,} machines, {granted:,} activations and {refused:,} refusals recorded".format(**inventory)
        lines.append((findings.recorded == (findings.activations, findings.requests), f"inventory: {told}"))
    if findings.server_exit_code:
        lines.append((False, f"the host ended with exit code {findings.server_exit_code}"))
    text = Text()
    for ok, line in lines:
        text.append("    ✓ " if ok else "    ✗ ", style="bold green" if ok else "bold red")
        text.append(line + "\n")
    return text


def draw_commands(kept: dict[str, Any]) -> RenderableType:
    """The commands to activate by hand, and to end what was left up."""
    drop = f"\n  and DROP DATABASE {kept['database']} on its server" if kept["database"] else ""
    return Text(
        f"""  The host listens on {kept["address"]}. Activate this machine against it:

    export KMS_FAST_HOME={kept["home"]}
    kms-fast client install-key {kept["key"]} \\
        --publisher $KMS_FAST_HOME/publisher/publisher.json
    kms-fast client set-host {kept["address"]}
    kms-fast client activate
    kms-fast client status

  End it:  kill {kept["pid"]}; rm -r {kept["home"]}{drop}
"""
    )
