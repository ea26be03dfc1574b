"""The console over HTTP: its page, which anybody may load, and the stream of what it shows, which is guarded.

The page holds nothing worth protecting. It asks for a token when the node wants one, keeps it in the tab's own storage
and sends it as a header with every request, so there is no cookie that another site's page could make a browser send.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import hdrs, web

from node.console_feed import TooManyFollowersError, encoded
from node.guard import MAY_CHANGE, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from node.console_feed import Feed

PAGE = "/console"
EVENTS = "/esmd/v1/events"
STALLED_S = 15.0
"""A client that takes longer for one document is let go."""

AGAIN_S = 15 * 60.0
"""A stream ends after so long and its client asks anew, so that a token taken back does not see for ever."""

_FOLDER = Path(__file__).parent / "console"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_RETRY_S = "5"

_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
"""Nothing but this node's own files and answers, no inline code, nothing that takes text for markup."""

HEADERS = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def page_files() -> dict[str, Path]:
    """Return the files of the page by their paths. Nothing else of the file system is ever served."""
    files = {f"{PAGE}/{file.name}": file for file in sorted(_FOLDER.iterdir()) if file.suffix in _TYPES}
    index = files.pop(f"{PAGE}/index.html")
    return {PAGE: index, f"{PAGE}/": index, **files}


def page_types() -> dict[str, str]:
    """Return what the files of the page are, by their paths."""
    return {path: _TYPES[file.suffix] for path, file in page_files().items()}


class ConsoleApi:
    """The handlers."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._files = page_files()

    @property
    def public_paths(self) -> frozenset[str]:
        """What may be loaded without credentials, and by a link from anywhere."""
        return frozenset(self._files)

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes, for `node.serve.Surface`."""
        return [*(web.get(path, _serve(file)) for path, file in self._files.items()), web.get(EVENTS, self._events)]

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Send documents for as long as the client takes them and the node works."""
        try:
            with self._feed.following() as events:
                return await _send(request, events)
        except TooManyFollowersError as error:
            answer = refusal(503, str(error))
            answer.headers[hdrs.RETRY_AFTER] = _RETRY_S
            return answer


async def _send(request: web.Request, events: AsyncIterator[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
    )
    now = asyncio.get_running_loop().time
    until, limit_s = now() + AGAIN_S, STALLED_S

    async def say(event: bytes) -> None:
        async with asyncio.timeout(limit_s):
            await response.write(event)

    try:
        await response.prepare(request)
        await say(encoded("you", {"may_change": request.get(MAY_CHANGE, True)}))
        async for event in events:
            await say(event)
            if now() > until:
                await say(encoded("again", {}))
                break
    except (ConnectionError, TimeoutError):
        _drop(request)  # the client has gone, or does not read
    return response


def _drop(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _serve(file: Path) -> Callable[[web.Request], Awaitable[web.Response]]:
    body, kind = file.read_bytes(), _TYPES[file.suffix]

    async def handler(_request: web.Request) -> web.Response:
        answer = web.Response(body=body, content_type=kind, charset="utf-8", headers=HEADERS)
        answer.enable_compression()
        return answer

    return handler
