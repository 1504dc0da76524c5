"""How fast a ledger is verified, exported and opened, for batches of 1, 32 and 256 leaves.

    python bench/ledger.py [--json] [--batches N] [--sizes 1 32 256] [--rounds N]

Makes a ledger of each kind in a temporary folder, signed by a host of its own, in two segments. Every figure is the
median over the rounds, with the files in the page cache.
"""

import argparse
import hashlib
import json
import os
import secrets
import statistics
import struct
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import checkout  # noqa: F401
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kms_fast import _core
from kms_fast.cli.realm import make_realm
from kms_fast.host.audit import verify_ledger
from kms_fast.host.enrolment import Installation, read_installation
from kms_fast.host.export import export_entries
from kms_fast.host.ledger import open_ledger
from kms_fast.host.segment import ENTRIES_AT, RECORD_MAGIC, find_head, list_segments
from kms_fast.model import signing
from kms_fast.model.lease import BatchHeader, Leaf

REST = struct.Struct("<64s16s32sIIIBB16sHH")
SEGMENTS = 2


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


def measure(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Medians of seconds that have passed and of CPU seconds of this process."""
    passed, used = [], []
    for _ in range(rounds):
        passed_s, used_s = time.perf_counter(), time.process_time()
        work()
        passed.append(time.perf_counter() - passed_s)
        used.append(time.process_time() - used_s)
    return statistics.median(passed), statistics.median(used)


def measure_ledger(folder: Path, installation: Installation, rounds: int) -> dict[str, float]:
    """The figures of one ledger, in a second."""
    publisher = installation.publisher

    def verify(processes: int) -> None:
        verify_ledger(
            folder,
            roots=publisher.roots,
            publisher_id=publisher.publisher_id,
            on_progress=lambda verdict: None,
            processes=processes,
        )

    cores = len(os.sched_getaffinity(0))
    verdict = verify_ledger(
        folder, roots=publisher.roots, publisher_id=publisher.publisher_id, on_progress=lambda verdict: None
    )
    _, used_s = measure(lambda: verify(1), rounds)
    passed_s, _ = measure(lambda: verify(cores), rounds)
    json_s, _ = measure(lambda: sum(map(len, export_entries(folder))), rounds)
    csv_s, _ = measure(lambda: sum(map(len, export_entries(folder, csv=True))), rounds)
    last = list_segments(folder)[-1]
    open_s, _ = measure(lambda: find_head(last), rounds)
    return {
        "verify_batches_per_s_and_core": round(verdict.batches / used_s),
        f"verify_batches_per_s_on_{cores}_cores": round(verdict.batches / passed_s),
        "export_json_records_per_s": round(verdict.records / json_s),
        "export_csv_records_per_s": round(verdict.records / csv_s),
        "follow_batches_per_s": round(verdict.batches / SEGMENTS / open_s),
    }


def measure_signature(installation: Installation) -> float:
    """Microseconds of one Ed25519 verification, which no batch can do without."""
    key = Ed25519PublicKey.from_public_bytes(installation.certificate.public_key)
    message = bytes(140)
    signature = installation.private_key.sign(message)
    _, used_s = measure(lambda: [key.verify(signature, message) for _ in range(2000)], 5)
    return round(used_s / 2000 * 1e6, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--batches", type=int, default=20_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kms-fast-bench-", dir="/var/tmp") as name:
        home = Path(name)
        make_realm(home, threshold=25)
        installation = read_installation(home / "host")
        figures: dict[str, object] = {"ed25519_verify_us": measure_signature(installation)}
        for leaves in options.sizes:
            folder = home / f"ledger-{leaves}"
            write_ledger(folder, installation, leaves=leaves, batches=options.batches)
            figures[f"batches_of_{leaves}"] = measure_ledger(folder, installation, options.rounds)
    print(json.dumps(figures, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
