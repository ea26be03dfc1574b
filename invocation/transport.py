"""POSTs an event and tells what came back or how far the request got. The adapter around aiohttp's client.

One `Transport` per node holds the connections of all targets. It leaves to others which headers to send
(`invocation.headers`, targets), what an answer means (`invocation.classify`) and whether to call again. An answer that
goes on for minutes is left open for its reader: `OpenAnswer`.

How far a request got decides whether a function may have run, so it must be exact:

- The event is *sent* once the kernel has taken all of it: transports are told to report anything they still hold. Below
  TLS is a second buffer that does not report; large events are written in pieces so that it holds little, and that
  little counts as sent.
- A request that fails is aborted, not closed: closing would go on sending what transports hold.
- A kept connection may have been closed by the server in the meantime. One that is readable before the request is
  written is not used at all. If a kept connection breaks without an answer shortly after the request was written, the
  server most likely closed it without seeing the request; the request is then repeated once, on a new connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self, cast
from weakref import WeakSet

import aiohttp
from aiohttp import payload
from multidict import CIMultiDict

from invocation.classify import Answer, Failure, FailureKind, head_decides
from model.record import MAX_EVENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http import StreamWriter
    from yarl import URL

CONNECT_TIMEOUT_S = 10.0
_KEEP_ALIVE_S = 60.0
_PIECE_BYTES = 64 * 1024
_STALE_S = 1.0  # a kept connection that breaks later than this after the request had been taken by the server
_DEFAULT_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
    "User-Agent": "esmd",
}


_CONNECTING: tuple[tuple[type[Exception], FailureKind], ...] = (
    (aiohttp.ClientConnectorDNSError, FailureKind.UNRESOLVED),
    (aiohttp.ClientConnectorCertificateError, FailureKind.TLS),
    (aiohttp.ClientSSLError, FailureKind.TLS),
    (aiohttp.ConnectionTimeoutError, FailureKind.CONNECT_TIMEOUT),
    (aiohttp.ClientConnectorError, FailureKind.REFUSED),
    (aiohttp.InvalidURL, FailureKind.UNPREPARED),
)
"""What ends a request before anything is written, most special first."""


class _StaleError(Exception):
    """The server closed the connection before anything was written to it."""


class _Event(payload.Payload):
    """An event as a request body that knows how far it got."""

    _autoclose = True
    _headers = CIMultiDict({"Content-Type": "application/json"})

    def __init__(self, event: bytes, used: WeakSet[asyncio.BaseProtocol]) -> None:
        # Not calling the parent: it builds headers and guesses types anew for each request, and warns of large bodies.
        self._event = event
        self._size = len(event)
        self._used = used
        self._transport: asyncio.Transport | None = None
        self.reused = False
        self.stale = False
        self.sent_at: float | None = None  # event-loop time

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._event.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        stream = cast("StreamWriter", writer)
        protocol, transport = stream.protocol, stream.transport
        if transport is None:
            raise _StaleError
        self.reused = protocol in self._used
        if not self.reused:
            self._used.add(protocol)
            transport.set_write_buffer_limits(high=1, low=0)
        elif _readable(transport):
            self.stale = True
            raise _StaleError
        self._transport = transport
        if len(self._event) > _PIECE_BYTES and transport.get_extra_info("sslcontext") is not None:
            view = memoryview(self._event)
            for start in range(0, len(self._event), _PIECE_BYTES):
                await _write(stream, view[start : start + _PIECE_BYTES])
        else:
            await _write(stream, self._event)
        self.sent_at = stream.loop.time()

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        del content_length  # always the whole event
        await self.write(writer)

    def abandon(self) -> None:
        """Make sure that nothing more of the request leaves this node."""
        if self._transport is not None:
            self._transport.abort()


async def _write(stream: StreamWriter, data: bytes | memoryview) -> None:
    """Write and wait until the transport has passed everything on."""
    await stream.write(data, drain=False)
    if stream.protocol.writing_paused:
        await stream.drain()
        if stream.transport is None:  # a connection that closes lets waiting writers go
            raise ConnectionResetError


def _readable(transport: asyncio.Transport) -> bool:
    """Tell whether an idle connection has an end of stream, or bytes nobody asked for, waiting in the kernel."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class OpenAnswer:
    """An answer of status 200 that is read as it comes, over a connection of its own.

    What nobody reads stays with the other side, but for some 128 kB: the connection is not read meanwhile.
    """

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers, looked up whatever their case."""
        return self._response.headers

    async def read(self) -> bytes | Failure:
        """Wait for the next bytes; none at all when the answer is complete. Cancelled: the next call returns them.

        After a `Failure` nothing more comes; what had arrived shortly before may be lost with it.
        """
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as exc:
            return _failure(exc, sent=True, answering=True)

    def close(self) -> None:
        """End the connection, whatever is still to come. Safe twice."""
        self._response.close()


class Transport:
    """The connections of a node to its targets. Use as an async context manager.

    Follows no redirects, keeps no cookies, and uses proxies only when `proxies_from_environment`. The number of
    connections is not limited here: pollers bound what is in flight.
    """

    def __init__(
        self,
        *,
        proxies_from_environment: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        stale_s: float = _STALE_S,
    ) -> None:
        self._proxies = proxies_from_environment
        self._ssl_context = ssl_context
        self._stale_s = stale_s
        self._used: WeakSet[asyncio.BaseProtocol] = WeakSet()
        self._sessions = contextlib.AsyncExitStack()
        self._kept: aiohttp.ClientSession | None = None
        self._single: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._kept = await self._sessions.enter_async_context(self._session(keepalive_timeout=_KEEP_ALIVE_S))
        self._single = await self._sessions.enter_async_context(self._session(force_close=True))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections. Safe to call twice; a later `post` fails as not reached."""
        await self._sessions.aclose()

    def _session(self, **connector: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, ttl_dns_cache=30, ssl=self._ssl_context if self._ssl_context is not None else True, **connector
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_DEFAULT_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            trust_env=self._proxies,
        )

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
        if self._kept is None or self._single is None or self._kept.closed:
            return Failure(FailureKind.UNPREPARED, "connections are closed")
        deadline_at = asyncio.get_running_loop().time() + timeout_s
        came = await self._attempt(self._kept, url, event, headers, deadline_at, max_answer_bytes=max_answer_bytes)
        if came is None:
            came = await self._attempt(
                self._single, url, event, headers, deadline_at, max_answer_bytes=max_answer_bytes
            )
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
        if self._single is None or self._single.closed:
            return Failure(FailureKind.UNPREPARED, "connections are closed")
        response: aiohttp.ClientResponse | None = None
        opened: OpenAnswer | None = None
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._single.post(url, data=body, headers=headers, allow_redirects=False)
                if response.status != HTTPStatus.OK:
                    return await _answer(response, max_answer_bytes)
            opened = OpenAnswer(response)
        except (aiohttp.ClientError, OSError, ValueError) as exc:  # OSError: also every TimeoutError
            return _failure(exc, sent=True, answering=response is not None)
        else:
            return opened
        finally:
            if response is not None and opened is None:
                response.close()

    async def _attempt(
        self,
        session: aiohttp.ClientSession,
        url: URL,
        event: bytes,
        headers: Mapping[str, str],
        deadline_at: float,
        *,
        max_answer_bytes: int,
    ) -> Answer | Failure | None:
        """Send the request over one connection. None: it was a kept one that the server had closed."""
        body = _Event(event, self._used)
        response: aiohttp.ClientResponse | None = None
        try:
            async with asyncio.timeout_at(deadline_at):
                response = await session.post(url, data=body, headers=headers, allow_redirects=False)
                return await _answer(response, max_answer_bytes)
        except (aiohttp.ClientError, OSError, _StaleError, ValueError) as exc:  # OSError: also every TimeoutError
            if response is not None and head_decides(response.status, response.headers):
                return Answer(response.status, response.headers)  # the explanation was cut off, nothing else
            if response is None and self._was_stale(body, exc):
                return None
            return _failure(exc, sent=body.sent_at is not None, answering=response is not None)
        finally:
            if response is None or response.connection is not None:  # else it is back among the kept ones
                body.abandon()
            if response is not None:
                response.close()

    def _was_stale(self, body: _Event, exc: Exception) -> bool:
        """Tell whether a request was given to a connection that the server had already closed."""
        if body.stale:
            return True
        if not body.reused or not isinstance(exc, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            return False
        if isinstance(exc, (aiohttp.ServerTimeoutError, aiohttp.ClientConnectorError)):
            return False
        return body.sent_at is None or asyncio.get_running_loop().time() - body.sent_at < self._stale_s


async def _answer(response: aiohttp.ClientResponse, max_bytes: int) -> Answer | Failure:
    """Read the response, but no more of it than the other side may answer."""
    content = response.content
    chunk = await content.read(max_bytes + 1)
    if content.at_eof():  # nearly always: a small answer arrives with its head
        return Answer(response.status, response.headers, chunk)
    chunks, size = [chunk], len(chunk)
    while size <= max_bytes:
        chunk = await content.read(max_bytes + 1 - size)
        if not chunk and content.at_eof():
            return Answer(response.status, response.headers, b"".join(chunks))
        chunks.append(chunk)
        size += len(chunk)
    if head_decides(response.status, response.headers):
        return Answer(response.status, response.headers)
    return Failure(FailureKind.TOO_LARGE)


def _failure(exc: Exception, *, sent: bool, answering: bool) -> Failure:
    """Translate what aiohttp raised. What rules out that the function ran comes first."""
    for cls, kind in _CONNECTING:
        if isinstance(exc, cls):
            return Failure(kind, _detail(exc))
    if isinstance(exc.__cause__, ssl.SSLError) and not answering:
        return Failure(FailureKind.TLS, _detail(exc.__cause__))  # an alert: the server wants a certificate, say
    if isinstance(exc, TimeoutError):
        kind = FailureKind.TIMEOUT_AFTER_SENT if sent else FailureKind.TIMEOUT_BEFORE_SENT
    elif not sent:
        kind = FailureKind.UNPREPARED if isinstance(exc, ValueError) else FailureKind.LOST_BEFORE_SENT
    elif answering:
        kind = FailureKind.CUT_SHORT
    else:
        kind = FailureKind.GARBAGE if isinstance(exc, aiohttp.ClientResponseError) else FailureKind.LOST_AFTER_SENT
    return Failure(kind)


def _detail(exc: BaseException) -> str:
    """Return the reason in the system's or OpenSSL's constant words: never data of a connection."""
    cause = getattr(exc, "certificate_error", None) or getattr(exc, "os_error", None) or exc
    if isinstance(cause, ssl.SSLCertVerificationError):
        return str(cause.verify_message)
    if isinstance(cause, ssl.SSLError):
        return str(getattr(cause, "reason", None) or "")  # missing when OpenSSL did not make the error
    if isinstance(cause, ConnectionRefusedError) or not isinstance(cause, OSError) or not cause.errno:
        return ""
    return os.strerror(cause.errno) if cause.errno > 0 else ""  # resolvers have negative numbers of their own
