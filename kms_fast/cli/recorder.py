"""The recorder of a host, as the supervisor starts it: ``main`` reads its plan from stdin."""

import asyncio

from kms_fast.host.child import follow_commands, read_plan, tell


def main() -> None:
    """Until told to drain."""
    if read_plan() is not None:
        asyncio.run(_run())


async def _run() -> None:
    ended = asyncio.Event()
    follow_commands(lambda command: tell("reloaded") if command.settings else ended.set(), ended.set)
    tell("ready")
    await ended.wait()
