"""Chromium without a window, driven by its DevTools protocol: what a page drew, complained of and asked for.

async with open_browser(path_of_chromium, folder) as browser:
    await browser.open(path_of_page, width_px=1200, dark=True)
    await browser.evaluate("document.title")
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "google-chrome")
FLAGS = [
    "--headless=new",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
]
LIMIT_S = 60


class Browser:
    """One tab, cut off from every network.

    ``complaints``: console messages, exceptions and violations of the page's policy. ``requests``: addresses asked for,
    but for the opened page itself.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._socket = socket
        self._session: str | None = None
        self._numbers = itertools.count(1)
        self._address = ""

    async def attach(self) -> None:
        """Make the tab, and listen to what happens in it."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
        )

    async def open(self, path: Path, *, width_px: int = 1200, dark: bool = False) -> None:
        """Show a file, and wait until it is loaded."""
        self._address = path.absolute().as_uri()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.resize(width_px)
        await self.call("Page.navigate", url=self._address)
        loaded = "document.readyState === 'complete' ? done() : addEventListener('load', () => done())"
        await self.evaluate(f"new Promise((done) => {loaded})")

    async def resize(self, width_px: int) -> None:
        """Make the window so wide, and wait until the page is drawn anew."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width_px, height=900, deviceScaleFactor=1, mobile=False
        )
        await self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))")

    async def point_at(self, selector: str) -> None:
        """Move the mouse to the middle of an element."""
        x, y = await self.evaluate(
            f"(() => {{ const place = document.querySelector({selector!r}); place.scrollIntoView({{block: 'center'}});"
            " const box = place.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        await self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, or what its promise gives."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A method of the protocol, and its result; what happens meanwhile is noted."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(message | ({"sessionId": self._session} if self._session else {}))
        while True:
            told = await self._socket.receive_json(timeout=LIMIT_S)
            if told.get("id") == number:
                assert "error" not in told, told["error"]
                result: dict[str, Any] = told["result"]
                return result
            self._note(told.get("method", ""), told.get("params", {}))

    def _note(self, event: str, details: dict[str, Any]) -> None:
        if event == "Runtime.consoleAPICalled":
            self.complaints.append(str([argument.get("value") for argument in details["args"]]))
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(details["exceptionDetails"]))
        elif event == "Log.entryAdded":
            self.complaints.append(details["entry"]["text"])
        elif event == "Network.requestWillBeSent" and details["request"]["url"] != self._address:
            self.requests.append(details["request"]["url"])


@asynccontextmanager
async def open_browser(program: str, folder: Path) -> AsyncIterator[Browser]:
    """Run a Chromium whose profile and log lie in ``folder``, until the block ends."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    process = await asyncio.create_subprocess_exec(
        program, *FLAGS, *sandbox, f"--user-data-dir={folder}", stderr=asyncio.subprocess.PIPE, process_group=0
    )
    try:
        address = await asyncio.wait_for(_read_address(process), LIMIT_S)
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
            browser = Browser(socket)
            await browser.attach()
            yield browser
            await socket.send_json({"id": 0, "method": "Browser.close"})
        await asyncio.wait_for(process.communicate(), LIMIT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _read_address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = b""
    async for line in process.stderr:
        said += line
        if line.startswith(b"DevTools listening on "):
            return line.split()[-1].decode()
    raise RuntimeError(f"the browser did not start: {said.decode(errors='replace')}")
