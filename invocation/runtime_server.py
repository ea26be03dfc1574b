"""The Runtime API of one sandbox over HTTP, on a listener that the sandbox's keeper has made.

A protocol of our own on llhttp's parser: between two events a runtime does nothing, so what a general server costs is
taken from the function, twice for each event. Whoever is at the other end may be hostile: what he sends is bounded.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import httptools

from invocation.runtime_api import MAX_RESPONSE_BYTES, unknown_path
from invocation.sandbox_users import user_of_connection

if TYPE_CHECKING:
    import socket

    from invocation.runtime_api import Reply, RuntimeApi

_PREFIX = "/2018-06-01/runtime/"
_MAX_CONNECTIONS = 16
"""A runtime uses one or two. More are refused, so that a sandbox cannot use up the node's descriptors."""
_MAX_HEAD_BYTES = 64 * 1024
_TOGETHER_BYTES = 64 * 1024  # smaller answers go out in one piece
_ENDS_LINE = str.maketrans("\r\n", "  ")


class RuntimeServer:
    """Serves one `RuntimeApi`. With `user`, only processes of that user are answered."""

    def __init__(self, api: RuntimeApi, *, user: int | None) -> None:
        self.api = api
        self.user = user
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve on the listener, which is this object's from now on."""
        self._server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), sock=listener)

    async def stop(self) -> None:
        """Close everything. Safe to call twice."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.connections):
            connection.abort()


class _Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next request. Pipelining, which no runtime does, ends it."""

    def __init__(self, server: RuntimeServer) -> None:
        self._server = server
        self._api = server.api
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting = False  # the answer to a request is still to come
        self._keep = True
        self._complete = False
        self._begin()

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the connection in, or end it at once: a stranger's, or one too many of the sandbox's own."""
        connection = cast("asyncio.Transport", transport)  # uvloop's has the methods, and another base
        user = self._server.user
        ends = connection.get_extra_info("peername"), connection.get_extra_info("sockname")
        stranger = user is not None and user_of_connection(*ends) != user
        if stranger or len(self._server.connections) >= _MAX_CONNECTIONS:
            connection.abort()
            return
        self._transport = connection
        self._server.connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Forget the connection, and what was under way on it."""
        self._server.connections.discard(self)
        self._transport = None
        self._api.gone(self._reply)
        if self._in_body:
            request_id, what = _answered(self._call)
            if what == "response":
                self._api.cut_short(request_id, self._headers)

    def data_received(self, data: bytes) -> None:
        """Take bytes as they come: a request in pieces, or one and a half."""
        if self._waiting:
            self.abort()
            return
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.abort()
        if self._transport is None or self._transport.is_closing():
            return
        if self._complete:
            self._handle()
        elif self._head_bytes > _MAX_HEAD_BYTES:
            self.abort()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    # What the parser finds

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._method = ""
        self._call: str | None = None
        self._body = bytearray()
        self._size = 0
        self._head_bytes = 0  # since the last byte of a body: of a head, of trailers and of what else is no body
        self._in_body = False

    def on_message_begin(self) -> None:
        """Notice a second request before the answer to the first."""
        if self._complete:
            self.abort()

    def on_url(self, url: bytes) -> None:
        """Take the target, or a part of it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers say nothing here."""
        if not self._in_body:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Let the client go on with the body."""
        self._in_body = True
        self._method = self._parser.get_method().decode()
        path = self._url.decode("latin-1").partition("?")[0]
        self._call = path.removeprefix(_PREFIX) if path.startswith(_PREFIX) else None
        if self._transport is not None and self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        """Take a part of the body. All of it is read, since a client that sends does not listen."""
        self._head_bytes = 0
        self._size += len(part)
        if self._size <= MAX_RESPONSE_BYTES:
            self._body += part
        else:
            self._body.clear()

    def on_message_complete(self) -> None:
        """Have the request handled when the parser is done with what came."""
        self._complete = True
        self._in_body = False
        self._keep = self._parser.should_keep_alive()

    # Answering

    def _handle(self) -> None:
        call, method, headers = self._call, self._method, self._headers
        body = bytes(self._body) if self._size <= MAX_RESPONSE_BYTES else None
        self._complete, self._waiting = False, True
        self._begin()
        if (method, call) == ("GET", "invocation/next"):
            self._api.ask(self._reply)
        elif (method, call) == ("POST", "init/error"):
            self._reply(self._api.not_initialised(headers, body))
        else:
            request_id, what = _answered(call if method == "POST" else None)
            if what == "response":
                self._reply(self._api.responded(request_id, headers, body))
            elif what == "error":
                self._reply(self._api.erred(request_id, headers, body))
            else:
                self._reply(unknown_path())

    def _reply(self, reply: Reply) -> None:
        self._waiting = False
        if self._transport is None:
            return
        head = [
            f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}",
            "Content-Type: application/json",
            f"Content-Length: {len(reply.body)}",
            *(f"{name}: {value.translate(_ENDS_LINE)}" for name, value in reply.headers.items()),
        ]
        if not self._keep:
            head.append("Connection: close")
        first = ("\r\n".join(head) + "\r\n\r\n").encode()
        if len(reply.body) <= _TOGETHER_BYTES:
            self._transport.write(first + reply.body)
        else:
            self._transport.writelines([first, reply.body])
        if not self._keep:
            self._transport.close()


def _answered(call: str | None) -> tuple[str, str]:
    """Return the id of the invocation that a call is about, and what it says: `response` or `error`; else nothing."""
    subject, _, rest = (call or "").partition("/")
    request_id, _, what = rest.partition("/")
    return (request_id, what) if subject == "invocation" and what in ("response", "error") else ("", "")
