"""What can be wrong with a host, from its configuration to the room on its disk."""

import asyncio
import itertools
import os
import pwd
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kms_fast.cli.doctor.ladder import Check, Finding, fail, ok, skip, warn
from kms_fast.cli.doctor.target import judge_end, try_to_connect
from kms_fast.cli.output import following
from kms_fast.cli.settings import load_settings
from kms_fast.cli.stores import counts_file, has_counts, has_inventory, read_watermarks, using_counts, using_inventory
from kms_fast.discovery.address import HostAddress
from kms_fast.host.admission import CONFLICT_CURE, find_conflicts
from kms_fast.host.audit import verify_newest
from kms_fast.host.enrolment import Installation, read_installation, read_publisher
from kms_fast.host.ledger import find_newest_time
from kms_fast.host.listener import open_sockets
from kms_fast.host.presence import HostProcess, list_running
from kms_fast.host.rollback import check_rollback
from kms_fast.model.activation_url import is_loopback
from kms_fast.model.names import parse_listen_address
from kms_fast.model.policy import format_time
from kms_fast.model.quantities import format_quantity
from kms_fast.model.settings import HostSettings, mask_password
from kms_fast.results import BY_NAME

SECRET_FILES: Final = ("host.key", "keys.json", "catalog.json", "pending/keys.json")
# How long the ledger is read, from its end back.
LEDGER_S: Final = 5.0
# How many times low_water is little.
LITTLE_ROOM: Final = 4
# An address for documentation (RFC 5737): the way there tells our own address, and nothing is sent.
ELSEWHERE: Final = ("192.0.2.1", 9)


@dataclass
class HostContext:
    """A host's home; what the checks learn of it stands below."""

    home: Path
    config: Path | None
    now_ms: int
    settings: HostSettings = field(default_factory=HostSettings)
    installation: Installation | None = None
    running: Sequence[HostProcess] = ()

    @property
    def folder(self) -> Path:
        """Where keys, certificate and ledger are."""
        return self.home / "host"

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens now."""
        return [parse_listen_address(address) for process in self.running for address in process.addresses]

    @property
    def nearby(self) -> HostAddress | None:
        """Where it can be asked from this machine."""
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        return next((HostAddress(everywhere.get(name, name), port) for name, port in self.addresses), None)


def check_configuration(context: HostContext) -> Finding:
    """The settings, as serve would read them."""
    loaded = load_settings(context.config, {}, os.environ, home=context.home)
    context.settings = loaded.settings
    given = [name for name, source in loaded.sources.items() if source != "default"]
    return ok(f"The settings are valid: {', '.join(given) or 'all at their defaults'}.")


def check_files(context: HostContext) -> Finding:
    """Nobody else may read the keys, and the host may read all that is there."""
    open_ = [path for name in SECRET_FILES if (path := context.folder / name).exists() and path.stat().st_mode & 0o077]
    if open_:
        names = " ".join(map(str, open_))
        return fail(f"Others may read {names}, which hold secrets.", f"chmod 600 {names}", files=list(map(str, open_)))
    owner = context.folder.stat().st_uid
    foreign = [path for path in context.folder.rglob("*") if _owner_of(path) not in (owner, None)]
    if foreign:
        return fail(
            f"{len(foreign)} of the files in {context.folder} do not belong to its owner, such as {foreign[0]}: a "
            "command was run as another user, and the host may not be able to use them.",
            f"chown -R {_name_of(owner)} {context.folder}, and run the host's commands as that user.",
            files=list(map(str, foreign[:10])),
        )
    return ok(f"The keys in {context.folder} can be read by their owner ({_name_of(owner)}) only.")


def check_certificate(context: HostContext) -> Finding:
    """Everything that is installed, the chain to the publisher's root, revocation and dates."""
    installation = read_installation(context.folder)
    installation.check_dates(context.now_ms)
    context.installation = installation
    return judge_end(installation.certificate, installation.publisher.name, context.now_ms)


def check_intervals(context: HostContext) -> Finding:
    """Machines that are well must not drop out of the count before they renew."""
    assert context.installation is not None
    conflicts = find_conflicts(context.installation, context.settings)
    if conflicts:
        return warn(" ".join(conflicts), CONFLICT_CURE, conflicts=conflicts)
    return ok("Machines of every product renew in time to stay in the count.")


def check_clock(context: HostContext) -> Finding:
    """The clock has to be past everything that was signed."""
    newest_ms = find_newest_time(context.folder / "ledger")
    if newest_ms is None:
        return ok(f"The clock shows {format_time(context.now_ms)}; nothing was signed yet.")
    shown, signed = format_time(context.now_ms), format_time(newest_ms)
    if context.now_ms < newest_ms:
        return fail(
            f"The clock shows {shown}, but this host has signed at {signed}.", BY_NAME["HOST_CLOCK"].cure,
            newest_ms=newest_ms,
        )  # fmt: skip
    return ok(f"The clock shows {shown}; what was signed last is of {signed}.", newest_ms=newest_ms)


def check_port(context: HostContext) -> Finding:
    """This host listens, or could."""
    context.running = list_running(context.folder)
    if context.running:
        who = ", ".join(f"process {process.pid} on {', '.join(process.addresses)}" for process in context.running)
        return ok(f"The host runs: {who}.", pids=[process.pid for process in context.running])
    for opened in itertools.chain(*open_sockets(context.settings.listen)):
        opened.close()
    listen = ", ".join(context.settings.listen)
    return warn(f"No host runs in this home; {listen} is free.", f"Start it: {following('kms-fast serve')}")


def check_firewall(context: HostContext) -> Finding:
    """As far as a machine can see its own firewall: whether it reaches itself at the address that others use."""
    if not context.running:
        return skip("because no host runs")
    outside = [(name, port) for name, port in context.addresses if not is_loopback(name)]
    if not outside:
        return warn(
            "The host listens on loopback only: no other machine can reach it.",
            "Set listen to 0.0.0.0:1688 and [::]:1688.",
        )
    name, port = outside[0]
    if name in ("0.0.0.0", "::"):
        own = _find_own_address()
        if own is None:
            return skip("because this machine has no address that others could use")
        name = own
    address = HostAddress(name, port)
    if (why := try_to_connect(name, port)) is not None:
        return fail(
            f"The host cannot be reached at {address} even from this machine: {why}.",
            f"Let TCP port {port} in, in this machine's firewall.",
            address=str(address),
        )
    return ok(
        f"The host is reached at {address} from this machine. Whether a firewall lets others in can only be seen from "
        f"one of them; there: kms-fast doctor {address}",
        address=str(address),
    )


def check_store(context: HostContext) -> Finding:
    """Counts and inventory can be opened."""
    store = context.settings.store
    if not has_counts(context.settings, context.home):
        return ok("There is no store yet; the host makes it when it starts.")
    asyncio.run(_open_store(context))
    if store is None and not all(os.access(path, os.W_OK) for path in (context.folder, counts_file(context.home))):
        return warn(
            f"Counts and inventory in {context.folder} can be read here, but not written.",
            "Nothing, if the host runs as another user or elsewhere; else give its user the right to write there.",
        )
    return ok(f"Counts and inventory in {mask_password(store) if store else context.folder} can be used.")


async def _open_store(context: HostContext) -> None:
    async with using_counts(context.settings, context.home, reading=True) as counts:
        await counts.read_all()
    if has_inventory(context.settings, context.home):
        async with using_inventory(context.settings, context.home, reading=True) as inventory:
            await inventory.summary()


def check_ledger(context: HostContext) -> Finding:
    """Nothing is gone that the inventory has; first blocks of all segments, and as many records from the newest back as
    can be verified in a few seconds.
    """
    folder, publisher = context.folder / "ledger", read_publisher(context.folder)
    watermarks = asyncio.run(read_watermarks(context.settings, context.home, reading=True))
    check_rollback(folder, watermarks, host_id=b"", certificates=b"", accept=False)
    if not folder.exists():
        return ok("There is no ledger yet; the host makes it when it starts.")
    verdict = verify_newest(folder, roots=publisher.roots, publisher_id=publisher.publisher_id, limit_s=LEDGER_S)
    unread = verdict.unread_segments
    if not unread:
        what = f"The ledger is whole: {verdict.batches} batches in {verdict.segments} segments verify."
    else:
        what = (
            f"The newest {verdict.batches} batches verify, and the first block of every segment. {unread} segments "
            f"were not read to the end within {LEDGER_S:.0f} s; kms-fast ledger verify reads them all."
        )
    return ok(what, batches=verdict.batches, unread_segments=unread)


def check_disk(context: HostContext) -> Finding:
    """Room for the ledger."""
    folder = context.folder / "ledger"
    disk = os.statvfs(folder if folder.exists() else context.folder)
    free_bytes, least_bytes = disk.f_bavail * disk.f_frsize, context.settings.low_water_bytes
    what = f"{free_bytes >> 20} MiB are free for the ledger; low_water is {format_quantity(least_bytes, 'bytes')}."
    cure = "Free space, or let old records go: keep_records, kms-fast ledger prune."
    if free_bytes < least_bytes:
        return fail(f"{what} Every request is answered SERVER_BUSY.", cure, free_bytes=free_bytes)
    if free_bytes < LITTLE_ROOM * least_bytes:
        return warn(what, cure, free_bytes=free_bytes)
    return ok(what, free_bytes=free_bytes)


HOST_CHECKS: Final = (
    Check("configuration", check_configuration),
    Check("files", check_files),
    Check("certificate", check_certificate),
    Check("intervals", check_intervals, needs=("configuration", "certificate")),
    Check("clock", check_clock),
    Check("port", check_port, needs=("configuration",)),
    Check("firewall", check_firewall, needs=("port",)),
    Check("store", check_store, needs=("configuration",)),
    Check("ledger", check_ledger, needs=("certificate", "store")),
    Check("disk", check_disk, needs=("configuration",)),
)


def _owner_of(path: Path) -> int | None:
    """None when it is gone: a host that runs replaces and removes files."""
    try:
        return path.lstat().st_uid
    except FileNotFoundError:
        return None


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _find_own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(ELSEWHERE)
        except OSError:
            return None
        return str(probe.getsockname()[0])
