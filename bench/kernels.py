"""The kernels, in ns a call and cycles a byte: in the core, from Python, with `cryptography`, by `openssl speed`.

    python bench/kernels.py [--json] [--rounds N] [--milliseconds N]

``core`` is kernels.c: the core's own headers, compiled with the extension's flags and called from C. ``core from
Python`` has the call and the bytes object of the result in it. Cycles are those of the time-stamp counter, whose
frequency is the report's ``tsc_mhz``; a core that is clocked otherwise at the moment does another number of its own.
Needs a C compiler; without openssl its rows are missing.
"""

import hashlib
import secrets
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from checkout import ROOT
from cryptography.hazmat.primitives import cmac, hashes, hmac
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from program import MachineLacks, Say, run_program
from rows import Table
from servers import make_folder

from kms_fast import _core

CALLS = 256
SIGNATURE = "Ed25519 signature of a header"  # its time does not depend on the size
KEY = secrets.token_bytes(32)
FIELDS_SIZE, REQUEST_SIZE, NONCE_SIZE, LEAF_SIZE, LEAVES = 168, 220, 16, 118, 256
NONCES = [secrets.token_bytes(NONCE_SIZE) for _ in range(CALLS)]
FIELDS = [secrets.token_bytes(16) + bytes(100) + b"\2" + bytes(51) for _ in range(CALLS)]
# What openssl measures, and the kernel whose row it belongs beside; its AES-SIV has no associated data.
OPENSSL = {
    ("AES-SIV seal", FIELDS_SIZE): ["-evp", "aes-128-siv"],
    ("AES-CMAC", FIELDS_SIZE): ["-cmac", "aes-128-cbc"],
    ("HMAC-SHA256", NONCE_SIZE): ["-hmac", "sha256"],
    ("HMAC-SHA256", FIELDS_SIZE): ["-hmac", "sha256"],
    ("SHA-256", REQUEST_SIZE): ["-evp", "sha256"],
}

Call = Callable[[int], object]


def compile_kernels(folder: Path) -> Path:
    """The program of kernels.c, compiled as setup.py compiles the extension."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    if shutil.which(compiler[0]) is None:
        raise MachineLacks(f"needs a C compiler ({compiler[0]})")
    flags = [*(sysconfig.get_config_var("CFLAGS") or "").split(), "-std=c11", "-O3", "-Wno-unused-function"]
    program, source = folder / "kernels", ROOT / "bench" / "kernels.c"
    subprocess.run([*compiler, *flags, f"-I{ROOT / 'kms_fast' / '_core'}", source, "-o", program], check=True)
    return program


def note(table: Table, kernel: str, size: int, by: str, ns: float, cycles: float) -> None:
    """A round's time of one call; ``cycles`` is 0 where nothing counts them."""
    table.add(
        {"kernel": kernel, "bytes": size, "by": by}, {"ns": ns, "cycles_per_byte": cycles / size if cycles else None}
    )


def measure_core(table: Table, program: Path, rounds: int, milliseconds: int) -> float:
    """Run kernels.c; the frequency of the time-stamp counter in MHz, 0 where there is none."""
    lines = subprocess.run(
        [program, str(rounds), str(milliseconds)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()
    mhz = 0.0
    for line in lines:
        name, size, ns, cycles = line.split()
        note(table, name.replace("_", " "), int(size), "core", float(ns), float(cycles))
        mhz = 1000 * float(cycles) / float(ns)
    return mhz


def make_core_calls() -> dict[tuple[str, int], Call]:
    """The core's kernels as Python sees them; those that take a key make its schedule in each call but for requests."""
    keys = _core.SkuKeys(NONCES[0], KEY, KEY)
    requests = [keys.seal_request(fields, nonce) for fields, nonce in zip(FIELDS, NONCES, strict=True)]
    leaves = [secrets.token_bytes(LEAF_SIZE) for _ in range(LEAVES)]
    return {
        ("AES-SIV seal", FIELDS_SIZE): lambda i: keys.seal_request(FIELDS[i], NONCES[i]),
        ("AES-SIV open", FIELDS_SIZE): lambda i: keys.open_request(requests[i]),
        ("AES-CMAC", FIELDS_SIZE): lambda i: _core.cmac(KEY[:16], FIELDS[i]),
        ("HMAC-SHA256", NONCE_SIZE): lambda i: _core.hmac_sha256(KEY, NONCES[i]),
        ("HMAC-SHA256", FIELDS_SIZE): lambda i: _core.hmac_sha256(KEY, FIELDS[i]),
        ("SHA-256", REQUEST_SIZE): lambda i: _core.sha256(requests[i]),
        ("tree of 256 leaves", LEAVES * LEAF_SIZE): lambda i: _core.merkle_root(leaves),
    }


def make_reference_calls() -> dict[tuple[str, int], Call]:
    """The same with `cryptography`, which keeps its key objects, and the signature, which only it makes."""
    siv, signer = AESSIV(KEY), Ed25519PrivateKey.generate()
    header, requests = bytes(20), [secrets.token_bytes(REQUEST_SIZE) for _ in range(CALLS)]
    sealed = [siv.encrypt(fields, [header, nonce]) for fields, nonce in zip(FIELDS, NONCES, strict=True)]
    keyed_cmac = cmac.CMAC(algorithms.AES128(KEY[:16]))
    keyed_hmac = hmac.HMAC(KEY, hashes.SHA256())

    def finish(keyed: Any, data: bytes) -> object:
        context = keyed.copy()
        context.update(data)
        return context.finalize()

    return {
        ("AES-SIV seal", FIELDS_SIZE): lambda i: siv.encrypt(FIELDS[i], [header, NONCES[i]]),
        ("AES-SIV open", FIELDS_SIZE): lambda i: siv.decrypt(sealed[i], [header, NONCES[i]]),
        ("AES-CMAC", FIELDS_SIZE): lambda i: finish(keyed_cmac, FIELDS[i]),
        ("HMAC-SHA256", NONCE_SIZE): lambda i: finish(keyed_hmac, NONCES[i]),
        ("HMAC-SHA256", FIELDS_SIZE): lambda i: finish(keyed_hmac, FIELDS[i]),
        ("SHA-256", REQUEST_SIZE): lambda i: finish(hashes.Hash(hashes.SHA256()), requests[i]),
        (SIGNATURE, 140): lambda i: signer.sign(FIELDS[i][:140]),
    }


def make_hashlib_calls() -> dict[tuple[str, int], Call]:
    """A tree with 511 calls of hashlib, which is quicker at it than `cryptography`."""
    leaves = [secrets.token_bytes(LEAF_SIZE) for _ in range(LEAVES)]

    def hash_tree(i: int) -> object:
        level = [hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]
        while len(level) > 1:
            pairs = zip(level[::2], level[1::2], strict=True)
            level = [hashlib.sha256(b"\1" + left + right).digest() for left, right in pairs]
        return level

    return {("tree of 256 leaves", LEAVES * LEAF_SIZE): hash_tree}


def measure_ns(call: Call, milliseconds: int) -> float:
    """Time of one call, the mean over this many milliseconds of calls with different arguments."""
    calls, spent_ns = 0, 0
    while spent_ns < milliseconds * 1_000_000:
        started_ns = time.perf_counter_ns()
        for i in range(CALLS):
            call(i)
        spent_ns += time.perf_counter_ns() - started_ns
        calls += CALLS
    return spent_ns / calls


def measure_openssl(arguments: list[str], size: int) -> float:
    """Time of one call by ``openssl speed``, which runs a second, in ns."""
    command = ["openssl", "speed", "-mr", "-seconds", "1", "-bytes", str(size), *arguments]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # with -mr a line +F:NUMBER:NAME:BYTES_A_SECOND holds the result
    bytes_per_s = float(next(line for line in said.splitlines() if line.startswith("+F:")).rpartition(":")[2])
    return size / bytes_per_s * 1e9


PYTHON_CALLS = {
    "core from Python": make_core_calls,
    "cryptography": make_reference_calls,
    "hashlib": make_hashlib_calls,
}


def run(say: Say, *, rounds: int, milliseconds: int) -> dict[str, Any]:
    """The report, without its machine."""
    table = Table()
    with make_folder() as folder:
        say("the core's kernels, from C")
        tsc_mhz = measure_core(table, compile_kernels(folder), rounds, milliseconds)
    for number in range(rounds):
        for by, make_calls in PYTHON_CALLS.items():
            say(f"round {number + 1}/{rounds}: {by}")
            for (kernel, size), call in make_calls().items():
                ns = measure_ns(call, milliseconds)
                note(table, kernel, size, by, ns, 0.0 if kernel == SIGNATURE else ns * tsc_mhz / 1000)
        if shutil.which("openssl"):
            say(f"round {number + 1}/{rounds}: openssl speed")
            for (kernel, size), arguments in OPENSSL.items():
                ns = measure_openssl(arguments, size)
                note(table, kernel, size, "openssl speed", ns, ns * tsc_mhz / 1000)
    return {"table": table, "tsc_mhz": round(tsc_mhz, 1), "cycles": "of the time-stamp counter"}


if __name__ == "__main__":
    sys.exit(
        run_program(
            __doc__,
            run,
            rounds=(5, "how often each kernel is measured"),
            milliseconds=(100, "length of each measurement"),
        )
    )
