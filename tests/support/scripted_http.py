"""An HTTP server that misbehaves to order: one behaviour per request, and a record of what arrived.

    async with ScriptedServer() as server:
        server.then(answer(429, headers={"Retry-After": "3"}), hang(), reset())
        ...
        assert server.requests[0].headers["x-esmd-attempt"] == "1"

Requests beyond the script get the default behaviour. A behaviour decides itself how much of the request it reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping


@dataclass
class Received:
    """A request as far as it was read."""

    connection: int  # 1 for the server's first connection
    method: str = ""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""
    complete: bool = False


@dataclass
class Exchange:
    """One request on one connection, for a behaviour to play with."""

    server: ScriptedServer
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: Received
    first: bytes  # already read: with it the request began

    async def read_head(self) -> None:
        """Read up to the empty line. Raises `IncompleteReadError` when the client has gone."""
        head = (self.first + await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        self.request.method, self.request.path, _ = first.split(" ", 2)
        for line in lines:
            name, _, value = line.partition(":")
            self.request.headers[name.lower()] = value.strip()

    async def read_body(self) -> None:
        """Read the body and record the request as complete."""
        self.request.body = await self.reader.readexactly(int(self.request.headers.get("content-length", "0")))
        self.request.complete = True
        self.server.note()

    async def read(self) -> None:
        """Read the whole request."""
        await self.read_head()
        await self.read_body()

    async def write(self, data: bytes) -> None:
        """Write raw bytes."""
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        """Close the connection in the regular way."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


Behaviour = Callable[[Exchange], Awaitable[None]]


def response(status: int = 200, body: bytes = b"null", headers: Mapping[str, str] | None = None) -> bytes:
    """Build a complete response with Content-Length."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Odd"
    lines = [f"HTTP/1.1 {status} {phrase}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answer(
    status: int = 200, body: bytes = b"null", *, headers: Mapping[str, str] | None = None, close: bool = False
) -> Behaviour:
    """Read the request and answer. `close`: close the connection afterwards without having said so."""

    async def behave(exchange: Exchange) -> None:
        await exchange.read()
        await exchange.write(response(status, body, headers))
        if close:
            await exchange.close()

    return behave


def answer_when(event: asyncio.Event, status: int = 200, body: bytes = b"null") -> Behaviour:
    """Read the request and answer once the event is set."""

    async def behave(exchange: Exchange) -> None:
        await exchange.read()
        await event.wait()
        await exchange.write(response(status, body))

    return behave


def hang(*, read: bool = True) -> Behaviour:
    """Never answer; with `read=False` not even take the request from the socket."""

    async def behave(exchange: Exchange) -> None:
        if read:
            await exchange.read()
        await exchange.server.stopping.wait()

    return behave


def reset(*, after: int | None = None) -> Behaviour:
    """Reset the connection after the request, or after `after` bytes of its body."""

    async def behave(exchange: Exchange) -> None:
        await exchange.read_head()
        if after is None:
            await exchange.read_body()
        else:
            exchange.request.body = await exchange.reader.readexactly(after)
        exchange.reset()

    return behave


def close_silently() -> Behaviour:
    """Read the request and close the connection without an answer."""

    async def behave(exchange: Exchange) -> None:
        await exchange.read()
        await exchange.close()

    return behave


def say(data: bytes, *, then_reset: bool = False, then_hang: bool = False) -> Behaviour:
    """Read the request and send raw bytes: garbage, or half an answer; then close the connection."""

    async def behave(exchange: Exchange) -> None:
        await exchange.read()
        await exchange.write(data)
        if then_hang:
            await exchange.server.stopping.wait()
        elif then_reset:
            exchange.reset()
        else:
            await exchange.close()

    return behave


def piecemeal(data: bytes, pieces: int) -> Behaviour:
    """Read the request and send raw bytes in pieces, each a segment of its own."""

    async def behave(exchange: Exchange) -> None:
        await exchange.read()
        step = max(1, len(data) // pieces)
        for start in range(0, len(data), step):
            await exchange.write(data[start : start + step])
            for _ in range(3):  # rounds of the event loop: the client sees each piece alone
                await asyncio.sleep(0)

    return behave


def answer_early(status: int, body: bytes = b"") -> Behaviour:
    """Answer as soon as the head was read, and take the rest of what comes without caring."""

    async def behave(exchange: Exchange) -> None:
        await exchange.read_head()
        await exchange.write(response(status, body))
        while await exchange.reader.read(2**16):
            pass

    return behave


class ScriptedServer:
    """The server. Use as an async context manager; leaving it ends every connection."""

    def __init__(self, default: Behaviour | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.default = default or answer()
        self.requests: list[Received] = []
        self.connections = 0
        self.stopping = asyncio.Event()
        self._script: deque[Behaviour] = deque()
        self._tls = tls
        self._noted = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def complete(self) -> list[Received]:
        """The requests that were read to their end."""
        return [request for request in self.requests if request.complete]

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._writers)

    def then(self, *behaviours: Behaviour) -> None:
        """Put behaviours at the end of the script."""
        self._script.extend(behaviours)

    def note(self) -> None:
        """Wake whoever waits for requests."""
        self._noted.set()

    async def received(self, count: int) -> None:
        """Wait until `count` requests were read to their end."""
        while len(self.complete) < count:
            self._noted.clear()
            await self._noted.wait()

    def shut_sending(self) -> None:
        """Send an end of stream on every open connection, at once: what an idle connection's closing looks like."""
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            with socket.socket(fileno=os.dup(sock.fileno())) as duplicate:
                duplicate.shutdown(socket.SHUT_WR)

    async def __aenter__(self) -> Self:
        # A small receive buffer: a large body does not disappear into the kernel while a behaviour does not read.
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        sock.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._serve, sock=sock, ssl=self._tls, limit=2**16, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self.stopping.set()
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        while self._writers:
            self._noted.clear()
            await self._noted.wait()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        number = self.connections
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while not self.stopping.is_set() and (first := await reader.read(1)):
                    exchange = Exchange(self, reader, writer, Received(number), first)
                    self.requests.append(exchange.request)
                    await (self._script.popleft() if self._script else self.default)(exchange)
                    if writer.is_closing():
                        break
        finally:
            writer.close()
            self._writers.discard(writer)
            self._noted.set()


def free_port() -> int:
    """Return a port of the loopback interface to listen at later. Another process may take it before."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
