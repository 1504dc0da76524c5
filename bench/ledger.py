"""How fast a ledger is verified, exported and opened, for batches of 1, 32 and 256 leaves.

    python bench/ledger.py [--json] [--batches N] [--sizes 1 32 256] [--rounds N]

Makes a ledger of each kind in a temporary folder, signed by a host of its own, in two segments. The files are in the
page cache.
"""

import hashlib
import os
import secrets
import struct
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from program import Say, run_program
from rows import Table
from servers import make_folder

from kms_fast import _core
from kms_fast.cli.realm import make_realm
from kms_fast.host.audit import Verdict, verify_ledger
from kms_fast.host.enrolment import Installation, read_installation
from kms_fast.host.export import export_entries
from kms_fast.host.ledger import open_ledger
from kms_fast.host.segment import ENTRIES_AT, RECORD_MAGIC, find_head, list_segments
from kms_fast.model import signing
from kms_fast.model.lease import BatchHeader, Leaf

REST = struct.Struct("<64s16s32sIIIBB16sHH")
SEGMENTS = 2
VERIFICATIONS = 2000


def make_entries(leaves: int) -> bytes:
    """The entries of one batch, each a granted request of a machine of its own."""
    entries = []
    for number in range(leaves):
        leaf = Leaf(
            family_index=0,
            result=0,
            request_hash=secrets.token_bytes(32),
            sku_id=uuid.uuid4().bytes,
            cmid=uuid.uuid4().bytes,
            hardware_digest=secrets.token_bytes(16),
            client_time_ms=1_700_000_000_000,
            generation=1,
            validity_min=259_200,
            activation_interval_min=120,
            renewal_interval_min=10_080,
            count=50,
            threshold=25,
        )
        name = f"desk-{number:05}.example.org".encode()
        address = bytes(10) + b"\xff\xff\xc0\0\2" + bytes([number % 256])
        rest = REST.pack(name, bytes(16), secrets.token_bytes(32), 0, 0, 1 << 16, 1, 0, address, 40_000, 0)
        entries.append(leaf.to_bytes() + rest)
    return b"".join(entries)


def write_ledger(folder: Path, installation: Installation, *, leaves: int, batches: int) -> None:
    """A ledger of this many batches, each of the same entries: verifying it does not know."""
    entries = make_entries(leaves)
    root, certificate = _core.entries_root(entries), installation.certificate
    for _ in range(SEGMENTS):
        ledger = open_ledger(folder, host_id=certificate.host_id, certificates=installation.chain_data)
        ledger.close()
        previous, now_ms = ledger.previous, time.time_ns() // 1_000_000
        with ledger.path.open("ab") as file:
            for number in range(1, batches // SEGMENTS + 1):
                header = BatchHeader(
                    leaves, ledger.segment, number, now_ms, certificate.host_id, certificate.serial, 0, previous, root
                ).to_bytes()
                signature = signing.sign(installation.private_key, signing.BATCH_HEADER, header)
                file.write(struct.pack("<I4s", ENTRIES_AT + len(entries), RECORD_MAGIC) + header + signature + entries)
                previous = hashlib.sha256(header).digest()


def spend(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that have passed and CPU seconds of this process."""
    passed_s, used_s = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - passed_s, time.process_time() - used_s


def measure_ledger(folder: Path, installation: Installation) -> dict[str, float | None]:
    """One round's figures of a ledger, in a second."""
    publisher, cores = installation.publisher, len(os.sched_getaffinity(0))

    def verify(processes: int) -> Verdict:
        return verify_ledger(
            folder,
            roots=publisher.roots,
            publisher_id=publisher.publisher_id,
            on_progress=lambda verdict: None,
            processes=processes,
        )

    verdict = verify(1)
    _, used_s = spend(lambda: verify(1))
    passed_s, _ = spend(lambda: verify(cores))
    json_s, _ = spend(lambda: sum(map(len, export_entries(folder))))
    csv_s, _ = spend(lambda: sum(map(len, export_entries(folder, csv=True))))
    last = list_segments(folder)[-1]
    open_s, _ = spend(lambda: find_head(last))
    return {
        "verify_batches_per_s_and_core": verdict.batches / used_s,
        f"verify_batches_per_s_on_{cores}_cores": verdict.batches / passed_s,
        "export_json_records_per_s": verdict.records / json_s,
        "export_csv_records_per_s": verdict.records / csv_s,
        "follow_batches_per_s": verdict.batches / SEGMENTS / open_s,
    }


def measure_signature(installation: Installation) -> float:
    """Microseconds of one Ed25519 verification, which no batch can do without."""
    key = Ed25519PublicKey.from_public_bytes(installation.certificate.public_key)
    message = bytes(140)
    signature = installation.private_key.sign(message)
    _, used_s = spend(lambda: [key.verify(signature, message) for _ in range(VERIFICATIONS)])
    return used_s / VERIFICATIONS * 1e6


def run(say: Say, *, batches: int, sizes: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """The report, without its machine."""
    table = Table()
    with make_folder() as home:
        make_realm(home, threshold=25)
        installation = read_installation(home / "host")
        for leaves in sizes:
            say(f"writing {batches:,} batches of {leaves}")
            write_ledger(home / f"ledger-{leaves}", installation, leaves=leaves, batches=batches)
        for number in range(rounds):
            table.add({"signature": "Ed25519 verification"}, {"us": measure_signature(installation)})
            for leaves in sizes:
                say(f"round {number + 1}/{rounds}: batches of {leaves}")
                table.add({"leaves": leaves}, measure_ledger(home / f"ledger-{leaves}", installation))
    return {"batches": batches, "table": table}


if __name__ == "__main__":
    sys.exit(
        run_program(
            __doc__,
            run,
            batches=(20_000, "batches of each ledger"),
            sizes=((1, 32, 256), "leaves of a batch"),
            rounds=(3, "how often each ledger is measured"),
        )
    )
