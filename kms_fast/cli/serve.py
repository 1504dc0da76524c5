"""``kms-fast serve``: run the activation host."""

import asyncio
import os
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import click

from kms_fast import __version__, _core
from kms_fast.cli.dns_records import make_chore
from kms_fast.cli.logs import start_logging
from kms_fast.cli.output import Output, home_option, json_option
from kms_fast.cli.settings import LoadedSettings, settings_options
from kms_fast.cli.stores import using_counts, using_inventory
from kms_fast.clock import wall_clock_ms
from kms_fast.errors import KmsFastError, explain_error, translate_os_error
from kms_fast.host.admission import CONFLICT_CURE, build_table, find_conflicts
from kms_fast.host.enrolment import Installation, read_installation
from kms_fast.host.listener import open_sockets
from kms_fast.host.presence import HostProcess, Presence, list_running
from kms_fast.host.renewal import PublisherService
from kms_fast.host.rollback import check_rollback
from kms_fast.host.segment import UNKNOWN, Head
from kms_fast.host.supervisor import Supervisor
from kms_fast.messages import log
from kms_fast.model.events import StartFailed
from kms_fast.model.names import format_address
from kms_fast.model.policy import format_time
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.settings import HostSettings
from kms_fast.systemd import take_sockets


@click.command
@click.option(
    "--accept-rollback",
    is_flag=True,
    help="Serve although the ledger is older than what is known of it: what it lacks is lost.",
)
@home_option
@settings_options
@json_option
def command(accept_rollback: bool, home: Path, loaded: LoadedSettings, out: Output) -> None:
    """Run the activation host until TERM, which answers what waits and ends with exit code 0.

    HUP, or kms-fast host reload, takes up certificate, catalog and settings anew; connections stay.

    \b
    Examples:
      kms-fast serve
      kms-fast serve --home /srv/kms --listen 127.0.0.1:1688 --listen [::1]:1688
      kms-fast serve --config /etc/kms-fast.toml --workers 4 --web 127.0.0.1:8080
    """
    settings = loaded.settings
    start_logging(settings.log_level, settings.log_format, settings.log_file)
    folder = home / "host"
    with _telling_failure() as note_start:
        installation = read_checked(folder, settings)
        sockets = _open_sockets(folder, settings)
        asyncio.run(_check_state(home, settings, installation, accept_rollback))

        def tell_start() -> None:
            note_start()
            _announce(installation, sockets, out)

        # Whoever finds this host by its file may tell it to reload before it listens to that.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        process = _describe_process(settings, sockets)
        with closing(Presence(folder, process)) as presence:
            supervisor = Supervisor(
                home=str(home.absolute()),
                settings=settings,
                installation=installation,
                sockets=sockets,
                read_settings=lambda: _read_again(folder, loaded),
                presence=presence,
                chores=[make_chore(folder, process)],
                open_service=_open_service,
            )
            asyncio.run(supervisor.run(tell_start))


@contextmanager
def _telling_failure() -> Iterator[Callable[[], None]]:
    """Log event 12291 when the host cannot start: whoever watches the log does not see what the command says.

    Gives what to call when it has started.
    """
    has_started = False

    def note_start() -> None:
        nonlocal has_started
        has_started = True

    try:
        yield note_start
    except (KmsFastError, OSError) as error:
        told = error if isinstance(error, KmsFastError) else translate_os_error(error)
        if told is not None and not has_started:
            log("HOST_NOT_STARTED", event=StartFailed(result=told.result.code))
        raise


def _read_again(folder: Path, loaded: LoadedSettings) -> tuple[HostSettings, Installation]:
    """Settings and installation for a reload; the log follows them. Raises `KmsFastError`."""
    try:
        settings = loaded.read_again()
        installation = read_checked(folder, settings)
        start_logging(settings.log_level, settings.log_format, settings.log_file)
    except OSError as error:
        raise explain_error(error) from None
    return settings, installation


def _describe_process(settings: HostSettings, sockets: list[list[socket.socket]]) -> HostProcess:
    return HostProcess(
        pid=os.getpid(),
        version=__version__,
        started_ms=wall_clock_ms(),
        addresses=tuple(map(_show_address, sockets[0])),
        workers=settings.workers,
    )


def read_checked(folder: Path, settings: HostSettings) -> Installation:
    """What is installed, as far as it can be checked before it is used; conflicts are logged.

    Raises OSError or `KmsFastError`.
    """
    installation = read_installation(folder)
    installation.check_dates(wall_clock_ms())
    build_table(installation, settings)
    for conflict in find_conflicts(installation, settings):
        log("INTERVALS_FIGHT", conflict=conflict, cure=CONFLICT_CURE)
    return installation


async def _check_state(home: Path, settings: HostSettings, installation: Installation, accept_rollback: bool) -> None:
    """Refuse a store that is not fit for a host, and a ledger that went back; workers that start later do not ask.

    Raises `KmsFastError`.
    """
    host_id = installation.certificate.host_id
    async with using_counts(settings, home), using_inventory(settings, home) as inventory:
        watermarks = await inventory.watermarks(host_id)
    lost = check_rollback(
        home / "host" / "ledger",
        watermarks,
        host_id=host_id,
        certificates=installation.chain_data,
        accept=accept_rollback,
    )
    if lost:
        log("ROLLBACK_ACCEPTED", lost=", ".join(map(_describe_lost, lost)))


def _describe_lost(head: Head) -> str:
    if head.segment == UNKNOWN:
        return "what was signed after the backup"
    return f"those of segment {head.segment} until {format_time(head.time_ms)}"


def _open_sockets(folder: Path, settings: HostSettings) -> list[list[socket.socket]]:
    """For each worker its listening sockets; those that a service manager handed over are shared by all."""
    given = take_sockets()
    if given:
        return [given] * settings.workers

    def list_beside() -> list[str]:
        return [address for process in list_running(folder) for address in process.addresses]

    return open_sockets(settings.listen, settings.workers, list_beside=list_beside)


def _open_service(settings: HostSettings, publisher: PublisherFile) -> PublisherService | None:
    """The publisher's activation service as the settings or its file name it. Raises `KmsFastError`."""
    url = settings.activation_url or publisher.activation_url
    if not url:
        return None
    # A host that has none need not wait for the modules.
    from kms_fast.cli.online import ActivationClient

    return ActivationClient(url, Path(settings.activation_ca) if settings.activation_ca else None)


def _announce(installation: Installation, sockets: list[list[socket.socket]], out: Output) -> None:
    backend = _core.backend()
    log(
        "HOST_STARTED",
        host=uuid.UUID(bytes=installation.certificate.host_id),
        publisher=installation.publisher.name,
        installed=installation.describe(),
        workers=len(sockets),
        aes=backend["aes"],
        sha256=backend["sha256"],
    )
    for opened in sockets[0]:
        address, port = opened.getsockname()[:2]
        out.line({"event": "listening", "address": address, "port": port}, f"listening on {_show_address(opened)}")


def _show_address(opened: socket.socket) -> str:
    return format_address(*opened.getsockname()[:2])
