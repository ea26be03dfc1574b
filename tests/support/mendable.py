"""A function over HTTP that fails until it is mended, and a client's `esmd redrive` as a process of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from tests.support import leash
from tests.support.node_process import ROOT
from tests.support.scripted_http import ScriptedServer, response

if TYPE_CHECKING:
    import signal
    from collections.abc import AsyncIterator, Callable

    from tests.support.node_process import NodeProcess
    from tests.support.scripted_http import Exchange

_LIMIT_S = 90.0


class Mendable:
    """Fails on every batch that `breaks_on` says, with status 500; remembers what it took."""

    def __init__(self) -> None:
        self.breaks_on: Callable[[list[str]], bool] = lambda _values: True
        self.taken: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.took = asyncio.Event()
        self.seconds = 0.0
        self.server = ScriptedServer(self._answer)

    @property
    def url(self) -> str:
        """Where it is."""
        return self.server.url

    def mend(self) -> None:
        """Fail no more."""
        self.breaks_on = lambda _values: False

    async def until(self, count: int) -> None:
        """Wait until so many values were taken."""
        async with asyncio.timeout(_LIMIT_S):
            while len(self.taken) < count:
                self.took.clear()
                await self.took.wait()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Mendable]:
        """Serve for as long as the body runs."""
        async with self.server:
            yield self

    async def _answer(self, exchange: Exchange) -> None:
        await exchange.read()
        await asyncio.sleep(self.seconds)
        values = _values(json.loads(exchange.request.body))
        if self.breaks_on(values):
            await exchange.write(response(500, b'{"errorMessage":"broken"}'))
            return
        self.taken += values
        self.headers.append(exchange.request.headers)
        await exchange.write(response())
        self.took.set()


def _values(event: dict[str, Any]) -> list[str]:
    """Return the base64 texts of the records' values, whichever source they are of."""
    if "Records" in event:
        return [record["kinesis"]["data"] for record in event["Records"]]
    return [record["value"] for batch in event["records"].values() for record in batch]


class RedriveCommand:
    """`esmd redrive` of a node, or another `command` that does something with a mapping."""

    def __init__(self, node: NodeProcess, mapping: str, *arguments: str, command: str = "redrive") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "node", command, mapping, "--url", f"http://{node.address}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )
        leash.hold(self._process)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    async def ended(self) -> tuple[int, str, str]:
        """Wait for its end; return its exit status, what it printed, and what it said on standard error."""
        out, err = await asyncio.to_thread(self._process.communicate, None, _LIMIT_S)
        return self._process.returncode, out.decode(), err.decode()


async def redrive(
    node: NodeProcess, mapping: str, *arguments: str, command: str = "redrive"
) -> tuple[int, dict[str, Any]]:
    """Redrive; return the exit status and the document that it prints."""
    status, out, err = await RedriveCommand(node, mapping, "--json", *arguments, command=command).ended()
    assert out, err
    document: dict[str, Any] = json.loads(out)
    return status, document
