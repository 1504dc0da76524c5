"""What a lab shows to people: on a terminal, and as a page with charts."""

import os
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from kms_fast._core import backend
from kms_fast.charts import Figure, Page, Table
from kms_fast.cli.lab_findings import Findings, describe, describe_inventory
from kms_fast.load.page import make_page
from kms_fast.load.report import draw_load


def draw(findings: Findings) -> RenderableType:
    """What the terminal shows."""
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


def make_lab_page(findings: Findings, *, command: str, notice: str) -> Page:
    """The page: that of the load, and the proof. ``command``, ``notice``: as `make_page` takes them."""
    cpu_us = describe(findings)["server_cpu_us_per_activation"]
    cpu = [Figure("server CPU", f"{cpu_us:.1f}", "µs", "an activation, all of its processes")] if cpu_us else []
    rows = [["✓" if ok else "✗", line] for ok, line in list_proofs(findings)]
    return make_page(
        findings.plan,
        findings.load,
        findings.timeline.finish(findings.load),
        title=f"kms_fast lab: {findings.host.describe()}",
        command=command,
        notice=notice,
        figures=cpu,
        parts=[Table(title="Proof", columns=["", ""], rows=rows)],
    )


def draw_proof(findings: Findings) -> Text:
    """What was checked, line by line."""
    text = Text()
    for ok, line in list_proofs(findings):
        text.append("    ✓ " if ok else "    ✗ ", style="bold green" if ok else "bold red")
        text.append(line + "\n")
    return text


def list_proofs(findings: Findings) -> list[tuple[bool, str]]:
    """What was checked, and whether it is true."""
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
    if (inventory := describe_inventory(findings)) is not None:
        told = "{machines:,} machines, {granted:,} activations and {refused:,} refusals recorded".format(**inventory)
        lines.append((findings.recorded == (findings.activations, findings.requests), f"inventory: {told}"))
    if findings.server_exit_code:
        lines.append((False, f"the host ended with exit code {findings.server_exit_code}"))
    return lines


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
