"""Functions over HTTP that remember asynchronous invocations, callers of a node, and an account of both."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

from tests.support.web_server import served

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Mapping

SINK_ARN = "arn:aws:lambda:us-east-1:000000000000:function:sink"
_REQUEST_ID = "x-amzn-RequestId"
TRIED_ONCE = {"MaximumRetryAttempts": 0, "DestinationConfig": {"OnFailure": {"Destination": SINK_ARN}}}
"""What may be said of `work`, as `event_invoke`."""

_EVENT = {"X-Amz-Invocation-Type": "Event"}


@dataclass(slots=True)
class Functions:
    """What `work` and `sink` were invoked with. `work` fails for events that say so."""

    url: str = ""
    work: Counter[str] = field(default_factory=Counter)  # by request id
    took: set[str] = field(default_factory=set)  # request ids that `work` answered without an error
    sink: dict[str, dict[str, Any]] = field(default_factory=dict)  # documents, by the request id they are about
    throttling: bool = False
    held: asyncio.Event | None = None  # `slow` answers when it is set
    slow: int = 0

    def section(self, **work: Any) -> dict[str, Any]:
        """Return the functions for a node's configuration, with what is said of `work`."""
        named: dict[str, Any] = {
            name: {"url": f"{self.url}/{name}", "timeout": 30} for name in ("work", "sink", "slow")
        }
        return named | {"work": named["work"] | work}

    async def _work(self, request: web.Request) -> web.Response:
        event, request_id = json.loads(await request.read()), request.headers[_REQUEST_ID]
        self.work[request_id] += 1
        if self.throttling:
            return web.Response(status=429)
        if event.get("fail"):
            error = {"errorType": "Planted", "errorMessage": "as asked"}
            return web.json_response(error, headers={"X-Amz-Function-Error": "Unhandled"})
        self.took.add(request_id)
        return web.json_response({"took": event})

    async def _sink(self, request: web.Request) -> web.Response:
        document = json.loads(await request.read())
        self.sink[document["requestContext"]["requestId"]] = document
        return web.json_response(None)

    async def _slow(self, request: web.Request) -> web.Response:
        await request.read()
        self.slow += 1
        if self.held is not None:
            await self.held.wait()
        return web.json_response(None)

    def routes(self) -> list[web.RouteDef]:
        """Return the functions' routes."""
        return [web.post("/work", self._work), web.post("/sink", self._sink), web.post("/slow", self._slow)]


@asynccontextmanager
async def functions() -> AsyncIterator[Functions]:
    """Serve the functions."""
    serving = Functions()
    app = web.Application()
    app.add_routes(serving.routes())
    async with served(app, access_log=None) as serving.url:
        try:
            yield serving
        finally:
            if serving.held is not None:
                serving.held.set()


class Caller:
    """Invokes asynchronously, as fast as a node answers."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.accepted: dict[str, Mapping[str, Any]] = {}  # events, by request id
        self.refused: Counter[str] = Counter()

    async def invoke(self, address: str, function: str, event: Mapping[str, Any]) -> bool:
        """Tell whether the event was accepted."""
        url = f"http://{address}/2015-03-31/functions/{function}/invocations"
        try:
            async with self._session.post(url, json=event, headers=_EVENT) as answer:
                await answer.read()
                if answer.status == 202:
                    self.accepted[answer.headers[_REQUEST_ID]] = event
                    return True
                self.refused[str(answer.status)] += 1
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as exc:
            self.refused[type(exc).__name__] += 1
        return False


@asynccontextmanager
async def caller() -> AsyncIterator[Caller]:
    """Give a caller with connections of its own."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=32), timeout=aiohttp.ClientTimeout(total=10)
    ) as session:
        yield Caller(session)
