"""A way to a server that can be held up: what is sent meanwhile arrives later, whatever has become of its sender."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Relay:
    """Passes bytes on to a port of this machine, both ways; while held, only those of the server."""

    def __init__(self, port: int, sought: bytes) -> None:
        """`sought`: what a request that is waited for has in it."""
        self._port = port
        self._sought = sought
        self._open = asyncio.Event()
        self._open.set()
        self.caught = asyncio.Event()
        """Such a request was held up."""
        self.answered = asyncio.Event()
        """And the server has answered it."""

    def hold(self) -> None:
        """Pass on nothing that is sent from now on."""
        self._open.clear()

    def release(self) -> None:
        """Pass it all on."""
        self._open.set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Serve on a free port, which is given."""
        async with asyncio.TaskGroup() as tasks:

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                connections.append(tasks.create_task(self._pass(reader, writer)))

            connections: list[asyncio.Task[None]] = []
            server = await asyncio.start_server(connected, "127.0.0.1", 0)
            try:
                port: int = server.sockets[0].getsockname()[1]
                yield port
            finally:
                server.close()
                for connection in connections:
                    connection.cancel()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        awaited = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._answer(from_server, writer, awaited))
                with suppress(ConnectionError):
                    while data := await reader.read(65536):
                        if not self._open.is_set() and self._sought in data:
                            self.caught.set()
                            awaited.set()
                        await self._open.wait()
                        to_server.write(data)
                to_server.write_eof()
        finally:
            to_server.transport.abort()
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, awaited: asyncio.Event) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if awaited.is_set() and self._open.is_set():
                    self.answered.set()
                if not writer.is_closing():  # who was given up on may have gone
                    writer.write(data)
