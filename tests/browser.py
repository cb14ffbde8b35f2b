"""A real browser without a window, driven over its own protocol: what a page does in it, and how it looks."""

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp

_NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, _NAMES)), None)

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars"),
    "--remote-debugging-port=0",
)
_ADDRESS = b"DevTools listening on "


class Tab:
    """One page of the browser. said: what it wrote to its console; asked: every address that it wanted."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._session = ""
        self._calls = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.said: list[str] = []
        self.asked: list[str] = []

    @classmethod
    @asynccontextmanager
    async def opened(cls, profile: Path) -> AsyncIterator[Self]:
        """Start a browser with a profile of its own, and end it."""
        assert BROWSER
        process = await asyncio.create_subprocess_exec(
            *(BROWSER, *_FLAGS, f"--user-data-dir={profile}", "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr
        try:
            address = b""
            while not address.startswith(_ADDRESS):
                address = await process.stderr.readline()
                assert address, "the browser did not start"
            drained = asyncio.create_task(process.stderr.read())
            async with (
                aiohttp.ClientSession() as client,
                client.ws_connect(address.removeprefix(_ADDRESS).decode().strip(), max_msg_size=0) as socket,
            ):
                tab = cls(socket)
                listening = asyncio.create_task(tab._listen())
                target = await tab.call("Target.createTarget", url="about:blank")
                attached = await tab.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
                tab._session = attached["sessionId"]
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await tab.call(f"{domain}.enable")
                yield tab
                tab._session = ""
                await tab.call("Browser.close")
                await listening
            await drained
        finally:
            if process.returncode is None:
                try:
                    await asyncio.wait_for(process.wait(), 10)
                except TimeoutError:
                    process.kill()
                    await process.wait()

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._calls += 1
        asked = {"id": self._calls, "method": method, "params": parameters}
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[self._calls] = answer
        await self._socket.send_json(asked | ({"sessionId": self._session} if self._session else {}))
        return await answer

    async def show(self, path: Path, *, width: int, theme: str = "light", media: str = "screen") -> None:
        """Open a file in a window of this width."""
        window = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **window)
        scheme = {"name": "prefers-color-scheme", "value": theme}
        await self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self._loaded.clear()
        await self.call("Page.navigate", url=path.as_uri())
        await self._loaded.wait()

    async def value(self, expression: str) -> Any:
        """Return what an expression is in the page."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def picture(self) -> bytes:
        """Return the whole page as PNG."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    async def _listen(self) -> None:
        async for message in self._socket:
            event = message.json()
            if answer := self._waiting.pop(event.get("id", 0), None):
                if "error" in event:
                    answer.set_exception(AssertionError(event["error"]))
                else:
                    answer.set_result(event["result"])
            elif event.get("method") == "Page.loadEventFired":
                self._loaded.set()
            elif event.get("method") == "Network.requestWillBeSent":
                self.asked.append(event["params"]["request"]["url"])
            elif event.get("method") in {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}:
                self.said.append(str(event["params"]))
