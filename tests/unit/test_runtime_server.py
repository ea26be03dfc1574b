"""The Runtime API over HTTP, spoken byte by byte: what a hostile or a clumsy runtime may send."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from invocation.runtime_api import MAX_RESPONSE_BYTES, Event, RuntimeApi
from invocation.runtime_server import RuntimeServer
from tests.support.loops import on_both_loops

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n"
EVENT = Event(b'{"a": 1}', {"Lambda-Runtime-Aws-Request-Id": "id"}, "id", "attempt")


class Rig:
    """A served Runtime API, and raw connections to it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connected: list[Runtime] = []
        self.idle = asyncio.Event()
        self.api = RuntimeApi(on_idle=self.idle.set, on_failed=lambda: None)
        self.server = RuntimeServer(self.api, user=None)

    async def connect(self) -> Runtime:
        """Connect once more."""
        self.connected.append(Runtime(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.connected[-1]

    async def asked(self, runtime: Runtime) -> None:
        """Have a runtime ask for the next event, and wait until it is known."""
        self.idle.clear()
        runtime.send(NEXT)
        async with asyncio.timeout(10):
            await self.idle.wait()


class Runtime:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer."""
        async with asyncio.timeout(10):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:-2])
            body = await self._reader.readexactly(int(headers.get("Content-Length", 0)))
        return int(head[0].split(" ")[1]), headers, body

    async def ended(self) -> bool:
        """Whether the other side ends the connection without another word."""
        try:
            async with asyncio.timeout(10):
                return await self._reader.read() == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        """End the connection at once."""
        self._writer.transport.abort()


@asynccontextmanager
async def served() -> AsyncIterator[Rig]:
    """Serve."""
    listener = socket.create_server(("127.0.0.1", 0))
    rig = Rig(listener.getsockname()[1])
    await rig.server.start(listener)
    try:
        yield rig
    finally:
        await rig.server.stop()
        await rig.server.stop()
        for runtime in rig.connected:
            runtime.close()
        await asyncio.sleep(0)  # what was closed lets go of its socket in the loop's next turn


def response(body: bytes, request_id: str = "id", *more: str) -> bytes:
    """Make a response to an invocation."""
    head = [f"POST /2018-06-01/runtime/invocation/{request_id}/response HTTP/1.1", "Host: x", *more]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


@on_both_loops
async def test_an_event_and_its_response_in_pieces() -> None:
    """However the bytes come, and the connection is kept for the next event."""
    async with served() as rig:
        runtime = await rig.connect()
        await rig.asked(runtime)
        rig.api.begin(EVENT)
        status, headers, body = await runtime.answer()
        assert (status, body, headers["Lambda-Runtime-Aws-Request-Id"]) == (200, b'{"a": 1}', "id")
        for byte in response(b"12345"):
            runtime.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await runtime.answer())[0] == 202
        assert rig.api.answer is not None
        assert rig.api.answer.payload == b"12345"
        await rig.asked(runtime)
        large = b"x" * 300_000
        rig.api.begin(Event(large, {"Lambda-Runtime-Client-Context": '{\r\n"a": 1}'}, "two", "attempt"))
        _, headers, body = await runtime.answer()
        assert (body, headers["Lambda-Runtime-Client-Context"]) == (large, '{  "a": 1}')


async def test_a_large_response_in_one_go() -> None:
    """Head and body may come in one piece, larger than a head may be, where the node was late to read."""
    async with served() as rig:
        runtime = await rig.connect()
        await rig.asked(runtime)
        rig.api.begin(EVENT)
        await runtime.answer()
        (connection,) = rig.server.connections
        connection.data_received(response(b"x" * 200_000))
        assert (await runtime.answer())[0] == 202
        assert rig.api.answer is not None
        assert len(rig.api.answer.payload) == 200_000


async def test_a_chunked_response_after_a_word_of_leave() -> None:
    """As clients send large ones: Expect, then chunks."""
    async with served() as rig:
        runtime = await rig.connect()
        await rig.asked(runtime)
        rig.api.begin(EVENT)
        await runtime.answer()
        head = response(b"", "id", "Expect: 100-continue").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        runtime.send(head)
        assert (await runtime.answer())[0] == 100
        runtime.send(b"3\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n")
        assert (await runtime.answer())[0] == 202
        assert rig.api.answer is not None
        assert rig.api.answer.payload == b"abcde"


async def test_too_large_a_response_is_refused_when_all_of_it_came() -> None:
    """Who sends does not listen; nothing of it is kept."""
    async with served() as rig:
        runtime = await rig.connect()
        await rig.asked(runtime)
        rig.api.begin(EVENT)
        await runtime.answer()
        runtime.send(response(b"x" * (MAX_RESPONSE_BYTES + 1)))
        assert (await runtime.answer())[0] == 413
        assert rig.api.answer is not None
        assert rig.api.answer.error_type == "Function.ResponseSizeTooLarge"


async def test_a_response_that_is_cut_off_is_an_error() -> None:
    """The caller is not left waiting for its end."""
    async with served() as rig:
        runtime = await rig.connect()
        await rig.asked(runtime)
        rig.api.begin(EVENT)
        await runtime.answer()
        runtime.send(response(b"x" * 100)[:-50])
        runtime.close()
        async with asyncio.timeout(10):
            while rig.api.answer is None:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        assert rig.api.answer.error_type == "Runtime.TruncatedResponse"


@pytest.mark.parametrize(
    "sent",
    [
        b"no HTTP at all\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 20_000,
        NEXT + NEXT,
        NEXT + b"G",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["no-http", "long-header", "many-headers", "pipelined", "half-pipelined", "upgrade", "two-lengths"],
)
async def test_what_no_runtime_sends_ends_the_connection(sent: bytes) -> None:
    """At once, and other connections of the sandbox go on."""
    async with served() as rig:
        hostile, good = await rig.connect(), await rig.connect()
        hostile.send(sent)
        assert await hostile.ended()
        await rig.asked(good)
        rig.api.begin(EVENT)
        assert (await good.answer())[0] == 200


async def test_trailers_have_an_end() -> None:
    """What follows a body is bounded as what comes before it is."""
    async with served() as rig:
        runtime = await rig.connect()
        runtime.send(response(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
        runtime.send(b"1\r\nx\r\n0\r\n")
        for _ in range(20):
            runtime.send(b"X: " + b"x" * 10_000 + b"\r\n")
        assert await runtime.ended()


async def test_other_paths_are_not_found() -> None:
    """Whatever the method; a client that wants the connection closed gets it closed."""
    async with served() as rig:
        runtime = await rig.connect()
        for asked in (b"GET / HTTP/1.1", b"GET /2018-06-01/runtime/invocation/id/response HTTP/1.1"):
            runtime.send(asked + b"\r\nHost: x\r\n\r\n")
            assert (await runtime.answer())[0] == 404
        runtime.send(b"POST /2018-06-01/runtime/invocation/id/other HTTP/1.1\r\nConnection: close\r\n\r\n")
        status, headers, _ = await runtime.answer()
        assert (status, headers["Connection"]) == (404, "close")
        assert await runtime.ended()


async def test_a_runtime_that_hangs_up_is_not_idle() -> None:
    """An event given to it would be lost; when it asks again it is idle again."""
    async with served() as rig:
        runtime = await rig.connect()
        await rig.asked(runtime)
        runtime.close()
        async with asyncio.timeout(10):
            while rig.api.idle:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
        await rig.asked(await rig.connect())
        assert rig.api.idle


async def test_a_sandbox_has_sixteen_connections() -> None:
    """One more is ended; when one ends there is room again."""
    async with served() as rig:
        connections = [await rig.connect() for _ in range(16)]
        for connection in connections:
            connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await connection.answer())[0] == 404
        assert await (await rig.connect()).ended()
        connections[0].close()
        async with asyncio.timeout(10):
            while True:
                again = await rig.connect()
                again.send(NEXT.replace(b"next", b"nothing"))
                try:
                    assert (await again.answer())[0] == 404
                except (ConnectionError, asyncio.IncompleteReadError):
                    await asyncio.sleep(0.01)
                else:
                    break
