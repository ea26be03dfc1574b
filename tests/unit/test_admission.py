"""Requests with events, let in as far as there is room: `node.admission`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web

from invocation.classify import Answer
from invocation.frontend import Room
from node.admission import admitted
from tests.support import web_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.typedefs import Handler


@asynccontextmanager
async def served(room: Room, *, read_before: bool = False, growth: float = 1.0) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve what says how large a body was, if there is room for it; a check of a signature may have read it before."""

    @web.middleware
    async def checking(request: web.Request, handler: Handler) -> web.StreamResponse:
        if read_before:
            await request.read()
        return await handler(request)

    async def handle(request: web.Request) -> web.Response:
        async def take(body: bytes) -> Answer:
            return Answer(200, {}, b"%d of %d" % (len(body), room.size))

        answer = await admitted(request, room, take, most=100, growth=growth)
        return web.Response(body=answer.body, status=answer.status)

    app = web.Application(middlewares=[checking])
    app.router.add_route("*", "/", handle)
    async with web_server.served(app, handle_signals=False) as url, aiohttp.ClientSession(url) as client:
        yield client


async def parts(size: int) -> AsyncIterator[bytes]:
    """Yield a body of which nobody says how large it is."""
    yield b"x" * size


@pytest.mark.parametrize("read_before", [False, True])
async def test_a_body_counts_with_its_size_whoever_has_read_it(*, read_before: bool) -> None:
    """Also one that is in memory already. Without a body nothing counts, and without a length the most there may be."""
    room = Room(size=50)
    async with served(room, read_before=read_before) as client:
        for body, status, said in ((b"x" * 50, 200, b"50 of 50"), (b"x" * 51, 429, b""), (None, 200, b"0 of 0")):
            async with client.post("/", data=body) as answer:
                assert answer.status == status
                assert (await answer.read()).startswith(said)
        async with client.post("/", data=parts(3)) as answer:
            assert answer.status == 429
    assert (room.calls, room.size) == (0, 0)


async def test_an_event_that_is_larger_than_its_body_takes_that_much_room() -> None:
    """As base64 is."""
    room = Room(size=50)
    async with served(room, growth=2.0) as client:
        for size, status in ((25, 200), (26, 429), (101, 413)):
            async with client.post("/", data=b"x" * size) as answer:
                assert answer.status == status


async def test_a_closed_room_takes_nothing() -> None:
    """The node is stopping."""
    room = Room()
    room.closed = True
    async with served(room) as client, client.post("/", data=b"{}") as answer:
        assert (answer.status, b"stopping" in await answer.read()) == (500, True)  # as AWS says ServiceException
