"""Real name servers of the tests' own, bind9 and knot: a folder, a free port of loopback, the documented samples."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import dns.asyncresolver
import dns.name
import dns.resolver

from tests.ports import find_free_port

SAMPLES = Path(__file__).parents[1] / "docs" / "samples" / "dns"
SERVICE = "_kms-fast._tcp"
NAME = f"{SERVICE}.example.com."
ZONE = """\
$TTL 300
@ IN SOA ns1.example.com. hostmaster.example.com. 1 3600 900 604800 60
@ IN NS ns1
ns1 IN A 127.0.0.1
kms IN A 192.0.2.7
here IN A 127.0.0.1
here6 IN AAAA ::1
alias IN CNAME kms
"""
R = TypeVar("R", dns.resolver.Resolver, dns.asyncresolver.Resolver)
START_LIMIT_S = 20.0
PROGRAMS = {"bind9": ("named", "tsig-keygen", "dig"), "knot": ("knotd", "keymgr", "dig")}


class NameServer:
    """One server that is primary for zones; use it as a context.

    ``zones``: texts of zones by name. ``example.com`` is the one that the samples let the key ``kms-fast`` change.
    ``prefix``: what runs a command where the server is to be, in front of it. ``service``: the name in the samples.
    """

    def __init__(
        self,
        folder: Path,
        zones: Mapping[str, str],
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        prefix: Sequence[str] = (),
        service: str = SERVICE,
    ) -> None:
        self.folder = folder
        self.address = address
        self._prefix = prefix
        self._service = service
        self.port = port or find_free_port()
        self.key = folder / "kms-fast.key"
        self._zones = zones
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def setting(self) -> str:
        """The value of ``--server``."""
        return f"{self.address}:{self.port}"

    def __enter__(self) -> "NameServer":
        for name, text in self._zones.items():
            (self.folder / f"{name}.zone").write_text(text)
        if not self.key.exists():
            self.key.write_text(self.make_key("kms-fast"))
            self.key.chmod(0o600)
        self.write_configuration()
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def make_key(self, name: str) -> str:
        """A new key as this server's tool prints it."""
        raise NotImplementedError

    def write_configuration(self) -> None:
        """Write the configuration, which includes the sample."""
        raise NotImplementedError

    def command(self) -> Sequence[str | Path]:
        """What runs the server in the foreground."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and wait until it serves every zone."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen([*self._prefix, *self.command()], stdout=log, stderr=log, cwd=self.folder)
        end_s = time.monotonic() + START_LIMIT_S
        for zone in self._zones:
            while not self.ask(f"{zone}.", "SOA"):
                if self._process.poll() is not None or time.monotonic() > end_s:
                    self.stop()
                    raise RuntimeError((self.folder / "server.log").read_text())
                time.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)

    def ask(self, name: str, kind: str = "SRV") -> list[str]:
        """The records of a name, as the server has them."""
        dig = ["dig", "+short", "+tcp", "+time=2", "+tries=1", "-p", str(self.port), f"@{self.address}", name, kind]
        done = subprocess.run([*self._prefix, *dig], capture_output=True, text=True, timeout=30)
        return sorted(line for line in done.stdout.splitlines() if not line.startswith(";"))

    def resolver(self, domain: str = "example.com", search: Sequence[str] = ()) -> dns.resolver.Resolver:
        """A machine's resolver that asks this server."""
        return self.configure(dns.resolver.Resolver(configure=False), domain, search)

    def async_resolver(self, domain: str = "example.com", search: Sequence[str] = ()) -> dns.asyncresolver.Resolver:
        """The same for asyncio."""
        return self.configure(dns.asyncresolver.Resolver(configure=False), domain, search)

    def configure(self, resolver: R, domain: str, search: Sequence[str]) -> R:
        resolver.nameservers, resolver.port = [self.address], self.port
        resolver.domain = dns.name.from_text(domain)
        resolver.search = [dns.name.from_text(name) for name in search]
        return resolver


class Bind(NameServer):
    """named with the sample for bind9."""

    def make_key(self, name: str) -> str:
        return subprocess.run(
            [find_program("tsig-keygen") or "", name], check=True, capture_output=True, text=True, timeout=30
        ).stdout

    def write_configuration(self) -> None:
        sample = (SAMPLES / "bind9.conf").read_text().replace(SERVICE, self._service)
        for folder in ("/etc/bind", "/var/lib/bind"):
            sample = sample.replace(folder, str(self.folder))
        others = "".join(
            f'zone "{name}" {{ type primary; file "{self.folder}/{name}.zone"; }};\n'
            for name in self._zones
            if name != "example.com"
        )
        (self.folder / "named.conf").write_text(f"""\
options {{
    directory "{self.folder}";
    pid-file none;
    session-keyfile none;
    listen-on port {self.port} {{ {self.address}; }};
    listen-on-v6 {{ none; }};
    recursion no;
    dnssec-validation no;
    notify no;
}};
controls {{ }};
{sample}
{others}
""")

    def command(self) -> Sequence[str | Path]:
        return [find_program("named") or "", "-g", "-n", "1", "-c", self.folder / "named.conf"]


class Knot(NameServer):
    """knotd with the sample for knot."""

    def make_key(self, name: str) -> str:
        return subprocess.run(
            [find_program("keymgr") or "", "-t", name], check=True, capture_output=True, text=True, timeout=30
        ).stdout

    def write_configuration(self) -> None:
        sample = (SAMPLES / "knot.conf").read_text().replace(SERVICE, self._service)
        for folder in ("/etc/knot", "/var/lib/knot"):
            sample = sample.replace(folder, str(self.folder))
        others = "".join(
            f"  - domain: {name}\n    file: {self.folder}/{name}.zone\n"
            for name in self._zones
            if name != "example.com"
        )
        (self.folder / "knot.conf").write_text(f"""\
server:
    rundir: {self.folder}
    listen: {self.address}@{self.port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {self.folder}
log:
  - target: stderr
    any: info
{sample}{others}""")

    def command(self) -> Sequence[str | Path]:
        return [find_program("knotd") or "", "-c", self.folder / "knot.conf"]


KINDS: dict[str, type[NameServer]] = {"bind9": Bind, "knot": Knot}


@contextlib.contextmanager
def run_server(kind: str, folder: Path, zones: Mapping[str, str] | None = None, **options: Any) -> Iterator[NameServer]:
    """A running server in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    with KINDS[kind](folder, zones or {"example.com": ZONE}, **options) as server:
        yield server


def find_missing(kind: str) -> str | None:
    """What is not installed of a server's programs; None when all is there."""
    return next((program for program in PROGRAMS[kind] if find_program(program) is None), None)


def find_program(name: str) -> str | None:
    """A program's path; Debian has name servers where not everybody's path leads."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
