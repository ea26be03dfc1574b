"""The Runtime API of one sandbox over HTTP, on a listener that the sandbox's keeper has made."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from aiohttp import ClientPayloadError, hdrs, web

from invocation.runtime_api import MAX_RESPONSE_BYTES, unknown_path
from invocation.sandbox_users import user_of_connection

if TYPE_CHECKING:
    import socket

    from invocation.runtime_api import Reply, RuntimeApi

_PREFIX = "/2018-06-01/runtime/"
_MAX_CONNECTIONS = 16
"""A runtime uses one or two. More are refused, so that a sandbox cannot use up the node's descriptors."""
_KEEPALIVE_S = 3600.0
_STOP_S = 0.1


class RuntimeServer:
    """Serves one `RuntimeApi`. With `user`, only processes of that user are answered."""

    def __init__(self, api: RuntimeApi, *, user: int | None) -> None:
        self._api = api
        self._user = user
        self._http = web.Server(self._handle, access_log=None, keepalive_timeout=_KEEPALIVE_S, tcp_keepalive=False)
        self._server: asyncio.Server | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve on the listener, which is this object's from now on."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Gate(self._http, self._user), sock=listener)

    async def stop(self) -> None:
        """Close everything. Safe to call twice."""
        if self._server is not None:
            self._server.close()
            self._server = None
            await self._http.shutdown(_STOP_S)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        method, path = request.method, request.path
        if not path.startswith(_PREFIX):
            return _response(unknown_path())
        call = path.removeprefix(_PREFIX)
        if (method, call) == (hdrs.METH_GET, "invocation/next"):
            return _response(await self._api.next())
        if (method, call) == (hdrs.METH_POST, "init/error"):
            return _response(self._api.not_initialised(request.headers, await _read(request)))
        return _response(await self._answer(request, call))

    async def _answer(self, request: web.BaseRequest, call: str) -> Reply:
        """Take what is said about an invocation."""
        subject, _, rest = call.partition("/")
        request_id, _, what = rest.partition("/")
        if (request.method, subject) != (hdrs.METH_POST, "invocation") or what not in ("response", "error"):
            return unknown_path()
        if refusal := self._api.refuses(request_id, request.headers):
            await _read(request)
            return refusal
        try:
            body = await _read(request)
        except ClientPayloadError:
            self._api.cut_short(request_id, request.headers)
            raise
        take = self._api.responded if what == "response" else self._api.erred
        return take(request_id, request.headers, body)


class _Gate(asyncio.Protocol):
    """Lets a connection in, or ends it at once: a stranger's, or one too many of the sandbox's own."""

    def __init__(self, http: web.Server, user: int | None) -> None:
        self._http = http
        self._user = user

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Look at who is there."""
        connection = cast("asyncio.Transport", transport)  # uvloop's has the methods, and another base
        ends = connection.get_extra_info("peername"), connection.get_extra_info("sockname")
        stranger = self._user is not None and user_of_connection(*ends) != self._user
        if stranger or len(self._http.connections) >= _MAX_CONNECTIONS:
            connection.abort()
            return
        handler = self._http()
        connection.set_protocol(handler)
        handler.connection_made(connection)


async def _read(request: web.BaseRequest) -> bytes | None:
    """Return a body, or None if it is too large. All of it is read, since a client that sends does not listen."""
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        size += len(part)
        if size <= MAX_RESPONSE_BYTES:
            parts.append(part)
        else:
            parts.clear()
    return b"".join(parts) if size <= MAX_RESPONSE_BYTES else None


def _response(reply: Reply) -> web.Response:
    response = web.Response(body=reply.body, status=reply.status, headers=reply.headers)
    response.headers[hdrs.CONTENT_TYPE] = "application/json"
    return response
