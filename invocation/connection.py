"""One HTTP/1.1 connection to a target: sends a request at a time and collects its answer. The adapter around httptools.

It says how far a request got and what came back; `invocation.transport` decides what that means. Parsing is llhttp's,
strict as it comes: what it does not take is no HTTP. Only the body of a large answer of known length does not pass
through it: the kernel writes it where it stays, which takes half of the CPU time (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import TYPE_CHECKING, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from multidict import CIMultiDict

from invocation.classify import Failure, FailureKind, head_decides

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE_BYTES = 64 * 1024
_MAX_HEAD_BYTES = 64 * 1024
_HOLD_BYTES = 128 * 1024  # of an answer that is read as it comes: more than this waits with the other side
_FINAL = 200  # answers below are interim
_BODILESS = (204, 304)
_NOTHING = memoryview(b"")
RECEIVED_BYTES = 64 * 1024  # at once, of what goes through the parser


class Connection(asyncio.BufferedProtocol):
    """A connection. `gone` is called once, when it has ended.

    `received` is where the event loop puts what came, and may be shared by all of its connections: each takes what
    there is at once.
    """

    def __init__(self, gone: Callable[[Connection], None], received: memoryview) -> None:
        self._gone = gone
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._tls = False
        self._waiter: asyncio.Future[None] | None = None
        self._parser = HttpResponseParser(self)
        self._writing_paused = False
        self._reading_paused = False
        self._spoilt = False  # not to be used again
        self.lost = False
        self.lost_by: Exception | None = None
        self.requests = 0
        self.idle_since = 0.0  # event-loop time
        self._expecting = False
        self._limit: int | None = 0
        self._in_parts = False
        self._new_answer()

    def _new_answer(self) -> None:
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.answering = False  # something of an answer came
        self.complete = False
        self.refused: FailureKind | None = None  # what came cannot be an answer
        self.sent_at: float | None = None  # event-loop time
        self._has_head = False
        self._head: list[tuple[str, str]] = []
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._whole: bytearray | None = None  # the body, where it is received in place
        self._left = _NOTHING  # of that, what is still to come

    # The request

    @property
    def usable(self) -> bool:
        """Tell whether a request may be sent: neither broken nor closed by the other side while it was idle."""
        transport = self._transport
        if self.lost or self._spoilt or self._expecting or transport is None or transport.is_closing():
            return False
        return self.requests == 0 or not _readable(transport)

    async def send(self, head: bytes, body: bytes, *, max_answer_bytes: int, in_parts: bool = False) -> None:
        """Send a request; return once the kernel has taken all of it, or when that is of no use any more.

        `in_parts`: the answer's body may be wanted part by part (`stream`).
        Below TLS is a second buffer that does not report: large bodies are written in pieces so that it holds little,
        and that little counts as sent.
        """
        transport = self._transport
        if transport is None:
            raise AssertionError("not connected")
        self._new_answer()
        self._expecting = True
        self._limit = max_answer_bytes
        self._in_parts = in_parts
        self.requests += 1
        if self._tls and len(body) > _PIECE_BYTES:
            transport.write(head)
            view = memoryview(body)
            for start in range(0, len(body), _PIECE_BYTES):
                transport.write(view[start : start + _PIECE_BYTES])
                if self._writing_paused and not await self._taken():
                    return
        else:
            transport.writelines((head, body))
            if self._writing_paused and not await self._taken():
                return
        if not self.lost:
            self.sent_at = self._loop.time()

    async def _taken(self) -> bool:
        """Wait until the kernel has taken what was written. False: the connection broke or an answer came before."""
        while self._writing_paused and not self.over:
            await self._changed()
        return not self._writing_paused

    # The answer

    @property
    def over(self) -> bool:
        """Tell whether nothing more will come."""
        return self.complete or self.lost or self.refused is not None

    async def whole(self) -> None:
        """Wait until the answer is complete, or nothing more will come."""
        while not self.over:
            await self._changed()

    async def head(self) -> None:
        """Wait for status and headers, or until nothing more will come."""
        while not (self._has_head or self.over):
            await self._changed()

    @property
    def says_enough(self) -> bool:
        """Tell whether what came says by itself that the invocation failed."""
        return self._has_head and head_decides(self.status, self.headers)

    def body(self) -> bytes | bytearray:
        """Return what came of the body, and forget it."""
        if self._whole is not None:
            whole, self._whole = self._whole, None
            return whole
        body = self._body
        self._body = []
        self._body_bytes = 0
        if self._reading_paused and self._transport is not None and not self.lost:
            self._reading_paused = False
            self._transport.resume_reading()
        return body[0] if len(body) == 1 else b"".join(body)

    def stream(self) -> None:
        """From now on take more of the body only as it is read."""
        self._limit = None
        self._hold_back()

    async def more(self) -> bytes:
        """Wait for the next bytes of the body; none when nothing more will come. Cancelled: the next call has them."""
        while not (self._body or self.over):
            await self._changed()
        return bytes(self.body())

    def failure(self) -> Failure:
        """Say why there is no answer."""
        if self.refused is not None:
            return Failure(self.refused)
        if isinstance(self.lost_by, ssl.SSLError) and not self.answering:
            return tls_failure(self.lost_by)  # an alert: the server wants a certificate, say
        if self.sent_at is None:
            return Failure(FailureKind.LOST_BEFORE_SENT)
        return Failure(FailureKind.CUT_SHORT if self._has_head else FailureKind.LOST_AFTER_SENT)

    def release(self) -> bool:
        """End the exchange; tell whether the connection can take another request."""
        self._expecting = False
        self._left = _NOTHING
        return self.complete and self.sent_at is not None and not (self._spoilt or self.lost)

    def abort(self) -> None:
        """End the connection: nothing more leaves this node, not even what the transport holds. Safe twice."""
        self._spoilt = True
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End an idle connection. Safe twice."""
        self._spoilt = True
        if self._transport is not None:
            self._transport.close()

    async def _changed(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _hold_back(self) -> None:
        if self._limit is None and self._body_bytes > _HOLD_BYTES and not self._reading_paused:
            self._reading_paused = True
            if self._transport is not None:
                self._transport.pause_reading()

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Have everything reported that the kernel does not take at once."""
        self._transport = made = cast("asyncio.Transport", transport)  # uvloop's has another parent
        self._tls = made.get_extra_info("sslcontext") is not None
        made.set_write_buffer_limits(high=1, low=0)

    def pause_writing(self) -> None:
        """Note that the kernel has not taken all."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Note that the kernel has taken all."""
        self._writing_paused = False
        self._wake()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # ours are of the size that they are
        """Say where the next bytes go."""
        return self._left or self._received

    def buffer_updated(self, nbytes: int) -> None:
        """Take a part of an answer; what nobody asked for spoils the connection."""
        if self._left:
            self._left = self._left[nbytes:]
            if not self._left:
                self._parser = HttpResponseParser(self)  # the one before still waits for the body
                self._completed()
            return
        if not self._expecting:
            self.abort()
            return
        self.answering = True
        try:
            self._parser.feed_data(self._received[:nbytes])
        except (HttpParserError, HttpParserUpgrade):  # nobody asked for an upgrade
            self._refuse(FailureKind.GARBAGE)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end; without an error it may be the end of an answer as well."""
        self.lost = True
        self.lost_by = exc
        if exc is None and self._has_head and not self.complete and self.refused is None and self._ends_with_it():
            self.complete = True
        self._wake()
        self._gone(self)

    # Called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers are of no use here."""
        if self._has_head:
            return
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _MAX_HEAD_BYTES:
            self._refuse(FailureKind.GARBAGE)
        elif self.refused is None:
            self._head.append((name.decode("latin-1"), value.decode("utf-8", "surrogateescape")))

    def on_headers_complete(self) -> None:
        """Take the head, unless it is an interim one."""
        if self.complete or self.refused is not None:
            return
        status = self._parser.get_status_code()
        if status >= _FINAL:
            self.status = status
            self.headers = CIMultiDict(self._head)
            self._has_head = True
            if not self._parser.should_keep_alive():
                self._spoilt = True
            self._receive_in_place()
            self._wake()
        self._head = []
        self._head_bytes = 0

    def _receive_in_place(self) -> None:
        """Have the event loop put a large body of known length where it stays."""
        length = self.headers.get("Content-Length", "")
        if self._in_parts or self._limit is None or not length.isdecimal() or self.status in _BODILESS:
            return
        # What came together with the head is less than that, so some of it is still to come.
        if len(self._received) < int(length) <= self._limit:
            self._whole = bytearray(int(length))
            self._left = memoryview(self._whole)

    def on_body(self, data: bytes) -> None:
        """Keep a part of the body, but no more than wanted."""
        if self.complete or self.refused is not None:
            return
        if self._left:
            self._left[: len(data)] = data
            self._left = self._left[len(data) :]
            return
        self._body_bytes += len(data)
        if self._limit is not None and self._body_bytes > self._limit:
            self._refuse(FailureKind.TOO_LARGE)
            return
        self._body.append(data)
        if self._limit is None:
            self._hold_back()
            self._wake()

    def on_message_begin(self) -> None:
        """Let a second answer to one request spoil the connection."""
        if self.complete:
            self._spoilt = True

    def on_message_complete(self) -> None:
        """Take the end of the answer, unless of an interim one."""
        if self._has_head and not self.complete and self.refused is None:
            self._completed()

    def _completed(self) -> None:
        self.complete = True
        self._wake()

    def _refuse(self, kind: FailureKind) -> None:
        self._spoilt = True
        if not (self.complete or self.refused is not None):
            self.refused = kind
            self._wake()

    def _ends_with_it(self) -> bool:
        """Tell whether the end of the connection is the end of the answer's body (RFC 9112 section 6.3)."""
        encoding = self.headers.get("Transfer-Encoding")
        if encoding is None:
            return "Content-Length" not in self.headers
        return encoding.rpartition(",")[2].strip().lower() != "chunked"


def tls_failure(exc: ssl.SSLError) -> Failure:
    """Say it in OpenSSL's constant words: never data of a connection."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return Failure(FailureKind.TLS, str(exc.verify_message))
    return Failure(FailureKind.TLS, str(getattr(exc, "reason", None) or ""))  # missing when OpenSSL did not make it


def _readable(transport: asyncio.Transport) -> bool:
    """Tell whether an idle connection has an end of stream, or bytes nobody asked for, waiting in the kernel."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
