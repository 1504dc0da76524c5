"""The recorder of a host, as the supervisor starts it: ``main`` reads its plan from stdin."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from kms_fast.cli.logs import start_logging
from kms_fast.cli.output import translate_os_error
from kms_fast.cli.stores import open_inventory
from kms_fast.errors import KmsFastError
from kms_fast.host.child import ChildPlan, Command, follow_commands, read_plan, tell
from kms_fast.host.enrolment import read_host_id
from kms_fast.host.recorder import Recorder
from kms_fast.host.server import wall_clock_ms
from kms_fast.model.settings import HostSettings

NICENESS = 10


def main() -> None:
    """Record until told to drain, or at once end with the supervisor; exit code 1 after an error that was told."""
    plan = read_plan()
    if plan is None:
        return
    # Workers, whose clients wait, come first.
    os.nice(NICENESS)
    start_logging(plan.settings.log_level, plan.settings.log_format, plan.name)
    try:
        asyncio.run(_record(plan))
    except (KmsFastError, OSError) as error:
        explained = error if isinstance(error, KmsFastError) else translate_os_error(error)
        if explained is None:
            raise
        tell("failed", explained)
        sys.exit(1)


async def _record(plan: ChildPlan) -> None:
    home = Path(plan.home)
    recorder = Recorder(
        folder=home / "host" / "ledger",
        host_id=read_host_id(home / "host"),
        open_inventory=lambda: open_inventory(plan.settings, home),
        clock_ms=wall_clock_ms,
        keep_records_ms=_keep_records_ms(plan.settings),
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, recorder.drain)

    def obey(command: Command) -> None:
        if command.settings is None:
            recorder.drain()
            return
        start_logging(command.settings.log_level, command.settings.log_format, plan.name)
        recorder.keep_records_ms = _keep_records_ms(command.settings)
        tell("reloaded")

    # At once, also in the middle of a transaction that takes seconds: the next recorder goes on behind the last one.
    follow_commands(obey, lambda: os._exit(0))
    await recorder.run(lambda: tell("ready"))


def _keep_records_ms(settings: HostSettings) -> int | None:
    return None if settings.keep_records_s is None else settings.keep_records_s * 1000


if __name__ == "__main__":
    main()
