"""Headless Chromium, driven over the DevTools protocol: a browser for tests of pages, without a driver of its own.

    with Chromium() as browser:
        async with browser.page(f"http://{address}/console") as page:
            await page.until("document.querySelector('h1')?.textContent === 'Everything flows'")
            await page.press("Tab")

Whoever waits here waits for something that the page shows. The browser's profile is a folder of its own, and its
connections to its maker's services are switched off.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from tests.support.apt import installed
from tests.support.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_LIMIT_S = 30.0  # generous: reached by a defect only
_LOOK_S = 0.03
_INSTALL = "install Chromium (apt-get install chromium)"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--hide-scrollbars",
    "--metrics-recording-only",
    "--mute-audio",
    "--password-store=basic",
    "--use-mock-keychain",
)

_KEYS = {
    "Enter": ("\r", 13),
    "Tab": ("", 9),
    "Escape": ("", 27),
    " ": (" ", 32),
    "ArrowRight": ("", 39),
    "ArrowUp": ("", 38),
    "ArrowDown": ("", 40),
    "End": ("", 35),
}


def chromium() -> str:
    """Find the browser; in continuous integration, as root of a Debian, install it. Raises `ServerUnavailableError`."""
    return installed(_found, ["chromium"], what="no Chromium is on PATH", hint=_INSTALL)


def _found() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name)) is not None), None)


class PageError(AssertionError):
    """A script in the page threw, or the page did not come to show what was waited for."""


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._calls = 0
        self.complaints: list[str] = []
        """What the page logged as an error or threw, the policy's refusals included."""

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call the DevTools protocol, one call at a time; what the browser tells meanwhile is noted."""
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": parameters})
        async with asyncio.timeout(_LIMIT_S):
            while True:
                told = await self._socket.receive_json()
                if told.get("id") == self._calls:
                    break
                self._note(told)
        if "error" in told:
            raise PageError(f"{method}: {told['error']['message']}")
        result: dict[str, Any] = told["result"]
        return result

    def _note(self, told: dict[str, Any]) -> None:
        if told["method"] == "Runtime.exceptionThrown":
            details = told["params"]["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif told["method"] == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
            entry = told["params"]["entry"]
            self.complaints.append(f"{entry['text']} {entry.get('url', '')}".rstrip())

    async def evaluate(self, script: str) -> Any:
        """Return the value of an expression, awaited if it is a promise. Raises `PageError` if it throws."""
        answer = await self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise PageError(answer["exceptionDetails"].get("exception", {}).get("description", str(answer)))
        return answer["result"].get("value")

    async def until(self, script: str, *, limit_s: float = _LIMIT_S) -> Any:
        """Wait until an expression is truthy; return it."""
        deadline = asyncio.get_running_loop().time() + limit_s
        while True:
            value = await self.evaluate(script)
            if value:
                return value
            if asyncio.get_running_loop().time() > deadline:
                text = await self.evaluate("document.body.innerText")
                raise PageError(f"not within {limit_s:g} s: {script}\nthe page:\n{text}\n{self.complaints}")
            await asyncio.sleep(_LOOK_S)

    async def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key, as a keyboard does."""
        text, code = _KEYS[key]
        shared = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        shared["modifiers"] = 8 if shift else 0
        await self.command("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **shared)
        await self.command("Input.dispatchKeyEvent", type="keyUp", **shared)

    async def type(self, text: str) -> None:
        """Type into what has the focus."""
        await self.command("Input.insertText", text=text)

    async def tab_to(self, script: str, *, at_most: int = 60) -> None:
        """Press Tab until an expression about `document.activeElement`, called `at`, is truthy."""
        passed = []
        for _ in range(at_most):
            await self.press("Tab")
            if await self.evaluate(f"((at) => {script})(document.activeElement)"):
                return
            passed.append(await self.evaluate("document.activeElement.outerHTML.slice(0, 80)"))
        raise PageError(f"Tab does not lead to {script}: {passed}")

    async def show(self, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Set the size of the window, and whether the user prefers light or dark."""
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        await self.command("Emulation.setEmulatedMedia", features=features)


class Chromium:
    """One browser process, as a context manager. Raises `ServerUnavailableError` on entry."""

    def __init__(self) -> None:
        self._process: ServerProcess | None = None
        self._port = 0

    def __enter__(self) -> Self:
        program = chromium()
        home = Path(tempfile.mkdtemp(prefix="esmd-chromium-"))
        profile = home / "profile"
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = ServerProcess("chromium", home)
        told = profile / "DevToolsActivePort"
        command = [program, *_FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
        self._process.start(command, serves=lambda: told.exists() and "\n" in told.read_text())
        self._port = int(told.read_text().splitlines()[0])
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.end(signal.SIGTERM)

    @asynccontextmanager
    async def page(self, url: str) -> AsyncIterator[Page]:
        """Open a page in a tab of its own."""
        async with aiohttp.ClientSession(f"http://127.0.0.1:{self._port}") as client:
            async with client.put("/json/new?about:blank") as answer:
                target = await answer.json()
            try:
                async with client.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = Page(socket)
                    for domain in ("Runtime", "Log", "Page"):
                        await page.command(f"{domain}.enable")
                    await page.show()
                    await page.command("Page.navigate", url=url)
                    yield page
            finally:
                async with client.get(f"/json/close/{target['id']}"):
                    pass
