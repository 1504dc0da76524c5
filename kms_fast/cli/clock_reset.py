"""``kms-fast host clock-reset``: let the host's time go back after its clock was ahead."""

import asyncio
from datetime import timedelta
from pathlib import Path

import click

from kms_fast.cli.output import Output, following, home_option, json_option
from kms_fast.cli.settings import LoadedSettings, config_option
from kms_fast.cli.stores import using_counts
from kms_fast.clock import wall_clock_ms
from kms_fast.host.clock_reset import reset_clock
from kms_fast.host.enrolment import read_installation
from kms_fast.model.policy import format_time
from kms_fast.model.settings import HostSettings


@click.command("clock-reset")
@home_option
@config_option
@json_option
def clock_reset(home: Path, loaded: LoadedSettings, out: Output) -> None:
    """Let this host sign again although its ledger is ahead of the clock, because the clock was wrong before.

    Correct the clock and stop the host first. The ledger says for ever that its time was set back, from when and to
    when. Machines that the host has seen "in the future" are taken as seen now.

    \b
    Examples:
      kms-fast host clock-reset && kms-fast serve
    """
    installation, now_ms = read_installation(home / "host"), wall_clock_ms()
    installation.check_dates(now_ms)
    back_ms = reset_clock(
        home / "host" / "ledger",
        host_id=installation.certificate.host_id,
        certificates=installation.chain_data,
        now_ms=now_ms,
    )
    asyncio.run(_cut_counts(loaded.settings, home, now_ms))
    now, before = format_time(now_ms), format_time(now_ms + back_ms)
    back, serve = timedelta(seconds=back_ms // 1000), following("kms-fast serve", "config")
    out.result(
        {"reset": back_ms > 0, "back_ms": back_ms, "now": now, "ledger_time": before if back_ms else None},
        f"The ledger had reached {before}; it goes on from {now}, {back} before that. Next: {serve}"
        if back_ms
        else f"The clock shows {now}, and the ledger is not ahead of it: nothing was changed in it.",
    )


async def _cut_counts(settings: HostSettings, home: Path, now_ms: int) -> None:
    async with using_counts(settings, home) as counts:
        await counts.cut_times(now_ms)
