"""A publisher, a certified host's home and a real ``kms-fast serve`` process, for tests that need the whole thing.

def test_something(real_host):                       # one process for the whole session, 1 machine is enough
    real_host.address, real_host.realm.publisher_json, real_host.realm.skus["desktop"].secret

with serve(make_realm(tmp_path, threshold=25)) as host: ...
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from kms_fast.model import signing
from kms_fast.model.catalog import Catalog, Family, Sku
from kms_fast.model.certificate import (
    CertifiedFamily,
    IssuerCertificate,
    issue_host_certificate,
    issue_issuer_certificate,
)
from kms_fast.model.policy import DAY_MS, SRV_NAME
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.revocation import issue_revocation_list
from tests.reference.host import make_key

PUBLISHER_ID = UUID("0b9e7a52-5d1c-4f0e-9d55-3c4f6c1f7a10").bytes
DESKTOP, SERVER = 1, 2
SKUS = {
    "desktop": Sku(UUID(int=0xD1), "Desktop 3", 1, DESKTOP, generation=3, secret=b"desktop-3."),
    "newer": Sku(UUID(int=0xD2), "Desktop 4", 2, DESKTOP, generation=4, secret=b"desktop-4."),
    "server": Sku(UUID(int=0x51), "Server 1", 3, SERVER, generation=1, secret=b"server-1.."),
}


@dataclass(frozen=True)
class Realm:
    """A publisher with all of its keys, and the home of a host it certified (for the desktop family, generation 3)."""

    home: Path
    root_key: Ed25519PrivateKey
    issuer_key: Ed25519PrivateKey
    issuer: IssuerCertificate
    publisher_json: Path
    skus: dict[str, Sku]

    @property
    def root(self) -> bytes:
        """The root's public key."""
        return signing.public_bytes(self.root_key)


def make_realm(
    folder: Path,
    *,
    threshold: int = 1,
    now_ms: int | None = None,
    days: int = 365,
    revoked: Collection[int] = (),
    certified: Collection[int] = (DESKTOP,),
    host: str = "host",
    owner: str = "",
    serial: int = 1,
    activation_url: str = "",
    service: str = SRV_NAME,
) -> Realm:
    """A publisher and a certified host home under ``folder``. The certificate began a day before ``now_ms``.

    ``revoked``: the serials in the publisher's revocation list, which has number 1; without any there is no list.
    ``certified``: the families of the host's certificate, each up to generation 3. ``host`` names the host's key,
    ``owner`` the publisher's: with another one, the same products are somebody else's. ``serial``: its certificate's.
    Without ``activation_url`` a host asks no service. ``service``: under which hosts are looked up in DNS.
    """
    now_ms = now_ms or time.time_ns() // 1_000_000
    root_key, issuer_key, host_key = make_key(f"{owner}root"), make_key(f"{owner}issuer"), make_key(host)
    families = tuple(Family(number, name, threshold, threshold) for number, name in ((1, "desktops"), (2, "servers")))
    issuer = issue_issuer_certificate(
        root_key, public_key=signing.public_bytes(issuer_key), publisher_id=PUBLISHER_ID, serial=1,
        not_before_ms=now_ms - 2 * DAY_MS, days=731,
    )  # fmt: skip
    certificate = issue_host_certificate(
        issuer_key, issuer, public_key=signing.public_bytes(host_key), serial=serial, not_before_ms=now_ms - DAY_MS,
        not_after_ms=now_ms + days * DAY_MS,
        families=[CertifiedFamily(number, 3, threshold, 259_200) for number in certified],
    )  # fmt: skip
    catalog = Catalog(1, PUBLISHER_ID, now_ms, families, tuple(SKUS.values()))
    publisher = PublisherFile(
        1, PUBLISHER_ID, "Testing Ltd", now_ms, (signing.public_bytes(root_key),), activation_url,
        service, families, tuple(SKUS.values()),
        issue_revocation_list(issuer_key, issuer, number=1, issued_ms=now_ms, serials=revoked) if revoked else None,
    )  # fmt: skip
    home = folder / "home"
    installed = home / "host"
    installed.mkdir(parents=True, mode=0o700)
    publisher_json = folder / "publisher.json"
    publisher_json.write_bytes(publisher.to_signed_json(root_key))
    (installed / "publisher.json").write_bytes(publisher_json.read_bytes())
    (installed / "host.cert").write_bytes(certificate.to_bytes() + issuer.to_bytes())
    pem = host_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for name, content in (("host.key", pem), ("catalog.json", catalog.to_signed_json(issuer_key, issuer))):
        (installed / name).write_bytes(content)
        (installed / name).chmod(0o600)
    return Realm(home, root_key, issuer_key, issuer, publisher_json, SKUS)


@dataclass
class RunningHost:
    """A ``kms-fast serve`` process. ``address``: host and port as it said them."""

    realm: Realm
    process: subprocess.Popen[str]
    address: tuple[str, int]

    def worker_pids(self) -> list[int]:
        """The processes that serve now."""
        return find_children(self.process.pid, "kms_fast.cli.worker")

    def stop(self) -> int:
        """Sends TERM, waits for the drain and gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def find_children(pid: int, module: str) -> list[int]:
    """The children of a process that run a module."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if module in Path(f"/proc/{child}/cmdline").read_text()]


@contextmanager
def serve(
    realm: Realm,
    *options: str,
    environment: dict[str, str] | None = None,
    listen: str | None = "127.0.0.1:0",
    prefix: Sequence[str] = (),
) -> Iterator[RunningHost]:
    """Runs ``kms-fast serve`` on a free port of loopback until the block ends; its log is ``serve.log``.

    ``listen``: None leaves the addresses to the host's settings. ``prefix``: a command that runs it, such as one that
    takes it to another machine.
    """
    command = [
        *prefix,
        sys.executable,
        "-m",
        "kms_fast",
        "serve",
        "--home",
        str(realm.home),
        *(() if listen is None else ("--listen", listen)),
        *options,
    ]
    log = realm.home.parent / "serve.log"
    with log.open("a") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | (environment or {})
        )
    try:
        assert process.stdout
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            process.kill()
            raise RuntimeError(f"serve said {line!r} and exited with {process.wait(30)}: {log.read_text()}")
        name, _, port = line.split()[-1].rpartition(":")
        yield RunningHost(realm, process, (name, int(port)))
        if process.poll() is None:
            process.terminate()
            process.wait(30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(30)


def run_cli(
    *arguments: str | Path, home: Path | None = None, prefix: Sequence[str] = ()
) -> tuple[int, dict[str, Any], str]:
    """Runs ``kms-fast ARGUMENTS --json``: exit code, the object on stdout, and stderr. ``prefix``: as for `serve`."""
    options: Sequence[str | Path] = () if home is None else ("--home", home)
    command = [*prefix, sys.executable, "-m", "kms_fast", *arguments, *options, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


@pytest.fixture(scope="session")
def real_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """A real host process whose families need one machine; shared by the session, so nothing may stop it."""
    with serve(make_realm(tmp_path_factory.mktemp("real-host"))) as host:
        yield host
