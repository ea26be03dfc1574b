"""POSTs an event and tells what came back or how far the request got.

One `Transport` per node holds the connections of all targets. It leaves to others which headers to send
(`invocation.headers`, targets), what an answer means (`invocation.classify`) and whether to call again. An answer that
goes on for minutes is left open for its reader: `OpenAnswer`.

How far a request got decides whether a function may have run, so it must be exact:

- The event is *sent* once the kernel has taken all of it.
- A request that fails is aborted, not closed: closing would go on sending what transports hold.
- A kept connection may have been closed by the server in the meantime. One that is readable before the request is
  written is not used at all. If a kept connection breaks without an answer shortly after the request was written, the
  server most likely closed it without seeing the request; the request is then repeated once, on a new connection.

That, and the price of a general client's session (a sixth of what a batch of 100 records costs), is why connections are
our own. Names, TLS and parsing are not.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, Self

from invocation.classify import Answer, Failure, FailureKind
from invocation.dialing import CONNECT_TIMEOUT_S, Dialler, Origin
from model.record import MAX_EVENT_BYTES

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from yarl import URL

    from invocation.connection import Connection

_KEEP_ALIVE_S = 60.0
_STALE_S = 1.0  # a kept connection that breaks later than this after the request had been taken by the server
_MAX_ROUTES = 4096  # URLs whose first lines are kept
_DEFAULT_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "User-Agent": "esmd",
}
_DEFAULTS = {name.lower(): f"{name}: {value}" for name, value in _DEFAULT_HEADERS.items()}


class _Route(NamedTuple):
    """Where a URL leads, and how requests to it begin."""

    origin: Origin
    request: str
    host: str


class OpenAnswer:
    """An answer of status 200 that is read as it comes, over a connection of its own.

    What nobody reads stays with the other side, but for some 128 kB: the connection is not read meanwhile.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers, looked up whatever their case."""
        return self._connection.headers

    async def read(self) -> bytes | Failure:
        """Wait for the next bytes; none at all when the answer is complete. Cancelled: the next call returns them."""
        data = await self._connection.more()
        if data or self._connection.complete:
            return data
        return self._connection.failure()

    def close(self) -> None:
        """End the connection, whatever is still to come. Safe twice."""
        self._connection.abort()


class Transport:
    """The connections of a node to its targets. Use as an async context manager.

    Follows no redirects, keeps no cookies and uses no proxies. The number of connections is not limited here: pollers
    bound what is in flight.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        stale_s: float = _STALE_S,
        connect_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self._stale_s = stale_s
        self._closed = True
        self._dialler = Dialler(self._gone, ssl_context, connect_s=connect_s)
        self._routes: dict[URL, _Route] = {}
        self._idle: dict[Origin, list[Connection]] = {}
        self._connections: set[Connection] = set()
        self._ended = asyncio.Event()
        self._sweep: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._closed = False
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. Safe to call twice; a later `post` fails as not reached."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._connections):
            connection.abort()
        while self._connections:
            self._ended.clear()
            await self._ended.wait()

    async def post(
        self,
        url: URL,
        event: bytes,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        max_answer_bytes: int = MAX_EVENT_BYTES,
    ) -> Answer | Failure:
        """Send one request. Raises nothing but CancelledError; a cancelled request sends nothing more."""
        deadline_at = asyncio.get_running_loop().time() + timeout_s
        came = await self._attempt(url, event, headers, deadline_at, max_answer_bytes, kept=True)
        if came is None:
            came = await self._attempt(url, event, headers, deadline_at, max_answer_bytes, kept=False)
        return Failure(FailureKind.LOST_BEFORE_SENT) if came is None else came

    async def open(
        self,
        url: URL,
        body: bytes,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        max_answer_bytes: int = MAX_EVENT_BYTES,
    ) -> OpenAnswer | Answer | Failure:
        """Send one request that changes nothing, and leave an answer of status 200 open; others are read at once.

        `timeout_s` is for what comes before the answer's body. Raises nothing but CancelledError.
        """
        connection: Connection | None = None
        opened: OpenAnswer | None = None
        try:
            async with asyncio.timeout(timeout_s):
                came = await self._connect(url, kept=False)
                if isinstance(came, Failure):
                    return came
                connection = came
                await came.send(self._head(url, body, headers), body, max_answer_bytes=max_answer_bytes, in_parts=True)
                await came.head()
                if came.status == HTTPStatus.OK:
                    came.stream()
                    opened = OpenAnswer(came)
                    return opened
                await came.whole()
                return _came(came)
        except TimeoutError:
            return _late(connection)
        except ValueError:
            return Failure(FailureKind.UNPREPARED)
        finally:
            if connection is not None and opened is None:
                connection.abort()

    async def _attempt(
        self,
        url: URL,
        event: bytes,
        headers: Mapping[str, str],
        deadline_at: float,
        max_answer_bytes: int,
        *,
        kept: bool,
    ) -> Answer | Failure | None:
        """Send the request over one connection. None: it was a kept one that the server had closed."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout_at(deadline_at):
                came = await self._connect(url, kept=kept)
                if isinstance(came, Failure):
                    return came
                connection = came
                await came.send(self._head(url, event, headers), event, max_answer_bytes=max_answer_bytes)
                await came.whole()
                return None if self._was_stale(came) else _came(came)
        except TimeoutError:
            return _late(connection)
        except ValueError:
            return Failure(FailureKind.UNPREPARED)
        finally:
            if connection is not None:
                self._give_back(url, connection)

    async def _connect(self, url: URL, *, kept: bool) -> Connection | Failure:
        """Return a connection that is idle, if it may be, or a new one."""
        if self._closed:
            return Failure(FailureKind.UNPREPARED, "connections are closed")
        origin = self._route(url).origin
        idle = self._idle.get(origin) if kept else None
        while idle:
            last = idle.pop()
            if last.usable:
                return last
            last.abort()
        connection = await self._dialler.dial(origin)
        if isinstance(connection, Failure):
            return connection
        if connection.lost or self._closed:
            connection.abort()
            return Failure(FailureKind.LOST_BEFORE_SENT)
        self._connections.add(connection)
        return connection

    def _give_back(self, url: URL, connection: Connection) -> None:
        """Keep the connection for the next request, or end it where it cannot take one."""
        if not connection.release() or self._closed:
            connection.abort()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        origin = self._route(url).origin
        self._idle.setdefault(origin, []).append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_KEEP_ALIVE_S, self._sweep_idle)

    def _sweep_idle(self) -> None:
        """Close what nobody used for a while."""
        loop = asyncio.get_running_loop()
        since = loop.time() - _KEEP_ALIVE_S
        for origin, idle in list(self._idle.items()):
            for one in idle:
                if one.idle_since <= since:
                    one.close()
            self._idle[origin] = kept = [one for one in idle if not one.lost and one.idle_since > since]
            if not kept:
                del self._idle[origin]
        self._sweep = loop.call_later(_KEEP_ALIVE_S / 2, self._sweep_idle) if self._idle else None

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._ended.set()

    def _was_stale(self, connection: Connection) -> bool:
        """Tell whether a request was given to a connection that the server had already closed."""
        if connection.requests == 1 or connection.answering or not connection.lost:
            return False
        sent_at = connection.sent_at
        return sent_at is None or asyncio.get_running_loop().time() - sent_at < self._stale_s

    def _route(self, url: URL) -> _Route:
        found = self._routes.get(url)
        if found is None:
            if url.host is None or url.port is None:
                raise ValueError("no host")
            origin = Origin(url.host, url.port, url.scheme == "https")
            found = _Route(origin, f"POST {url.raw_path_qs} HTTP/1.1", f"Host: {url.host_port_subcomponent}")
            if len(self._routes) >= _MAX_ROUTES:
                self._routes.clear()
            self._routes[url] = found
        return found

    def _head(self, url: URL, body: bytes, headers: Mapping[str, str]) -> bytes:
        """Return a request's head. Raises ValueError for what would be a header more, or none."""
        route = self._route(url)
        given = {name.lower() for name in headers}
        lines = [route.request, f"Content-Length: {len(body)}"]
        if "host" not in given:
            lines.append(route.host)
        lines += [line for name, line in _DEFAULTS.items() if name not in given]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        text = "\r\n".join(lines)
        breaks = len(lines) - 1
        if text.count("\r") != breaks or text.count("\n") != breaks or "\0" in text:
            raise ValueError("control characters")
        return f"{text}\r\n\r\n".encode()


def _came(connection: Connection) -> Answer | Failure:
    """Say what came of a request when nothing more will come."""
    if connection.complete:
        return Answer(connection.status, connection.headers, connection.body())
    if connection.says_enough:
        return Answer(connection.status, connection.headers)  # the explanation was cut off, nothing else
    return connection.failure()


def _late(connection: Connection | None) -> Answer | Failure:
    """Say what came of a request that was out of time."""
    if connection is not None and connection.says_enough:
        return Answer(connection.status, connection.headers)
    sent = connection is not None and connection.sent_at is not None
    return Failure(FailureKind.TIMEOUT_AFTER_SENT if sent else FailureKind.TIMEOUT_BEFORE_SENT)
