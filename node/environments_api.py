"""Runs functions for other nodes of the fleet: `POST /esmd/v1/environments/FUNCTION/invocations`.

The other node counts them and answers for them. Here they run or are refused; nothing is handed on, so that an
invocation makes one hop at most. A connection that ends before the answer ends the function: whoever asked may have
lost the right to have it run, and a caller who merely went away does not close it.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from invocation.forwarding import MAX_BYTES, PATH, encode_came, read_asked
from invocation.invoking import NotInvoked
from node.admission import BODY_LIMIT_S, read_body
from node.guard import refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invocation.frontend import Room
    from invocation.invoking import InvocationResult, Request
    from invocation.settings import HandlerFunction
    from invocation.worker_manager import WorkerManager
    from node.placement import Placement

_LOOK_S = 0.1
"""How soon it is noticed that the other node is gone: aiohttp tells handlers of a server all or none."""


class EnvironmentsApi:
    """The handler. What `room` has no place for is refused, and everything once that is closed."""

    def __init__(self, placement: Placement, workers: WorkerManager, room: Room) -> None:
        self._placement = placement
        self._workers = workers
        self._room = room

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the route, for `node.serve.Surface`."""
        return [web.post(f"{PATH}{{function}}/invocations", self._invoke)]

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        size = request.content_length
        if size is None or size > MAX_BYTES:
            return refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "no invocation")
        if self._room.closed:
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the node is stopping")
        if not self._room.enter(size):
            return refusal(HTTPStatus.TOO_MANY_REQUESTS, "the node has no room")
        try:
            return await self._admitted(request)
        finally:
            self._room.leave(size)

    async def _admitted(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request, BODY_LIMIT_S, MAX_BYTES)
        if isinstance(body, NotInvoked):
            return refusal(body.status, body.message)
        try:
            asked = read_asked(body)
        except msgspec.DecodeError:
            return refusal(HTTPStatus.CONFLICT, "an invocation that this version does not understand")
        function = self._placement.function(request.match_info["function"], asked.mark)
        if function is None:
            return refusal(HTTPStatus.CONFLICT, "the function is another one here")
        with self._placement.counted(asked.node, function.name):
            came = await self._run(request, function, asked.request())
        if came is None:
            raise web.HTTPServiceUnavailable  # to nobody
        if isinstance(came, NotInvoked) and came.status == HTTPStatus.TOO_MANY_REQUESTS:
            return refusal(came.status, "the node has no room")
        return web.Response(body=encode_came(came), content_type="application/x-msgpack")

    async def _run(
        self, request: web.Request, function: HandlerFunction, asked: Request
    ) -> InvocationResult | NotInvoked | None:
        """Run the function as long as somebody waits for it. None: nobody does."""
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self._workers.invoke(function, asked), name=f"run {function.name} for a node")
            while not (await asyncio.wait((running,), timeout=_LOOK_S))[0]:
                if request.transport is None or request.transport.is_closing():
                    running.cancel()  # once: again would disturb the end of the environment
                    break
        return None if running.cancelled() else running.result()
