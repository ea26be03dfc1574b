"""Connections of the HTTP surface: how long the head of a request may take, and what becomes of what is no HTTP.

aiohttp waits for a first request for as long as it trickles in, answers what it cannot read with its own version, and
writes a traceback of it into the log, so anybody who can connect could keep connections for ever and fill logs.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import hdrs, web
from aiohttp.http import HttpProcessingError

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Mapping

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

HEAD_LIMIT_S = 20.0
"""From a new connection to the end of its first request's head. Later ones have the time a connection may idle."""

_SERVICE = 500


class Connection(web.RequestHandler):
    """One connection. `headers` go with answers to what is no request that an application could answer."""

    def __init__(
        self, manager: web.Server, *, head_limit_s: float, headers: Mapping[str, str], **settings: Any
    ) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), **settings)
        self._head_limit_s = head_limit_s
        self._headers = headers
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._late = asyncio.get_running_loop().call_later(self._head_limit_s, self._give_up)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait for nothing any more."""
        self.began()
        super().connection_lost(exc)

    def began(self) -> None:
        """Learn that the head of a request is here."""
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        log.debug("http.head_late", limit_s=self._head_limit_s)
        if self.transport is not None:
            self.transport.abort()
        self.force_close()

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log what is wrong here, and not what is wrong with what came."""
        exc = kw.get("exc_info")
        if isinstance(exc, (web.RequestPayloadError, HttpProcessingError)):
            log.debug("http.malformed", why=str(exc).partition("\n")[0])
        else:
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = _SERVICE,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request as everything is answered. That is the other side's affair, and nobody's here."""
        self.began()
        if status >= _SERVICE:
            log.error("http.failed", exc_info=exc)
        else:
            log.debug("http.malformed", address=request.remote, status=status)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        why = "internal error; the node's log has it" if status >= _SERVICE else (message or "").partition("\n")[0]
        answer = web.json_response({"message": why or "not a request"}, status=status)
        answer.headers.update({hdrs.SERVER: "esmd", **self._headers})
        answer.force_close()
        return answer


class Site(web.BaseSite):
    """An address that is listened on, with connections made by `make`. `listener` listens there already, if given."""

    def __init__(
        self,
        runner: web.BaseRunner,
        make: Callable[[], Connection],
        host: str,
        port: int,
        *,
        listener: socket.socket | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(runner, ssl_context=tls)
        self._make = make
        self._where = (host, port)
        self._listener = listener

    @property
    def name(self) -> str:
        """The address as a URL."""
        host, port = self._where
        return f"{'http' if self._ssl_context is None else 'https'}://{host}:{port}"

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await super().start()
        loop, tls, backlog = asyncio.get_running_loop(), self._ssl_context, self._backlog
        if self._listener is None:
            self._server = await loop.create_server(self._make, *self._where, ssl=tls, backlog=backlog)
        else:
            self._server = await loop.create_server(self._make, sock=self._listener, ssl=tls, backlog=backlog)
