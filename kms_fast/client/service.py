"""The service of a home: renews every product when it is due, warns before expiry, logs (``kms-fast client run``).

Each look begins from the state file and the clocks alone, so that a key or host set by another command, a clock that
jumped, a machine that slept and a file that was damaged need no handling of their own. What a look costs is small
(docs/client.md, "The service"), and nothing is kept between looks but what was logged already.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from kms_fast.client.aio import AsyncClient
from kms_fast.client.status import Status
from kms_fast.errors import ActivationError, KmsFastError
from kms_fast.messages import log
from kms_fast.model.catalog import Sku
from kms_fast.model.policy import SHORTEST_INTERVAL_MIN, LicenceState, format_span, format_time

LOOK_EVERY_S: Final = 30.0
# An attempt that is due before the next look (a lease of minutes) is awaited, but never more closely than this.
SHORTEST_WAIT_S: Final = 1.0
# After what the state cannot note, such as a full disk: as often as the shortest interval of an attempt.
REST_S: Final = SHORTEST_INTERVAL_MIN * 60.0

_WELL = (LicenceState.LICENSED, LicenceState.INITIAL_GRACE)


class Service:
    """Looks after the products of a client. ``notify`` takes what a service manager wants to hear (sd_notify(3))."""

    def __init__(self, client: AsyncClient, notify: Callable[[str], None]) -> None:
        self._client = client
        self._notify = notify
        self._woken = asyncio.Event()
        self._rests_until_s: dict[UUID, float] = {}
        self._states: dict[UUID, LicenceState] = {}
        self._complaints: dict[UUID | None, str] = {}

    async def run(self) -> None:
        """Look, wait, and so on until cancelled. No trouble of a product, its file or its hosts ends it."""
        self._notify("READY=1")
        while True:
            await self._wait(await self._look())

    def wake(self) -> None:
        """Look again now, also at what failed just now."""
        self._rests_until_s.clear()
        self._woken.set()

    async def _look(self) -> float:
        """Do what is due; gives the seconds until the next look."""
        try:
            skus, unlisted = self._client.skus(), self._client.unlisted()
        except (KmsFastError, OSError) as error:
            self._complain(None, "The state", error)
            self._notify("STATUS=no state: see the log")
            return LOOK_EVERY_S
        self._complaints.pop(None, None)
        for id_, reason in unlisted.items():
            self._complain(id_, f"The product {id_}", reason)
        looked = [(sku, await self._look_after(sku)) for sku in skus]
        told = [_describe(status) if status else f"{sku.name}: see the log" for sku, status in looked]
        told += [f"{id_}: see the log" for id_ in unlisted]
        self._notify(f"STATUS={'; '.join(told) or 'no key is installed'}")
        waits_s = [status.next_attempt_ms / 1000 - time.time() for _, status in looked if status]
        return min((wait_s for wait_s in waits_s if wait_s > 0), default=LOOK_EVERY_S)

    async def _look_after(self, sku: Sku) -> Status | None:
        try:
            rests = time.monotonic() < self._rests_until_s.get(sku.id, 0)
            if not rests:
                await self._renew(sku)
            status = self._client.status(sku.id)
            self._tell_state(status)
            if status.warning_is_new:
                self._warn_of_expiry(sku)
        except (KmsFastError, OSError) as error:
            self._rests_until_s.setdefault(sku.id, time.monotonic() + REST_S)
            self._complain(sku.id, sku.name, error)
            return None
        if not rests:
            self._complaints.pop(sku.id, None)
        return status

    async def _renew(self, sku: Sku) -> None:
        self._rests_until_s.pop(sku.id, None)
        try:
            lease = await self._client.renew(sku.id)
        except ActivationError as error:
            log("PRODUCT_REFUSED", product=sku.name, error=error)
        else:
            if lease is not None:
                log("PRODUCT_ACTIVATED", product=sku.name, until=format_time(lease.expires_ms))

    def _warn_of_expiry(self, sku: Sku) -> None:
        if (days := self._client.note_expiry_warning(sku.id)) is not None:
            told = "1 day" if days == 1 else f"{days} days"
            log("PRODUCT_EXPIRES", product=sku.name, within=told)

    def _tell_state(self, status: Status) -> None:
        """Log a licence state when it is another than before."""
        if self._states.get(status.sku.id) is not status.state:
            self._states[status.sku.id] = status.state
            reason = f": {status.licence.reason.message}" if status.licence.reason else ""
            if status.state in _WELL:
                log("PRODUCT_WELL", state=_describe(status), reason=reason)
            else:
                log("PRODUCT_UNLICENSED", state=_describe(status), reason=reason)

    def _complain(self, sku: UUID | None, subject: str, error: KmsFastError | OSError) -> None:
        """Log what keeps a product from being looked after, once as long as it stays the same."""
        if self._complaints.get(sku) == str(error):
            return
        self._complaints[sku] = str(error)
        if not isinstance(error, KmsFastError):
            log("STATE_UNUSABLE", subject=subject, error=error)
        elif error.result.name == "NO_KEY_INSTALLED":
            log("KEY_AWAITED", error=error)
        else:
            log("PRODUCT_LEFT", subject=subject, error=error)

    async def _wait(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(max(SHORTEST_WAIT_S, min(wait_s, LOOK_EVERY_S))):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()


def _describe(status: Status) -> str:
    name = status.state.name.lower().replace("_", " ")
    left = f", {format_span(status.minutes_left)} left" if status.minutes_left else ""
    return f"{status.sku.name}: {name}{left}"
