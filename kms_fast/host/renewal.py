"""Renewing the certificate of a running host, and taking newer publisher files with their revocations, by itself.

A chore of the supervisor: once a day, more often when a certificate is short or something fails.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol

from kms_fast.clock import wall_clock_ms
from kms_fast.errors import KmsFastError, explain_error
from kms_fast.host.enrolment import (
    Installation,
    apply_answer,
    apply_publisher_file,
    find_publisher,
    make_request,
    read_certificate,
    read_publisher,
)
from kms_fast.messages import log
from kms_fast.model.policy import CERTIFICATE_URGENT_DAYS, CERTIFICATE_WARNING_DAYS, days_until, format_time
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

    ``installation``: what the host has in force. ``open_service`` gives the publisher's service, None when it has none.
    ``reload`` lets the host take up what was installed, or raises `KmsFastError`; ``on_attempt`` is called after each
    look with what failed (`KmsFastError.to_json` and ``time_ms``), or None.
    """

    def __init__(
        self,
        *,
        folder: Path,
        installation: Installation,
        open_service: OpenService,
        reload: Callable[[], Awaitable[None]],
        on_attempt: Callable[[dict[str, Any] | None], None],
    ) -> None:
        self._folder = folder
        self._open_service = open_service
        self._reload = reload
        self._on_attempt = on_attempt
        self._failures = 0
        self._failed: dict[str, Any] | None = None
        self._rests_until_ms = 0
        self.note_reload(installation)

    def note_reload(self, installation: Installation) -> None:
        """This is in force now."""
        self._not_after_ms = installation.certificate.not_after_ms
        self._in_force = (installation.certificate.serial, installation.publisher.number)

    def describe(self) -> dict[str, Any]:
        """What the health pages show: whole days that are left, and the last attempt if it failed."""
        return {"certificate_days_left": self._days_left(), "renewal_failed": self._failed}

    async def look(self, settings: HostSettings) -> float:
        """Do what is due; gives the seconds until the next look."""
        try:
            await self._look(settings)
        except (KmsFastError, OSError) as error:
            self._note(explain_error(error))
        else:
            self._note(None)
        delay_s = self._choose_delay_s()
        if self._failed is not None:
            self._complain(self._failed, delay_s)
        return delay_s

    async def _look(self, settings: HostSettings) -> None:
        """Take the newest publisher file, and a certificate when it is time. Raises OSError or `KmsFastError`."""
        certificate = await asyncio.to_thread(read_certificate, self._folder)
        # A certificate that is short from the beginning is always due, and each renewal wakes this chore by its reload.
        days_left = days_until(certificate.not_after_ms, wall_clock_ms())
        is_due = days_left < CERTIFICATE_WARNING_DAYS and wall_clock_ms() >= self._rests_until_ms
        publisher = await asyncio.to_thread(find_publisher, self._folder)
        service = self._open_service(settings, publisher) if settings.auto_renew else None
        if service is None:
            if is_due:
                self._log_end("renew it: kms-fast host renew, or host request, publisher certify, host apply")
            return
        # What an earlier look installed, and a reload refused.
        await self._take_up()
        data = await service.fetch_publisher_file()
        if await asyncio.to_thread(apply_publisher_file, self._folder, data):
            publisher = await asyncio.to_thread(find_publisher, self._folder)
            log("PUBLISHER_FILE_INSTALLED", number=publisher.number)
            await self._take_up()
        if is_due and certificate.serial not in publisher.revoked:
            await self._renew(service)
            await self._take_up()

    async def _renew(self, service: PublisherService) -> None:
        request = await asyncio.to_thread(make_request, self._folder, now_ms=wall_clock_ms())
        data = await service.certify(request)
        applied = await asyncio.to_thread(apply_answer, self._folder, data, now_ms=wall_clock_ms())
        not_after_ms = applied.certificate.not_after_ms
        self._rests_until_ms = wall_clock_ms() + int(_find_rest_s(not_after_ms) * 1000)
        log("RENEWED", serial=applied.certificate.serial, until=format_time(not_after_ms))

    async def _take_up(self) -> None:
        """Let the host reload while it has not in force what is installed. Raises OSError or `KmsFastError`."""
        installed = await asyncio.to_thread(_read_versions, self._folder)
        if installed == self._in_force:
            return
        try:
            await self._reload()
        except KmsFastError as error:
            if error.result.name != "CERTIFICATE_REVOKED":
                raise
            # The workers have taken up that they sign nothing any more.
            self._in_force = installed

    def _note(self, error: KmsFastError | None) -> None:
        self._failures = 0 if error is None else self._failures + 1
        self._failed = None if error is None else {**error.to_json(), "time_ms": wall_clock_ms()}
        self._on_attempt(self._failed)

    def _choose_delay_s(self) -> float:
        """Until the next look: less than usual after a failure."""
        delay_s = _find_rest_s(self._not_after_ms)
        if self._failures:
            delay_s = min(delay_s, FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 10))
            if self._days_left() < CERTIFICATE_URGENT_DAYS:
                delay_s = min(delay_s, LONGEST_URGENT_RETRY_S)
        return delay_s

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
        return days_until(self._not_after_ms, wall_clock_ms())


def _read_versions(folder: Path) -> tuple[int, int]:
    """What is installed: the certificate's serial and the publisher file's number."""
    return read_certificate(folder).serial, read_publisher(folder).number


def _find_rest_s(not_after_ms: int) -> float:
    """A day, or a third of what is left of a short certificate."""
    return min(DAY_S, max(SHORTEST_S, (not_after_ms - wall_clock_ms()) / 3000))
