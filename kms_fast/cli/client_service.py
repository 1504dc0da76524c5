"""``kms-fast client run``: the client's service with its signals."""

import asyncio
import contextlib
import signal
from pathlib import Path

from kms_fast.client import AsyncClient
from kms_fast.client.presence import Presence
from kms_fast.client.service import Service
from kms_fast.messages import log
from kms_fast.systemd import notify


def run_service(home: Path) -> None:
    """Look after the products of a home until TERM.

    Raises `KmsFastError` when another process does so, OSError, and KeyboardInterrupt on INT.
    """
    presence = Presence(home / "client")
    log("CLIENT_STARTED", home=home)
    try:
        asyncio.run(_run_until_told(Service(AsyncClient(home=home), notify)))
    finally:
        log("CLIENT_STOPPED", home=home)
        presence.close()


async def _run_until_told(service: Service) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(service.run())
    told: list[int] = []

    def stop(number: int) -> None:
        told.append(number)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGHUP, service.wake)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    notify("STOPPING=1")
    if signal.SIGINT in told:
        raise KeyboardInterrupt
