"""Renewing the certificate of a running host, and taking newer publisher files with their revocations, by itself.

A chore of the supervisor: once a day, more often when a certificate is short or something fails.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from kms_fast.errors import KmsFastError
from kms_fast.host.enrolment import (
    apply_answer,
    apply_publisher_file,
    find_publisher,
    make_request,
    read_certificate,
)
from kms_fast.messages import log
from kms_fast.model.certificate import DAY_MS
from kms_fast.model.policy import CERTIFICATE_URGENT_DAYS, CERTIFICATE_WARNING_DAYS, format_time
from kms_fast.model.publisher_file import PublisherFile
from kms_fast.model.settings import HostSettings

DAY_S: Final = 86_400.0
SHORTEST_S: Final = 60.0
FIRST_RETRY_S: Final = 300.0
LONGEST_URGENT_RETRY_S: Final = 3_600.0


class PublisherService(Protocol):
    """What answers for the publisher; both methods raise `KmsFastError`."""

    async def certify(self, request: bytes) -> bytes:
        """The host answer to a host request."""

    async def fetch_publisher_file(self) -> bytes:
        """The newest publisher file."""


OpenService = Callable[[HostSettings, PublisherFile], PublisherService | None]


class Renewal:
    """Looks after the certificate in a host's folder.

    ``open_service`` gives the publisher's service, None when it has none. ``on_change`` is called when something was
    installed, ``on_attempt`` after each look with what failed (`KmsFastError.to_json` and ``time_ms``), or None.
    """

    def __init__(
        self,
        *,
        folder: Path,
        open_service: OpenService,
        on_change: Callable[[], None],
        on_attempt: Callable[[dict[str, Any] | None], None],
    ) -> None:
        self._folder = folder
        self._open_service = open_service
        self._on_change = on_change
        self._on_attempt = on_attempt
        self._failures = 0
        self._failed: dict[str, Any] | None = None
        self._rests_until_ms = 0
        self.not_after_ms = read_certificate(folder).not_after_ms

    def describe(self) -> dict[str, Any]:
        """What the health pages show: whole days that are left, and the last attempt if it failed."""
        return {"certificate_days_left": self._days_left(), "renewal_failed": self._failed}

    async def look(self, settings: HostSettings) -> float:
        """Do what is due; gives the seconds until the next look."""
        try:
            await self._look(settings)
        except (KmsFastError, OSError) as error:
            self._note(error if isinstance(error, KmsFastError) else _explain(error))
        else:
            self._note(None)
        delay_s = self._choose_delay_s()
        if self._failed is not None:
            self._complain(self._failed, delay_s)
        return delay_s

    async def _look(self, settings: HostSettings) -> None:
        """Take the newest publisher file, and a certificate when it is time. Raises OSError or `KmsFastError`."""
        certificate = await asyncio.to_thread(read_certificate, self._folder)
        self.not_after_ms = certificate.not_after_ms
        # A certificate that is short from the beginning is always due, and each renewal wakes this chore by its reload.
        is_due = self._days_left() < CERTIFICATE_WARNING_DAYS and _now_ms() >= self._rests_until_ms
        publisher = await asyncio.to_thread(find_publisher, self._folder)
        service = self._open_service(settings, publisher) if settings.auto_renew else None
        if service is None:
            if is_due:
                self._log_end("renew it: kms-fast host renew, or host request, publisher certify, host apply")
            return
        data = await service.fetch_publisher_file()
        if await asyncio.to_thread(apply_publisher_file, self._folder, data):
            publisher = await asyncio.to_thread(find_publisher, self._folder)
            log("PUBLISHER_FILE_INSTALLED", number=publisher.number)
            self._on_change()
        if is_due and certificate.serial not in publisher.revoked:
            await self._renew(service)

    async def _renew(self, service: PublisherService) -> None:
        request = await asyncio.to_thread(make_request, self._folder, now_ms=_now_ms())
        data = await service.certify(request)
        applied = await asyncio.to_thread(apply_answer, self._folder, data, now_ms=_now_ms())
        self.not_after_ms = applied.certificate.not_after_ms
        self._rests_until_ms = _now_ms() + int(self._rest_s() * 1000)
        log("RENEWED", serial=applied.certificate.serial, until=format_time(self.not_after_ms))
        self._on_change()

    def _note(self, error: KmsFastError | None) -> None:
        self._failures = 0 if error is None else self._failures + 1
        self._failed = None if error is None else {**error.to_json(), "time_ms": _now_ms()}
        self._on_attempt(self._failed)

    def _choose_delay_s(self) -> float:
        """Until the next look: less than usual after a failure."""
        delay_s = self._rest_s()
        if self._failures:
            delay_s = min(delay_s, FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 10))
            if self._days_left() < CERTIFICATE_URGENT_DAYS:
                delay_s = min(delay_s, LONGEST_URGENT_RETRY_S)
        return delay_s

    def _rest_s(self) -> float:
        """A day, or a third of what is left of a short certificate."""
        return min(DAY_S, max(SHORTEST_S, (self.not_after_ms - _now_ms()) / 3000))

    def _complain(self, failed: dict[str, Any], delay_s: float) -> None:
        again = f"{failed['message']} {failed['cure']} It is tried again in {delay_s / 60:.0f} min."
        if self._days_left() < CERTIFICATE_WARNING_DAYS:
            self._log_end(again)
        else:
            log("REVOCATIONS_UNKNOWN", reason=again)

    def _log_end(self, what: str) -> None:
        """The certificate ends: say so, and louder in its last days."""
        days = self._days_left()
        if days < CERTIFICATE_URGENT_DAYS:
            log("CERTIFICATE_ENDS_SOON", days=days, cure=what)
        else:
            log("CERTIFICATE_ENDS", days=days, cure=what)

    def _days_left(self) -> int:
        return (self.not_after_ms - _now_ms()) // DAY_MS


def _explain(error: OSError) -> KmsFastError:
    where = f"{error.filename}: " if error.filename else ""
    return KmsFastError(f"{where}{error.strerror or error}", name="STORAGE_FAILED")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
