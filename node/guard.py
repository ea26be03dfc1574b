"""Who may talk to the HTTP surface.

Without configured credentials only programs of this machine may: the surface listens on loopback, and requests that a
web page elsewhere makes a local browser send are refused by their Host and Origin headers. With credentials every
request but the two probes must present one. Paths that are public (the console's page, without what it shows) may be
loaded by anybody who may talk to the node at all, also by following a link on another site.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import structlog
from aiohttp import hdrs, web

from invocation.forwarding import PATH as FROM_NODES
from node.options import is_loopback
from node.signature import MISSING, Refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

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

READING = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

INVOKING = re.compile(r"/functions/|/esmd/v1/environments/|/\d{4}-\d\d-\d\d/functions/[^/]+/invo")
"""Paths of what calls a function, which changes nothing of ours."""

_STATUSES = {"RequestTooLargeException": 413, "TooManyRequestsException": 429}
_FORBIDDEN = 403
_NO_PROOF_ASKED = frozenset(_STATUSES)  # whoever is refused so was not looked at any further


class Credentials(Protocol):
    """One way to prove who is calling."""

    def claimed(self, request: web.Request) -> bool:
        """Whether the request tries to prove itself in this way."""

    async def caller(self, request: web.Request) -> Caller | Refusal | None:
        """Return who it is from; None, or why, when that is not proved."""


class Logins(Protocol):
    """Keeps an eye on failed proofs: `node.rate_limits`."""

    def login_refused(self, request: web.Request) -> web.Response | None:
        """Refuse a proof from where too many have failed; None: it may be looked at."""

    def login_failed(self, request: web.Request) -> None:
        """Learn of a proof that is none."""

    def logged_in(self, request: web.Request) -> None:
        """Learn of one that is."""


def guard(
    credentials: Sequence[Credentials], *, public: Collection[str] = (), logins: Logins | None = None
) -> Middleware:
    """Return the middleware that lets through only who may. No credentials: loopback only."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        open_page = request.path in public and request.method in READING
        if not credentials:
            if not _addressed_as_loopback(request):
                return refusal(403, "this node is reached as 127.0.0.1, ::1 or localhost only; for others set `auth`")
        elif not (open_page or request.path in OPEN_PATHS):
            refused = await _refused(credentials, request, logins)
            if refused is not None:
                return refused
        if not open_page and not _same_origin(request):
            return refusal(403, "requests from other web sites are refused")
        if not credentials and _from_a_form(request):
            return refusal(415, "forms of web pages are refused: send Content-Type: application/json")
        return await handler(request)

    return middleware


async def _refused(
    credentials: Sequence[Credentials], request: web.Request, logins: Logins | None
) -> web.Response | None:
    """Find out who is calling, and whether he may. None: he may."""
    method = next((one for one in credentials if one.claimed(request)), None)
    # Nodes of the fleet have a secret that nobody guesses; one that is refused runs the function elsewhere.
    watched = None if method is None or request.path.startswith(FROM_NODES) else logins
    if watched is not None and (too_many := watched.login_refused(request)) is not None:
        return too_many
    caller = MISSING if method is None else await method.caller(request)
    if watched is not None and not (isinstance(caller, Refusal) and caller.code in _NO_PROOF_ASKED):
        (watched.login_failed if caller is None or isinstance(caller, Refusal) else watched.logged_in)(request)
    if isinstance(caller, Refusal) and (method is not None or of_lambda_api(request.path)):
        full = caller.code == "TooManyRequestsException"
        return refusal(status_of(caller.code), caller.message, aws=caller.code, wait_s=1 if full else None)
    if caller is None or isinstance(caller, Refusal):
        answer = refusal(401, "this node wants a token: Authorization: Bearer … (esmd reads ESMD_TOKEN)")
        answer.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="esmd"'
        return answer
    if caller.read_only and (request.method not in READING or INVOKING.match(request.path)):
        return refusal(_FORBIDDEN, "this token may only read")
    request[CALLER], request[MAY_CHANGE] = caller.name, not caller.read_only
    return None


@web.middleware
async def audit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log each request that may have changed something, with who asked for it and what came of it."""
    if request.method in READING or INVOKING.match(request.path):
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


def of_lambda_api(path: str) -> bool:
    """Whether a path is one of AWS's: all begin with a date of this century."""
    return path.startswith("/2")


def refusal(status: int, message: str, *, aws: str = "", wait_s: float | None = None) -> web.Response:
    """Return an error as the JSON document every path of the surface answers errors with; more as `error_response`."""
    return error_response(status, {"message": message}, aws=aws, wait_s=wait_s)


def status_of(refused: str) -> int:
    """Return the status of a refusal of `Credentials`, by AWS's type of it."""
    return _STATUSES.get(refused, _FORBIDDEN)


def error_response(
    status: int, document: Mapping[str, str], *, aws: str = "", wait_s: float | None = None
) -> web.Response:
    """Return an error. `aws` is AWS's type of it, `wait_s` how long to wait before asking again."""
    answer = web.json_response(document, status=status)
    if aws:
        answer.headers["X-Amzn-ErrorType"] = aws
    if wait_s is not None:
        answer.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(wait_s)))
    return answer


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
    if request.method in READING or request.content_type not in _FORM_TYPES:
        return False
    told = hdrs.ORIGIN in request.headers or "Sec-Fetch-Site" in request.headers
    return not told and request.headers.get(hdrs.USER_AGENT, "").startswith("Mozilla/")


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
