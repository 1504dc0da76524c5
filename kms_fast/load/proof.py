"""The proof that nothing was lost: what clients were told, against what the ledger holds.

Both come as lines of JSON with request hash, CMID, batch and index, those of the ledger with the result too. A line is
remembered as a 16-byte digest of these five, so that millions of them fit into memory.
"""

import hashlib
import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kms_fast.load.processes import hold_interrupts, own_environment
from kms_fast.programs import program_command


class Leaf(msgspec.Struct):
    """One acknowledged activation, or one record of a ledger; ``result`` 0 is a grant, the only thing acknowledged."""

    request_hash: str
    cmid: str
    batch: str
    index: int
    result: int = 0

    def digest(self) -> bytes:
        """A short name for all of it."""
        text = f"{self.request_hash} {self.cmid} {self.batch} {self.index} {self.result}"
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class LedgerProof:
    """What a ledger holds of what was acknowledged.

    ``chain_ok``: what `ledger verify` said, ``problem`` why not. ``missing``: acknowledged, not in the ledger as told.
    ``repeated``: in it more than once, or acknowledged twice.
    """

    batches: int
    records: int
    acknowledged: int
    missing: int
    repeated: int
    chain_ok: bool
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether the ledger verifies and holds every acknowledged leaf exactly once."""
        return self.chain_ok and self.missing == 0 and self.repeated == 0

    def to_json(self) -> dict[str, Any]:
        """The ``ledger`` of `kms-fast lab --json`."""
        return {
            "batches": self.batches,
            "records": self.records,
            "acknowledged": self.acknowledged,
            "acknowledged_missing": self.missing,
            "acknowledged_repeated": self.repeated,
            "chain_ok": self.chain_ok,
        }


def prove_ledger(home: Path, record: Path) -> LedgerProof:
    """Run `ledger verify` and `ledger export`, each a process, and compare the ledger with what clients recorded."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with hold_interrupts():
            processes.append(_start("verify", home, "--json"))
            processes.append(_start("export", home))
        verify, export = processes
        assert export.stdout is not None
        with record.open("rb") as acknowledged:
            count, told, found, repeated = compare(acknowledged, export.stdout)
        verdict = json.loads(verify.communicate()[0] or b"{}")
        listed = export.wait() == 0
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
    chain_ok = verify.returncode == 0 and verdict.get("chain_ok", False) and listed
    return LedgerProof(
        batches=verdict.get("batches", 0),
        records=count,
        acknowledged=told,
        missing=told - found,
        repeated=repeated,
        chain_ok=chain_ok,
        problem="" if chain_ok else verdict.get("message", "the ledger could not be read"),
    )


def compare(acknowledged: Iterable[bytes], records: Iterable[bytes]) -> tuple[int, int, int, int]:
    """How many records there are, how many leaves were acknowledged, how many of these are records, how many twice."""
    decode = msgspec.json.Decoder(Leaf).decode
    waiting: set[bytes] = set()
    told = repeated = 0
    for line in acknowledged:
        digest = decode(line).digest()
        told += 1
        repeated += digest in waiting
        waiting.add(digest)
    found: set[bytes] = set()
    count = 0
    for line in records:
        digest = decode(line).digest()
        count += 1
        if digest in waiting:
            waiting.remove(digest)
            found.add(digest)
        elif digest in found:
            repeated += 1
    return count, told, len(found), repeated


def _start(command: str, home: Path, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*program_command("kms_fast.cli.main"), "ledger", command, "--home", str(home), *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        process_group=0,
        env=own_environment(),
    )
