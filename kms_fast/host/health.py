"""/healthz and /readyz, for load balancers and orchestrators: whether the host lives, and whether to send clients."""

import errno
from collections.abc import Callable
from typing import Any

from aiohttp import web

from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.model.names import parse_listen_address


class HealthPages:
    """The two pages, from `open` to `close`. ``tell`` gives what both show; its ``ready`` decides /readyz."""

    def __init__(self, tell: Callable[[], dict[str, Any]]) -> None:
        self._tell = tell
        app = web.Application()
        app.add_routes([web.get("/healthz", self._show_health), web.get("/readyz", self._show_readiness)])
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)

    async def open(self, address: str) -> tuple[str, int]:
        """Listen on ADDR:PORT; the address and port it became. Raises `KmsFastError`."""
        host, port = parse_listen_address(address)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            if error.errno == errno.EADDRINUSE:
                what = f"Health pages cannot listen on {address}: another program does already."
                raise KmsFastError(what, name="ADDRESS_IN_USE", address=address) from error
            raise ConfigurationError(f"Health pages cannot listen on {address}: {error.strerror}.") from error
        shown: tuple[str, int] = self._runner.addresses[0][:2]
        return shown

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _show_health(self, request: web.Request) -> web.Response:
        return web.json_response(self._tell())

    async def _show_readiness(self, request: web.Request) -> web.Response:
        told = self._tell()
        return web.json_response(told, status=200 if told["ready"] else 503)
