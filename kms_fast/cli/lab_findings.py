"""What a lab has found: whether all of it is true, and the object that it prints."""

from dataclasses import dataclass, field
from typing import Any

from kms_fast.cli.realm import HostOptions
from kms_fast.load.plan import LoadPlan, LoadResult
from kms_fast.load.proof import LedgerProof
from kms_fast.load.report import make_figures
from kms_fast.load.timeline import Timeline
from kms_fast.store import Summary


@dataclass(slots=True)
class Findings:
    """What is known so far; the parts not reached yet are None."""

    plan: LoadPlan
    host: HostOptions
    warm_up: LoadResult
    load: LoadResult
    timeline: Timeline = field(default_factory=Timeline)
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


def describe(findings: Findings) -> dict[str, Any]:
    """The object of `kms-fast lab --json`."""
    load, cpu_s, ledger = findings.load, findings.server_cpu_s, findings.ledger
    return make_figures(load) | {
        "ok": findings.ok,
        "server_cpu_us_per_activation": (
            round(cpu_s * 1e6 / load.activations, 3) if cpu_s is not None and load.activations else None
        ),
        "ledger": ledger.to_json() if ledger else None,
        "inventory": describe_inventory(findings),
        "warmup": {"requests": findings.warm_up.requests, "refused": findings.warm_up.refused},
    }


def describe_inventory(findings: Findings) -> dict[str, int] | None:
    """What the inventory has; None when it was not reached."""
    if findings.inventory is None:
        return None
    granted, requests = findings.recorded
    return {
        "machines": sum(number for _, number in findings.inventory.products),
        "granted": granted,
        "refused": requests - granted,
    }
