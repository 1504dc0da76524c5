"""An epoch: what a batch is decided by, signed with and written to. A reload or a full segment begins the next one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kms_fast import _core
from kms_fast.host.admission import build_table
from kms_fast.host.enrolment import Installation
from kms_fast.host.ledger import Ledger, open_ledger
from kms_fast.model.settings import HostSettings


@dataclass(frozen=True, slots=True)
class Epoch:
    """One reading of catalog, certificate, key and settings, and the ledger segment that it signs into.

    ``family_numbers``: the numbers by which the store knows the families of ``table``, row by row. ``sign`` makes an
    Ed25519 signature (64 bytes) of a message. A batch belongs to the epoch whose table admitted its requests.
    """

    table: _core.AdmissionTable
    family_numbers: list[int]
    sign: Callable[[bytes], bytes]
    ledger: Ledger

    def families(self) -> dict[int, _core.FamilyCount]:
        """The counts of the families by number."""
        return dict(zip(self.family_numbers, self.table.families, strict=True))

    def continue_counts(self, before: "Epoch") -> None:
        """Take over what the epoch before has counted, and the time below which its ledger may not fall."""
        counted = before.families()
        for number, family in self.families().items():
            if number in counted:
                family.load(counted[number].rows_since(0))
        self.ledger.last_time_ms = max(self.ledger.last_time_ms, before.ledger.last_time_ms)


def open_epoch(folder: Path, installation: Installation, settings: HostSettings) -> Epoch:
    """Open a segment in the host's folder for what is installed there.

    Raises `KmsFastError`: a damaged ledger, a full disk, a catalog that is too large.
    """
    table, family_numbers = build_table(installation, settings)
    ledger = open_ledger(
        folder / "ledger", host_id=installation.certificate.host_id, certificates=installation.chain_data
    )
    return Epoch(table, family_numbers, installation.private_key.sign, ledger)
