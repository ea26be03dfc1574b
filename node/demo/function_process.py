"""The parent's side of the demo's functions: starts their process, reads its reports, ends it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import msgspec

from model.errors import UnavailableError
from node import children
from node.demo.function import Report

if TYPE_CHECKING:
    import aiohttp

_START_S = 15.0
_LONGEST_LINE = 1024 * 1024
_TIMEOUTS = {"billing": 10, "archive": 10, "pages": 10, "mailer": 2, "tidy": 10}


class FunctionProcess:
    """The process. Use it as an async context manager, and keep `follow` running to have `report` up to date."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self.report = Report("")

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._process.pid if self._process is not None else None

    async def __aenter__(self) -> Self:
        """Start, and wait until the functions can be called. Raises `UnavailableError`."""
        self._process = await children.start("node.demo.function", limit=_LONGEST_LINE)
        try:
            async with asyncio.timeout(_START_S):
                await self._read()
        except BaseException as error:
            await self.__aexit__()
            if isinstance(error, TimeoutError):
                raise UnavailableError(f"the demo's functions did not start within {_START_S:g} s") from error
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the process and wait until it is gone."""
        process, self._process = self._process, None
        if process is not None:
            await children.end(process)

    def configured(self, text: str) -> str:
        """Return the shipped configuration with functions behind URLs in the place of those in sandboxes."""
        before, _, rest = text.partition("\nfunctions:\n")
        functions = [
            f'  {name}: {{url: "{self.report.url}/{name}", timeout: {limit}}}' for name, limit in _TIMEOUTS.items()
        ]
        return "\n".join([before, "functions:", *functions, "", rest[rest.index("event_source_mappings:") :]])

    async def look(self, _session: aiohttp.ClientSession) -> None:
        """Ask nobody: the functions count what they turn away."""

    async def follow(self) -> None:
        """Keep `report` up to date. Raises `UnavailableError` when the process ends."""
        while True:
            await self._read()

    async def _read(self) -> None:
        if self._process is None or self._process.stdout is None:
            raise UnavailableError("the demo's functions are not running")
        line = await self._process.stdout.readline()
        if not line:
            raise UnavailableError("the demo's functions have ended")
        self.report = msgspec.json.decode(line, type=Report)
