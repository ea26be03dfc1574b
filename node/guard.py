"""Who may talk to the HTTP surface.

Without configured credentials only programs of this machine may: the surface listens on loopback, and requests that a
web page elsewhere makes a local browser send are refused by their Host and Origin headers. With credentials every
request but the two probes must present one.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from node.options import is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.typedefs import Handler, Middleware

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""For orchestrators, which carry no credentials; they tell nothing worth protecting."""


class Credentials(Protocol):
    """One way to prove who is calling."""

    async def accept(self, request: web.Request) -> bool:
        """Whether the request proves itself in this way."""


class BearerTokens:
    """`Authorization: Bearer TOKEN` with one of the configured tokens."""

    def __init__(self, tokens: Sequence[str]) -> None:
        if not all(tokens):
            raise ValueError("an empty token would let everybody in")
        self._digests = [_digest(token) for token in tokens]

    async def accept(self, request: web.Request) -> bool:
        """Compare with every token, in a time that tells nothing about any of them."""
        scheme, _, presented = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        digest = _digest(presented.strip())
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return scheme.lower() == "bearer" and any(matches)


def guard(credentials: Sequence[Credentials]) -> Middleware:
    """Return the middleware that lets through only who may. No credentials: loopback only."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not credentials:
            if not _addressed_as_loopback(request):
                return refusal(403, "this node is reached as 127.0.0.1, ::1 or localhost only; for others set `auth`")
        elif request.path not in OPEN_PATHS:
            for one in credentials:
                if await one.accept(request):
                    break
            else:
                answer = refusal(401, "this node wants a token: Authorization: Bearer … (esmd reads ESMD_TOKEN)")
                answer.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="esmd"'
                return answer
        if not _same_origin(request):
            return refusal(403, "requests from other web sites are refused")
        return await handler(request)

    return middleware


def refusal(status: int, message: str) -> web.Response:
    """Return an error as the JSON document every path of the surface answers errors with."""
    return web.json_response({"message": message}, status=status)


def _addressed_as_loopback(request: web.Request) -> bool:
    """Whether the Host header names this machine: a name that a DNS server made point here does not."""
    host = _hostname(f"//{request.headers.get(hdrs.HOST, '')}")
    return host is not None and is_loopback(host)


def _same_origin(request: web.Request) -> bool:
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None:
        return request.headers.get("Sec-Fetch-Site", "none") not in {"cross-site", "same-site"}
    try:
        return urlsplit(origin).netloc.lower() == request.headers.get(hdrs.HOST, "").lower() != ""
    except ValueError:
        return False


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
