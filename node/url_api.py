"""Functions behind URLs: `/functions/NAME/url/…` with any method, for functions that have `http: true`.

Takes in the request and counts what came of it. What a request and a result mean is `invocation.function_url`'s; how a
function is called `invocation.frontend`'s, as for the Invoke API: same room, same refusals, same counters.
"""

from __future__ import annotations

import time
import uuid
from functools import partial
from typing import TYPE_CHECKING

import structlog
from aiohttp import hdrs, web
from multidict import CIMultiDict

from invocation.classify import Answer
from invocation.front_answers import FUNCTION_ERROR, REQUEST_ID, error_answer
from invocation.function_url import MALFORMED, UrlRequest, UrlResponse, event_of, response_of
from invocation.invoke_request import MAX_EVENT_BYTES, read_head, too_large
from invocation.invoking import NotInvoked, out_of_service
from node.admission import BODY_LIMIT_S, admitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invocation.frontend import FrontEnd, Room
    from invocation.invoke_request import InvokeHead
    from invocation.settings import FunctionSettings
    from node.invoke_metrics import InvokeMeters

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_PATHS = ("/functions/{function}/url", "/functions/{function}/url/{rest:.*}")
_BEFORE_REST = 4  # slashes
_OK = 200
_IN_BASE64 = 4 / 3
_TRACE = "X-Amzn-Trace-Id"


class FunctionUrls:
    """The handler. `guarded`: the node asks for credentials, which are not for functions."""

    def __init__(
        self,
        front_end: FrontEnd,
        room: Room,
        meters: InvokeMeters,
        *,
        guarded: bool,
        body_limit_s: float = BODY_LIMIT_S,
    ) -> None:
        self._front_end = front_end
        self._room = room
        self._meters = meters
        self._hidden = frozenset({"authorization", "x-amz-security-token"}) if guarded else frozenset[str]()
        self._body_limit_s = body_limit_s

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes, for `node.serve.Surface`."""
        return [web.route(hdrs.METH_ANY, path, self._call) for path in _PATHS]

    async def _call(self, request: web.Request) -> web.StreamResponse:
        request_id, name = str(uuid.uuid4()), request.match_info["function"]
        head = read_head(name, None, {_TRACE: request.headers.get(_TRACE, "")})
        function = head if isinstance(head, NotInvoked) else self._front_end.find(head)
        if isinstance(head, NotInvoked) or isinstance(function, NotInvoked) or not function.http:
            return _send(_no_url(name), request_id)
        began_at = time.perf_counter()
        try:
            take = partial(self._taken, request, function, head, request_id)
            answer = await admitted(request, self._room, take, growth=_IN_BASE64, limit_s=self._body_limit_s)
        except Exception:  # a supervision point: one request must not take the node down
            log.exception("url.failed", function=function.name, request_id=request_id)
            answer = error_answer(out_of_service("internal error; the node's log has it"))
        response = _response(answer)
        if response is MALFORMED and FUNCTION_ERROR not in answer.headers:
            log.warning("url.malformed", function=function.name, request_id=request_id)
            answer = Answer(answer.status, {**answer.headers, FUNCTION_ERROR: "Unhandled"})
        self._meters.count(function.name, answer, time.perf_counter() - began_at)
        return _send(response, request_id, head)

    async def _taken(
        self, request: web.Request, function: FunctionSettings, head: InvokeHead, request_id: str, body: bytes
    ) -> Answer:
        """Invoke the function with what came."""
        came = _as_it_came(request, body, self._hidden)
        event = event_of(came, function=function.name, request_id=request_id, trace=head.trace, at_s=time.time())
        if len(event) > MAX_EVENT_BYTES:
            return error_answer(too_large())
        return await self._front_end.invoke(function, head, event, request_id)


def _as_it_came(request: web.Request, body: bytes, hidden: frozenset[str]) -> UrlRequest:
    target = request.raw_path
    if not target.startswith("/"):  # with scheme and host, as proxies are asked
        target = request.rel_url.raw_path_qs
    path, _, query = target.partition("#")[0].partition("?")
    parts = path.split("/", _BEFORE_REST)
    return UrlRequest(
        method=request.method,
        path=f"/{parts[_BEFORE_REST]}" if len(parts) > _BEFORE_REST else "/",
        query=query,
        headers=list(request.headers.items()),
        body=body,
        remote=request.remote or "",
        scheme=request.scheme,
        protocol=f"HTTP/{request.version.major}.{request.version.minor}",
        hidden=hidden,
    )


def _response(answer: Answer) -> UrlResponse:
    """Return what a caller gets for what the Invoke API would have answered."""
    if answer.status == _OK:
        found = None if FUNCTION_ERROR in answer.headers else response_of(bytes(answer.body))
        return found or MALFORMED
    # Content-Encoding and the like are of the answer of a function elsewhere; these are not.
    kept = [(name, value) for name, value in answer.headers.items() if name in ("x-amzn-ErrorType", "Retry-After")]
    return UrlResponse(answer.status, [("Content-Type", "application/json"), *kept], bytes(answer.body))


def _no_url(name: str) -> UrlResponse:
    """Say no more than that there is nothing: which functions there are is nobody's business."""
    answer = error_answer(NotInvoked(404, "ResourceNotFoundException", f"No function {name} has a URL on this node"))
    return _response(answer)


def _send(response: UrlResponse, request_id: str, head: InvokeHead | None = None) -> web.Response:
    headers = CIMultiDict(response.headers)
    headers.setdefault(REQUEST_ID, request_id)
    if head is not None:
        headers.setdefault(_TRACE, head.trace)
    return web.Response(body=response.body, status=response.status, headers=headers)
