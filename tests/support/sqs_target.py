"""A function over HTTP that notes the SQS messages it is given, in order, and who gave them."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.support.web_server import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation."""

    bodies: tuple[str, ...]
    receives: tuple[int, ...]
    shard: str
    token: int
    began: float
    ended: float
    status: int


@dataclass
class SqsTarget:
    """Answers by a function of the bodies: a status, and seconds it takes."""

    answer: Callable[[list[str]], int] = lambda _bodies: 200
    seconds: float = 0.0
    response: Callable[[dict[str, Any]], Any] = lambda _event: None
    calls: list[Call] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    url: str = ""

    def done(self) -> list[str]:
        """Return the bodies of successful calls in the order of their answers."""
        return [body for call in self.calls if call.status == 200 for body in call.bodies]

    async def _handle(self, request: web.Request) -> web.Response:
        event = json.loads(await request.read())
        bodies = [record["body"] for record in event["Records"]]
        began = time.time()
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        status = self.answer(bodies)
        self.events.append(event)
        self.calls.append(
            Call(
                tuple(bodies),
                tuple(int(record["attributes"]["ApproximateReceiveCount"]) for record in event["Records"]),
                request.headers["X-Esmd-Shard"],
                int(request.headers["X-Esmd-Fencing-Token"]),
                began,
                time.time(),
                status,
            )
        )
        return web.json_response(self.response(event), status=status)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[SqsTarget]:
        """Serve on a free port."""
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_post("/", self._handle)
        async with served(app, handler_cancellation=False, shutdown_timeout=1) as url:
            self.url = f"{url}/"
            yield self
