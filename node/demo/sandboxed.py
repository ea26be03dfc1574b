"""The demo's functions in the node's own sandboxes: whether they can be, where they are, and what they report.

`node.demo.function_process` is what there is without sandboxes.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from config.secrets import Secrets
from config.settings import Settings
from invocation.invoking import NotInvoked, Request
from invocation.sandboxes import check_function
from invocation.settings import HandlerFunction
from model.errors import EsmdError
from node.demo import handlers
from node.demo.function import Report, Tally
from node.demo.latency import Latencies
from node.sandboxing import worker_manager

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp

    from invocation.worker_manager import WorkerManager

_TRY_S = 15.0
_TRY = b'{"source": "aws.events", "detail-type": "Scheduled Event", "time": "1970-01-01T00:00:00Z", "detail": {}}'
_SHOWN = 300

CODE = Path(handlers.__file__).parent.parent
SHIPPED_CODE = "code: node/demo"
SHIPPED_ADDRESS = "127.0.0.1:8125"
_THROTTLES = re.compile(r'^esm_throttles_total\{mapping="([^"]+)",[^}]*\} ([0-9.e+]+)$', re.MULTILINE)


class _Error(msgspec.Struct):
    """An error document."""

    errorType: str = ""  # noqa: N815 - as AWS spells it
    errorMessage: str = ""  # noqa: N815 - same


class _Call(msgspec.Struct):
    """What a function says of one call."""

    mapping: str
    error: bool
    retry: bool
    done_s: float
    latencies_ms: list[float]


_decode = msgspec.json.Decoder(_Call).decode


OWN = "the demo's own"
"""The key under which the demo's own function is tried: no function has such a name."""


def own_function() -> HandlerFunction:
    """Return one of the demo's own functions, to be tried."""
    return HandlerFunction("demo", "handlers.app.tidy", str(CODE), timeout_s=_TRY_S)


async def cannot_run(functions: Mapping[str, HandlerFunction]) -> dict[str, str]:
    """Try each function once, with the event of a schedule; return by its key why some cannot run here.

    What is missing on a machine or in a container is found out only by trying. A handler that fails does run.
    """
    found: dict[str, str] = {}

    async def attempt(workers: WorkerManager, key: str, function: HandlerFunction) -> None:
        why = await _why_not(workers, function)
        if why is not None:
            found[key] = why

    async with worker_manager(Settings(), Secrets()) as workers, asyncio.TaskGroup() as trying:
        for key, function in functions.items():
            trying.create_task(attempt(workers, key, function), name=f"try {function.name}")
    return found


async def _why_not(workers: WorkerManager, function: HandlerFunction) -> str | None:
    try:
        check_function(function)
        async with asyncio.timeout(_TRY_S):
            came = await workers.invoke(function, Request(_TRY, "try"))
    except TimeoutError:
        return f"no sandbox was ready within {_TRY_S:g} s"
    except EsmdError as exc:
        return str(exc).removeprefix(f"function {function.name}: ")
    if isinstance(came, NotInvoked):
        return came.message
    return None if came.function_error is None else _fault_of_runtime(came.payload)


def _fault_of_runtime(payload: bytes) -> str | None:
    """Return what an error document says if it is not the handler's own affair."""
    try:
        document = msgspec.json.decode(payload, type=_Error)
    except msgspec.MsgspecError:
        return payload.decode(errors="replace")[:_SHOWN]
    if not document.errorType.startswith(("Runtime.", "Sandbox.")):
        return None
    return f"{document.errorType}: {document.errorMessage}"[:_SHOWN]


class SandboxReports(asyncio.DatagramProtocol):
    """Listens to what the functions report. Use it as an async context manager."""

    def __init__(self) -> None:
        self.report = Report("")
        self._transport: asyncio.DatagramTransport | None = None
        self._address = ""

    async def __aenter__(self) -> Self:
        """Listen on a free port of the loopback interface."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        host, port = self._transport.get_extra_info("sockname")
        self._address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Listen no more."""
        if self._transport is not None:
            self._transport.close()

    def configured(self, text: str) -> str:
        """Return the shipped configuration with what is true here: where the code is, and who is reported to."""
        return text.replace(SHIPPED_CODE, f"code: {json.dumps(str(CODE))}").replace(SHIPPED_ADDRESS, self._address)

    async def follow(self) -> None:
        """Do nothing until cancelled: reports come by themselves."""
        await asyncio.get_running_loop().create_future()

    async def look(self, session: aiohttp.ClientSession) -> None:
        """Learn from the node how many calls there was no room for: such calls never reach a function."""
        async with session.get("/metrics", raise_for_status=True) as answer:
            for mapping, count in _THROTTLES.findall(await answer.text()):
                self._tally(mapping).turned_away = int(float(count))

    def datagram_received(self, data: bytes, _addr: object) -> None:
        """Take up one call."""
        try:
            call = _decode(data)
        except msgspec.MsgspecError:
            return  # of somebody else on this machine
        tally = self._tally(call.mapping)
        tally.calls += 1
        tally.errors += call.error
        tally.retries += call.retry
        tally.records += len(call.latencies_ms)
        latencies = Latencies()
        latencies.counts = tally.latency
        for latency_ms in call.latencies_ms:
            latencies.add(latency_ms)
        if call.latencies_ms:
            self.report.first_time_s = min(call.done_s, self.report.first_time_s or call.done_s)

    def _tally(self, mapping: str) -> Tally:
        return self.report.tallies.setdefault(mapping, Tally())
