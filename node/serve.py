"""The HTTP surface of a node: probes, metrics, status, and room for the API and the console.

It presents what others know (`node.health`, `node.telemetry`, `controlplane.status`); who may ask is `node.guard`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Sequence  # noqa: TC003 - a field of a struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import structlog
from aiohttp import hdrs, web

from model.errors import RefusedError, UnavailableError
from model.record import MAX_EVENT_BYTES
from node.connections import HEAD_LIMIT_S, Connection, Site
from node.guard import Credentials, audit, guard, refusal
from node.options import ListenAddress

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping

    from aiohttp.typedefs import Handler, Middleware

    from controlplane.status import Status
    from node.health import Readiness
    from node.rate_limits import RateLimits
    from node.telemetry import Exposition

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

STATUS_LIMIT_S = 10.0
STOP_LIMIT_S = 2.0
_HEADER_BYTES = 8190
_FIRST_ERROR = 400

HEADERS = {
    hdrs.CACHE_CONTROL: "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Sent unless a handler set its own."""


class Liveness(msgspec.Struct, frozen=True):
    """The answer of `/healthz`."""

    status: str


class ReadyAnswer(msgspec.Struct, frozen=True):
    """The answer of `/readyz`."""

    ready: bool
    reasons: Sequence[str]


class CannotListenError(RefusedError):
    """The address to listen on is taken, not ours, or not allowed."""


@dataclass(frozen=True, slots=True)
class Surface:
    """What the node shows. The functions answer from memory, `status` reads the store."""

    alive: Callable[[], bool]
    ready: Callable[[], Readiness]
    metrics: Callable[[str], Exposition]  # given the Accept header
    status: Callable[[], Awaitable[Status]]
    credentials: Sequence[Credentials] = ()
    before: Sequence[Middleware] = ()  # what sees requests before anybody asks who is calling
    apps: Mapping[str, web.Application] = field(default_factory=dict)  # by path prefix, such as /console
    routes: Sequence[web.AbstractRouteDef] = ()  # with paths of their own, such as the Lambda API's
    public: Collection[str] = ()  # paths that may be loaded without credentials
    limits: RateLimits | None = None  # None: everybody may ask as often as he likes


def application(surface: Surface) -> web.Application:
    """Build the application."""
    limits = surface.limits
    let_in = guard(surface.credentials, public=surface.public, logins=limits)
    limited = () if limits is None else (limits.middleware(),)
    app = web.Application(
        middlewares=[_errors, *surface.before, let_in, *limited, audit],
        client_max_size=MAX_EVENT_BYTES,
    )
    status = _Shared(surface.status)

    async def healthz(_request: web.Request) -> web.Response:
        alive = surface.alive()
        return _json(Liveness("ok" if alive else "the event loop was stuck"), 200 if alive else 503)

    async def readyz(_request: web.Request) -> web.Response:
        readiness = surface.ready()
        return _json(ReadyAnswer(readiness.ready, readiness.reasons), 200 if readiness.ready else 503)

    async def metrics(request: web.Request) -> web.Response:
        exposition = surface.metrics(request.headers.get(hdrs.ACCEPT, ""))
        response = web.Response(body=exposition.body, headers={hdrs.CONTENT_TYPE: exposition.content_type})
        response.enable_compression()
        return response

    async def fleet_status(_request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(STATUS_LIMIT_S):
                return _json(await status.get(), 200)
        except TimeoutError:
            return refusal(503, f"the store did not answer within {STATUS_LIMIT_S:g} s")

    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics),
            web.get("/esmd/v1/status", fleet_status),
            *surface.routes,
        ]
    )
    for prefix, sub_app in surface.apps.items():
        app.add_subapp(prefix, sub_app)
    app.on_response_prepare.append(_add_headers)
    return app


@contextlib.asynccontextmanager
async def serving(
    app: web.Application,
    listen: ListenAddress,
    tls: ssl.SSLContext | None = None,
    *,
    listener: socket.socket | None = None,
    head_limit_s: float = HEAD_LIMIT_S,
) -> AsyncIterator[ListenAddress]:
    """Serve while the body runs; yield the address, with the port that was free if any was asked for.

    `listener` listens there already, if given. A connection whose first request has not come with all its headers
    within `head_limit_s` is closed.

    Raises `CannotListenError`.
    """
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=STOP_LIMIT_S)
    await runner.setup()
    server = runner.server
    if server is None:
        raise RuntimeError("a runner that is set up has a server")

    def connection() -> Connection:
        return Connection(
            server,
            head_limit_s=head_limit_s,
            headers=HEADERS,
            access_log=None,
            keepalive_timeout=75.0,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
        )

    try:
        try:
            await Site(runner, connection, listen.host, listen.port, listener=listener, tls=tls).start()
        except OSError as error:
            why = "another process does" if error.errno == errno.EADDRINUSE else error.strerror
            raise CannotListenError(
                f"cannot listen on {listen}: {why}. Choose another address with --listen."
            ) from error
        address = ListenAddress(listen.host, int(runner.addresses[0][1]))
        log.info("http.listening", address=str(address), tls=tls is not None)
        yield address
    finally:
        await runner.cleanup()


class _Shared:
    """One reading of the status for everybody who asked before it began, so that many callers cost no more than one."""

    def __init__(self, read: Callable[[], Awaitable[Status]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._begun = 0
        self._last: tuple[int, Status] | None = None

    async def get(self) -> Status:
        """Return a status read after this call."""
        earliest = self._begun + 1
        async with self._lock:
            if self._last is None or self._last[0] < earliest:
                self._begun += 1
                self._last = (self._begun, await self._read())
            return self._last[1]


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with JSON, and never with the inside of one."""
    if isinstance(request.protocol, Connection):
        request.protocol.began()
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < _FIRST_ERROR:
            raise
        answer = refusal(error.status, error.reason)
        if hdrs.ALLOW in error.headers:
            answer.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        if isinstance(error, web.HTTPRequestTimeout):
            answer.force_close()  # what is still to come of the body is no request
        return answer
    except UnavailableError as error:
        return refusal(503, str(error))
    except Exception:  # a supervision point: one request must not take the node down
        log.exception("http.failed", path=request.path)
        return refusal(500, "internal error; the node's log has it")


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = "esmd"  # aiohttp would tell its version and Python's
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def _json(value: object, status: int) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
