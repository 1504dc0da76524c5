"""The recorder of a host, as the supervisor starts it: ``main`` reads its plan from stdin."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from kms_fast.cli.child import explain, run_child
from kms_fast.cli.logs import start_logging
from kms_fast.cli.stores import open_inventory
from kms_fast.clock import wall_clock_ms
from kms_fast.host.child import ChildPlan, Command, follow_commands, tell
from kms_fast.host.enrolment import read_certificate
from kms_fast.host.recorder import Recorder
from kms_fast.model.settings import HostSettings

NICENESS = 19


def main() -> None:
    """Record until told to drain, or at once end with the supervisor."""
    _come_last()
    run_child(lambda plan: asyncio.run(_record(plan)))


def _come_last() -> None:
    """Workers, whose clients wait, go first: the lowest priority still takes turns of milliseconds with them."""
    if sys.platform == "linux":
        # A sandbox may forbid it: then it comes last by the priority alone.
        with suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            return
    os.nice(NICENESS)


async def _record(plan: ChildPlan) -> None:
    home = Path(plan.home)
    recorder = Recorder(
        folder=home / "host" / "ledger",
        host_id=read_certificate(home / "host").host_id,
        open_inventory=lambda: open_inventory(plan.settings, home),
        clock_ms=wall_clock_ms,
        keep_records_ms=_keep_records_ms(plan.settings),
        on_condition=lambda condition: tell("condition", condition=condition),
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, recorder.drain)

    def obey(command: Command) -> None:
        if command.settings is None:
            recorder.drain()
            return
        settings = command.settings
        try:
            start_logging(settings.log_level, settings.log_format, settings.log_file, plan.name)
        except OSError as error:
            tell("reload_failed", explain(error))
            return
        recorder.keep_records_ms = _keep_records_ms(settings)
        tell("reloaded")

    # At once, also in the middle of a transaction that takes seconds: the next recorder goes on behind the last one.
    follow_commands(obey, lambda: os._exit(0))
    await recorder.run(lambda: tell("ready"))


def _keep_records_ms(settings: HostSettings) -> int | None:
    return None if settings.keep_records_s is None else settings.keep_records_s * 1000


if __name__ == "__main__":
    main()
