"""Who may talk to the HTTP surface.

Without configured credentials only programs of this machine may: the surface listens on loopback, and requests that a
web page elsewhere makes a local browser send are refused by their Host and Origin headers. With credentials every
request but the two probes must present one. Paths that are public (the console's page, without what it shows) may be
loaded by anybody who may talk to the node at all, also by following a link on another site.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import structlog
from aiohttp import hdrs, web

from node.options import is_loopback
from node.signature import MISSING, Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aiohttp.typedefs import Handler, Middleware

    from node.credentials import Caller

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""For orchestrators, which carry no credentials; they tell nothing worth protecting."""

_FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})

CALLER: web.RequestKey[str] = web.RequestKey("caller", str)
"""Who has proved himself, for logs."""

MAY_CHANGE: web.RequestKey[bool] = web.RequestKey("may_change", bool)
"""Whether he may do more than read. Not there where nobody has to prove himself: then everybody may."""

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_INVOKING = re.compile(
    r"/functions/|/esmd/v1/environments/|/\d{4}-\d\d-\d\d/functions/[^/]+/invo"
)  # what calls a function changes nothing of ours
_STATUSES = {"RequestTooLargeException": 413, "TooManyRequestsException": 429}
_FORBIDDEN = 403


class Credentials(Protocol):
    """One way to prove who is calling."""

    def claimed(self, request: web.Request) -> bool:
        """Whether the request tries to prove itself in this way."""

    async def caller(self, request: web.Request) -> Caller | Refusal | None:
        """Return who it is from; None, or why, when that is not proved."""


def guard(credentials: Sequence[Credentials], *, public: Collection[str] = ()) -> Middleware:
    """Return the middleware that lets through only who may. No credentials: loopback only."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        open_page = request.path in public and request.method in _READING
        if not credentials:
            if not _addressed_as_loopback(request):
                return refusal(403, "this node is reached as 127.0.0.1, ::1 or localhost only; for others set `auth`")
        elif not (open_page or request.path in OPEN_PATHS):
            refused = await _refused(credentials, request)
            if refused is not None:
                return refused
        if not open_page and not _same_origin(request):
            return refusal(403, "requests from other web sites are refused")
        if not credentials and _from_a_form(request):
            return refusal(415, "forms of web pages are refused: send Content-Type: application/json")
        return await handler(request)

    return middleware


async def _refused(credentials: Sequence[Credentials], request: web.Request) -> web.Response | None:
    """Find out who is calling, and whether he may. None: he may."""
    method = next((one for one in credentials if one.claimed(request)), None)
    caller = MISSING if method is None else await method.caller(request)
    if isinstance(caller, Refusal) and (method is not None or request.path.startswith("/2")):  # the Lambda API's paths
        answer = refusal(_STATUSES.get(caller.code, _FORBIDDEN), caller.message)
        answer.headers["X-Amzn-ErrorType"] = caller.code
        return answer
    if caller is None or isinstance(caller, Refusal):
        answer = refusal(401, "this node wants a token: Authorization: Bearer … (esmd reads ESMD_TOKEN)")
        answer.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="esmd"'
        return answer
    if caller.read_only and (request.method not in _READING or _INVOKING.match(request.path)):
        return refusal(_FORBIDDEN, "this token may only read")
    request[CALLER], request[MAY_CHANGE] = caller.name, not caller.read_only
    return None


@web.middleware
async def audit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log each request that may have changed something, with who asked for it and what came of it."""
    if request.method in _READING or _INVOKING.match(request.path):
        return await handler(request)
    facts = {"caller": request.get(CALLER, "local"), "method": request.method, "path": request.path}
    status: int | None = None  # cut off: it may have happened
    try:
        answer = await handler(request)
        status = answer.status
    except web.HTTPException as exc:
        status = exc.status
        raise
    finally:
        log.info("api.changed", **facts, status=status)
    return answer


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


def _from_a_form(request: web.Request) -> bool:
    """Whether a form of some web page, nobody knows of which site, may have sent this.

    Browsers of today say where a request comes from, and that has been judged; old ones do not. `curl -d` sends a
    form's content type too, but no browser's name. A page's script cannot send another type across sites without
    asking first, and is never answered.
    """
    if request.method in _READING or request.content_type not in _FORM_TYPES:
        return False
    told = hdrs.ORIGIN in request.headers or "Sec-Fetch-Site" in request.headers
    return not told and request.headers.get(hdrs.USER_AGENT, "").startswith("Mozilla/")


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
