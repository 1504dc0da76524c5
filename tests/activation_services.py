"""A publisher whose activation service runs as a real process over real TLS, and what hosts ask of it."""

import datetime
import ipaddress
import os
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.hosts import run_cli

PASSPHRASE = "correct horse"


def make_tls(folder: Path, name: str = "tls") -> None:
    """An authority ``NAME-ca.pem``, and a certificate of it for this machine: ``NAME.pem``, ``NAME.key``."""
    authority_key, key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.datetime.now(datetime.UTC)

    def begin(subject: x509.Name, key: Ed25519PrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    root = begin(authority, authority_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    leaf = begin(subject, key).add_extension(names, critical=False)
    for suffix, certificate in (("-ca.pem", root), (".pem", leaf)):
        pem = certificate.sign(authority_key, None).public_bytes(Encoding.PEM)
        (folder / f"{name}{suffix}").write_bytes(pem)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / f"{name}.key").write_bytes(pem)


@dataclass(frozen=True)
class Service:
    """A ``kms-fast publisher serve`` process."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        """Send TERM, and wait; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@dataclass(frozen=True)
class Example:
    """A publisher with one product, exported, in the home ``publisher`` of a folder."""

    folder: Path

    @property
    def home(self) -> Path:
        """The publisher's home."""
        return self.folder / "publisher"

    @property
    def ca(self) -> Path:
        """The authority of its TLS certificate."""
        return self.folder / "tls-ca.pem"

    @property
    def publisher_json(self) -> Path:
        """The publisher file as exported."""
        return self.home / "publisher" / "publisher.json"

    def publisher(self, *args: str | Path) -> dict[str, Any]:
        """Run ``kms-fast publisher ARGS``, which succeeds; its result."""
        code, told, error = run_cli("publisher", *args, home=self.home)
        assert (code, told.get("ok")) == (0, True), (told, error)
        return told

    def make_key(self, *options: str) -> str:
        """A host key."""
        return str(self.publisher("host-key", *options)["host_key"])

    def request(self, name: str, key: str) -> bytes:
        """A host request of the host in the home ``name``."""
        args = ("--publisher", self.publisher_json, "--key", key, "--out", self.folder / f"{name}.request")
        code, told, _ = run_cli("host", "request", *args, home=self.folder / name)
        assert code == 0, told
        return (self.folder / f"{name}.request").read_bytes()

    def activate(self, name: str, url: str, key: str | None = None, *options: str | Path) -> tuple[int, dict[str, Any]]:
        """Run ``kms-fast host activate`` in the home ``name``: exit code and result."""
        given = ("--publisher", self.publisher_json, "--key", key) if key else ()
        args = (*given, "--url", url, "--ca", self.ca, *options)
        code, told, error = run_cli("host", "activate", *args, home=self.folder / name)
        assert "Traceback" not in error
        return code, told

    def post(self, url: str, data: bytes, path: str = "/v1/host-requests") -> tuple[int, bytes, dict[str, str]]:
        """POST to the service, as another program does: status, body, headers."""
        request = urllib.request.Request(f"{url}{path}", data=data or None, method="POST" if data else "GET")
        return self._open(request)

    def get(self, url: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes, dict[str, str]]:
        """GET from the service."""
        return self._open(urllib.request.Request(f"{url}{path}", headers=headers or {}))

    def _open(self, request: urllib.request.Request) -> tuple[int, bytes, dict[str, str]]:
        context = ssl.create_default_context(cafile=str(self.ca))
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    @contextmanager
    def serve(
        self, *options: str, tls: bool = True, listen: str = "127.0.0.1:0", prefix: Sequence[str] = ()
    ) -> Iterator[Service]:
        """Run the service on a free port of loopback until the block ends. ``prefix``: a command that runs it."""
        files = ("--tls-cert", str(self.folder / "tls.pem"), "--tls-key", str(self.folder / "tls.key")) if tls else ()
        command = [*prefix, sys.executable, "-m", "kms_fast", "publisher", "serve", "--home", str(self.home)]
        log = self.folder / "service.log"
        with log.open("a") as errors:
            process = subprocess.Popen(
                [*command, "--listen", listen, *files, *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "KMS_FAST_PASSPHRASE": PASSPHRASE},
            )
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("listening on "), log.read_text()
            yield Service(process, line.split()[-1], log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(30)


def make_example(folder: Path, *, activation_url: str = "") -> Example:
    """A publisher, its product and publisher file, and TLS for its service; set KMS_FAST_PASSPHRASE to `PASSPHRASE`."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tls(folder)
    example = Example(folder)
    example.publisher("init", "Example & Söhne", "--activation-url", activation_url)
    example.publisher("add-product", "Example Runner", "--family", "ci", "--threshold", "1")
    example.publisher("export")
    return example
