"""Answers that are read as they come: `invocation.transport.OpenAnswer`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from yarl import URL

from invocation.classify import Answer, Failure, FailureKind
from invocation.transport import OpenAnswer, Transport
from tests.support.scripted_http import ScriptedServer, answer, hang, piecemeal, reset, say

if TYPE_CHECKING:
    from tests.support.scripted_http import Exchange

TOTAL = 32 * 1024 * 1024
IN_BUFFERS = 16 * 1024 * 1024  # more than two sockets of the loopback interface ever hold
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def opened(
    transport: Transport, server: ScriptedServer, *, timeout_s: float = 5
) -> OpenAnswer | Answer | Failure:
    """Ask for an answer."""
    return await transport.open(URL(server.url), b"{}", {"X": "y"}, timeout_s=timeout_s)


async def test_what_nobody_reads_stays_with_the_server() -> None:
    """The connection is not read meanwhile, so the server cannot go on; then everything comes, in order."""
    sent = 0

    async def pour(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.read()
        await exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % TOTAL)
        exchange.writer.transport.set_write_buffer_limits(high=0)
        for number in range(TOTAL // 2**16):
            await exchange.write(number.to_bytes(2) * 2**15)
            sent += 2**16

    async with ScriptedServer(pour) as server, Transport() as transport:
        came = await opened(transport, server)
        assert isinstance(came, OpenAnswer)
        before = -1
        while before != sent:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.2)
        assert sent < IN_BUFFERS
        received = bytearray()
        largest = 0
        while data := await came.read():
            assert isinstance(data, bytes)
            largest = max(largest, len(data))
            received += data
        assert largest < 1024 * 1024
        assert received == b"".join(number.to_bytes(2) * 2**15 for number in range(TOTAL // 2**16))
        assert await came.read() == b""
        came.close()


async def test_an_answer_with_another_status_is_read_at_once() -> None:
    """An error, as by `post`."""
    async with ScriptedServer(answer(400, b"no")) as server, Transport() as transport:
        came = await opened(transport, server)
    assert isinstance(came, Answer)
    assert (came.status, came.body) == (400, b"no")


async def test_pieces_come_as_they_arrive_and_headers_with_them() -> None:
    """A chunked answer, its end known for what it is."""
    body = CHUNKED.replace(b"Transfer", b"X-Kind: stream\r\nTransfer") + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    async with ScriptedServer(piecemeal(body, 9)) as server, Transport() as transport:
        came = await opened(transport, server)
        assert isinstance(came, OpenAnswer)
        assert came.headers["x-kind"] == "stream"
        data = b""
        while more := await came.read():
            assert isinstance(more, bytes)
            data += more
        came.close()
    assert data == b"abcde"


@pytest.mark.parametrize("then_reset", [False, True])
async def test_an_answer_that_breaks_is_a_failure(*, then_reset: bool) -> None:
    """Closed or reset before its end."""
    async with ScriptedServer(say(CHUNKED + b"9\r\nabc", then_reset=then_reset)) as server, Transport() as transport:
        came = await opened(transport, server)
        if isinstance(came, OpenAnswer):
            data: bytes | Failure = b"first"
            while isinstance(data, bytes) and data:
                data = await came.read()
            came.close()
            assert data == Failure(FailureKind.CUT_SHORT)
        else:
            assert isinstance(came, Failure)


async def test_no_answer_is_a_failure() -> None:
    """In time or at all, or over a transport that is closed."""
    async with ScriptedServer(hang()) as server, Transport() as transport:
        server.then(reset())
        assert await opened(transport, server) == Failure(FailureKind.LOST_AFTER_SENT)
        assert await opened(transport, server, timeout_s=0.1) == Failure(FailureKind.TIMEOUT_AFTER_SENT)
        await transport.aclose()
        assert await opened(transport, server) == Failure(FailureKind.UNPREPARED, "connections are closed")


async def test_closing_and_cancelling_end_the_connection() -> None:
    """The server sees that nobody listens any more."""
    gone = asyncio.Queue[str]()

    async def wait(exchange: Exchange) -> None:
        await exchange.read()
        if not exchange.request.headers["x"].startswith("no"):
            await exchange.write(CHUNKED)
        with contextlib.suppress(ConnectionError):
            assert await exchange.reader.read() == b""
        gone.put_nowait(exchange.request.headers["x"])

    async with ScriptedServer(wait) as server, Transport() as transport, asyncio.timeout(10):
        came = await transport.open(URL(server.url), b"", {"X": "closed"}, timeout_s=5)
        assert isinstance(came, OpenAnswer)
        came.close()
        came.close()
        assert await gone.get() == "closed"
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(transport.open(URL(server.url), b"", {"X": "no answer"}, timeout_s=5))
            await server.received(2)
            asking.cancel()
        assert await gone.get() == "no answer"
