"""One worker of a host, as the supervisor starts it: ``main`` reads its plan from stdin."""

import asyncio
import signal
import socket
from pathlib import Path

from kms_fast.cli.child import explain, run_child
from kms_fast.cli.logs import start_logging
from kms_fast.cli.stores import start_counts
from kms_fast.clock import wall_clock_ms
from kms_fast.errors import KmsFastError
from kms_fast.host.child import ChildPlan, Command, Ended, follow_commands, tell
from kms_fast.host.enrolment import read_installation
from kms_fast.host.listener import allow_connections
from kms_fast.host.server import Server
from kms_fast.model.settings import HostSettings


def main() -> None:
    """Serve until told to drain, or at once end with the supervisor."""
    run_child(_run)


async def _serve(plan: ChildPlan) -> None:
    folder = Path(plan.home) / "host"
    installation = read_installation(folder)
    installation.check_dates(wall_clock_ms())
    allow_connections(plan.settings.max_connections)
    server = Server(
        folder=folder,
        installation=installation,
        settings=plan.settings,
        counts=await start_counts(plan.settings, Path(plan.home)),
        sockets=[socket.socket(fileno=descriptor) for descriptor in plan.sockets],
        on_condition=lambda condition: tell("condition", condition=condition),
    )
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.stop)
    reloads: set[asyncio.Task[None]] = set()

    def obey(command: Command) -> None:
        if command.settings is None:
            server.stop()
            return
        reload = loop.create_task(_reload(server, command.settings, plan.name))
        reloads.add(reload)
        reload.add_done_callback(reloads.discard)

    def begin() -> None:
        follow_commands(obey, lambda: server.end(Ended()))
        tell("ready")

    await server.run(begin)


async def _reload(server: Server, settings: HostSettings, name: str) -> None:
    try:
        start_logging(settings.log_level, settings.log_format, settings.log_file, name)
        await server.reload(settings)
    except (KmsFastError, OSError) as error:
        tell("reload_failed", explain(error))
    else:
        tell("reloaded")


def _run(plan: ChildPlan) -> None:
    """Run on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(_serve(plan))
    else:
        uvloop.run(_serve(plan))
