"""What a lab is made of: a home, a publisher with a product and a host that it certified, and how that host runs."""

import asyncio
import os
import secrets
import shutil
import tempfile
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from kms_fast.cli.stores import using_inventory
from kms_fast.clock import wall_clock_ms
from kms_fast.errors import ConfigurationError
from kms_fast.host.enrolment import apply_answer, make_request
from kms_fast.load.processes import hold_interrupts
from kms_fast.load.server import DRAIN_LIMIT_S, ServerProcess
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.settings import HostSettings
from kms_fast.publisher.exporting import export_publisher_file
from kms_fast.publisher.issuing import certify
from kms_fast.publisher.publisher import Publisher
from kms_fast.store import Summary
from kms_fast.store.postgres_database import create_database, drop_database

FAMILY = "desktop"
PRODUCT = "Laboratory Desktop 1"
WARM_UP_CONNECTIONS = 8
MANY_CONNECTIONS = 10_000


@dataclass(frozen=True, slots=True)
class Realm:
    """What the lab made: a home with a publisher and a certified host, and its product's setup key."""

    home: Path
    publisher: PublisherFile
    setup_key: str = field(repr=False)
    threshold: int

    @property
    def publisher_path(self) -> Path:
        """The publisher file."""
        return self.home / "publisher" / "publisher.json"


@dataclass(frozen=True, slots=True)
class HostOptions:
    """How the lab runs its host: its workers, and the URL of its PostgreSQL store, None for files in its home."""

    workers: int = 1
    store: str | None = field(default=None, repr=False)

    def start(self, home: Path, *, connections: int = 0) -> ServerProcess:
        """Start the host. Raises `KmsFastError` with what it said when it does not get there."""
        # The recorder may be behind by what one core takes up more slowly than the host signs.
        options = ["--workers", str(self.workers), "--timeout-graceful-shutdown", f"{DRAIN_LIMIT_S}s"]
        if connections > MANY_CONNECTIONS:
            options += ["--max-connections", str(connections + WARM_UP_CONNECTIONS + 64)]
        # Not on the command line: the URL may hold a password.
        environment = {"KMS_FAST_STORE": self.store} if self.store else {}
        return ServerProcess(home, home / "serve.log", options=options, environment=environment)

    async def read_inventory(self, home: Path) -> Summary:
        """The inventory in numbers, counted now. Raises `KmsFastError`."""
        async with using_inventory(HostSettings(store=self.store), home) as inventory:
            return await inventory.summarize(wall_clock_ms())

    @property
    def database(self) -> str | None:
        """The name of the store's database."""
        return urlsplit(self.store).path[1:] if self.store else None

    def describe(self) -> str:
        """In words, for the page."""
        workers = "one worker" if self.workers == 1 else f"{self.workers} workers"
        return f"one host, {workers}{', PostgreSQL' if self.store else ''}"


def prepare_home(home: Path | None, cleanup: ExitStack) -> Path:
    """The folder to work in; a temporary one is removed by ``cleanup``.

    Raises `ConfigurationError` when ``home`` holds something already.
    """
    if home is not None:
        if home.exists() and any(home.iterdir()):
            raise ConfigurationError(
                f"{home} is not empty: the lab makes a publisher and a host of its own.", file=home
            )
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return home.absolute()
    # /tmp is often memory, where a sync costs nothing and proves nothing.
    on_disk = "/var/tmp" if "TMPDIR" not in os.environ and Path("/var/tmp").is_dir() else None
    with hold_interrupts():
        folder = Path(tempfile.mkdtemp(prefix="kms-fast-lab-", dir=on_disk))
        cleanup.callback(remove_home, folder)
    return folder


def remove_home(folder: Path) -> None:
    """Remove the folder whole; a Ctrl-C meanwhile comes when all is over, and changes nothing."""
    with suppress(KeyboardInterrupt), hold_interrupts():
        shutil.rmtree(folder)


def make_store(url: str, cleanup: ExitStack) -> str:
    """A database of the lab's own on this PostgreSQL server; ``cleanup`` removes it.

    Raises `KmsFastError` (STORE_UNAVAILABLE).
    """
    created = asyncio.run(create_database(url))
    cleanup.callback(lambda: asyncio.run(drop_database(url, created)))
    return created


def make_realm(home: Path, *, threshold: int) -> Realm:
    """A publisher with one product, and a host that it certified, by the code of the publisher and host commands."""
    now_ms = wall_clock_ms()
    passphrase = secrets.token_hex(16).encode()
    folder = home / "publisher"
    with closing(Publisher.create(folder, "Laboratory", passphrase, now_ms=now_ms)) as publisher:
        sku, _ = publisher.add_product(PRODUCT, FAMILY, threshold=threshold, minimum_threshold=threshold)
        exported = export_publisher_file(publisher, passphrase, now_ms=now_ms)
        host_key = publisher.make_host_key(now_ms=now_ms).key
        data = (folder / "publisher.json").read_bytes()
        request = make_request(home / "host", [host_key.text], publisher_data=data, now_ms=now_ms)
        answer = certify(publisher, request, publisher.read_issuer_key(passphrase), now_ms=now_ms).answer
        setup_key = sku.setup_key(publisher.publisher_id).text
    (folder / "passphrase").touch(mode=0o600)
    (folder / "passphrase").write_bytes(passphrase + b"\n")
    apply_answer(home / "host", answer, now_ms=now_ms)
    return Realm(home, exported, setup_key, threshold)
