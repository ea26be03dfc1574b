"""What HTTP leaves open: interim answers, several answers, heads without end, and who may use a connection again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from yarl import URL

from invocation import transport as transport_module
from invocation.classify import Answer, Failure, FailureKind
from invocation.transport import Transport
from tests.support.loops import on_both_loops
from tests.support.node_process import eventually
from tests.support.scripted_http import ScriptedServer, answer, answer_early, piecemeal, response, say
from tests.support.targets import LARGE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.scripted_http import Behaviour, Exchange


async def post(
    transport: Transport, server: ScriptedServer, event: bytes = b"{}", headers: Mapping[str, str] | None = None
) -> Answer | Failure:
    """Send one request."""
    return await transport.post(URL(server.url), event, headers or {}, timeout_s=10)


@on_both_loops
async def test_interim_answers_are_passed_over() -> None:
    """100 and 103 announce the answer; the connection is kept."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with ScriptedServer(piecemeal(interim + response(200, b"[]"), 5)) as server, Transport() as transport:
        for _ in range(2):
            came = await post(transport, server)
            assert isinstance(came, Answer)
            assert (came.status, came.body, "Link" in came.headers) == (200, b"[]", False)
        assert {request.connection for request in server.requests} == {1}


@on_both_loops
async def test_a_second_answer_to_a_request_is_nobodys() -> None:
    """It is not taken for the answer to the next request, whether it comes at once or later."""
    go = asyncio.Event()

    async def twice(exchange: Exchange) -> None:
        await exchange.read()
        await exchange.write(response(200, b"1"))
        await go.wait()  # the first is taken by then
        await exchange.write(response(500, b"2"))

    async with ScriptedServer() as server:
        for behaviour in (piecemeal(response(200, b"1") + response(500, b"2"), 1), twice):
            async with Transport() as transport:
                server.then(behaviour, answer(200, b"3"))
                came = await post(transport, server)
                assert isinstance(came, Answer)
                assert (came.status, came.body) == (200, b"1")
                go.set()
                if behaviour is twice:

                    async def ended() -> bool:
                        return server.open_connections == 0

                    await eventually(ended, "the end of the connection")
                came = await post(transport, server)
                assert isinstance(came, Answer)
                assert (came.status, came.body) == (200, b"3")


UNUSABLE = [
    say(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x05hello"),
    say(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 1000) for n in range(100)) + b"\r\n"),
    say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    say(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
]


@pytest.mark.parametrize("behaviour", UNUSABLE, ids=["upgrade", "head without end", "two lengths", "negative length"])
@on_both_loops
async def test_what_cannot_be_an_answer_is_none(behaviour: Behaviour) -> None:
    """Whatever could be read in two ways is refused."""
    async with ScriptedServer(behaviour) as server, Transport() as transport:
        assert await post(transport, server) == Failure(FailureKind.GARBAGE)


@on_both_loops
async def test_an_answer_may_end_with_its_connection() -> None:
    """Without a length the end of the connection is the end of the answer; trailers are left out."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\nX-Amz-Function-Error: x\r\n\r\n"
    async with ScriptedServer() as server, Transport() as transport:
        server.then(say(b"HTTP/1.1 200 OK\r\n\r\n[1]"), say(b"HTTP/1.0 200 OK\r\n\r\n[2]"), say(chunked))
        bodies = []
        for _ in range(3):
            came = await post(transport, server)
            assert isinstance(came, Answer)
            bodies.append(came.body)
            assert "X-Amz-Function-Error" not in came.headers
        assert bodies == [b"[1]", b"[2]", b"[]"]
        assert [request.connection for request in server.requests] == [1, 2, 3]


@on_both_loops
async def test_a_connection_that_owes_the_rest_of_a_request_is_not_kept() -> None:
    """After an early answer the server may still wait for the event; the next request goes elsewhere."""
    async with ScriptedServer() as server, Transport() as transport:
        server.then(answer_early(503))
        came = await post(transport, server, LARGE)
        assert isinstance(came, Answer)
        assert came.status == 503
        assert isinstance(await post(transport, server), Answer)
        assert [request.connection for request in server.requests] == [1, 2]


@on_both_loops
async def test_headers_replace_ours_and_add_none() -> None:
    """Names count whatever their case; a value that would begin another header sends nothing, and is not repeated."""
    async with ScriptedServer() as server, Transport() as transport:
        await post(transport, server, headers={"content-type": "text/x", "HOST": "elsewhere", "X-Name": "käse"})
        (request,) = server.requests
        assert request.headers["content-type"] == "text/x"
        assert request.headers["host"] == "elsewhere"
        assert request.headers["x-name"].encode("latin-1") == "käse".encode()
        assert request.headers["user-agent"] == "esmd"
        for text in ("planted\r\nX-Evil: 1", "planted\n", "planted\0", "planted\ud800"):
            assert await post(transport, server, headers={"X-Name": text}) == Failure(FailureKind.UNPREPARED)
        assert len(server.requests) == 1


async def test_idle_connections_are_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody used for the time connections are kept is given up."""
    monkeypatch.setattr(transport_module, "_KEEP_ALIVE_S", 0.05)
    async with ScriptedServer() as server, Transport() as transport:
        await post(transport, server)
        assert server.open_connections == 1

        async def closed() -> bool:
            return server.open_connections == 0

        await eventually(closed, "the end of the connection")
        assert isinstance(await post(transport, server), Answer)
        assert server.connections == 2


@on_both_loops
async def test_a_name_is_tried_at_all_its_addresses() -> None:
    """`localhost` may be ::1 first, where nobody listens."""
    async with ScriptedServer() as server, Transport() as transport:
        came = await transport.post(URL(f"http://localhost:{server.port}/"), b"{}", {}, timeout_s=10)
        assert isinstance(came, Answer)
        assert server.requests[0].headers["host"] == f"localhost:{server.port}"


@on_both_loops
async def test_closing_ends_what_is_in_flight() -> None:
    """Whoever waits for an answer learns that there will be none."""
    go = asyncio.Event()
    async with ScriptedServer(answer(200)) as server, Transport() as transport:

        async def never(exchange: Exchange) -> None:
            await exchange.read()
            go.set()
            await server.stopping.wait()

        server.then(never)
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(post(transport, server))
            await go.wait()
            await transport.aclose()
        assert call.result() == Failure(FailureKind.LOST_AFTER_SENT)
