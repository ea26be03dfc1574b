"""The Invoke operation of the Lambda API over HTTP: `boto3.client("lambda").invoke` (spec section 6).

Takes in the request, no more of it than may be, and counts what came of it. What it means is `invocation.frontend`'s.
"""

from __future__ import annotations

import time
import uuid
from functools import partial
from typing import TYPE_CHECKING

import structlog
from aiohttp import hdrs, web

from invocation.classify import Answer
from invocation.front_answers import REQUEST_ID, error_answer
from invocation.invoke_request import largest, read_event, read_head
from invocation.invoking import NotInvoked, out_of_service
from node.admission import BODY_LIMIT_S, admitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from invocation.frontend import FrontEnd, Room
    from invocation.invoke_request import InvokeHead
    from invocation.settings import FunctionSettings
    from node.invoke_metrics import InvokeMeters

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_PATH = "/2015-03-31/functions/{function}/invocations"
_NO_CONTENT = 204
_TRACE = "X-Amzn-Trace-Id"
_DRY_RUN = Answer(_NO_CONTENT, {"X-Amz-Executed-Version": "$LATEST"})


class InvokeApi:
    """The handler. What `room` has no place for is throttled; once that is closed, everything is refused."""

    def __init__(
        self, front_end: FrontEnd, room: Room, meters: InvokeMeters, *, body_limit_s: float = BODY_LIMIT_S
    ) -> None:
        self._front_end = front_end
        self._body_limit_s = body_limit_s
        self._room = room
        self._meters = meters

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes, for `node.serve.Surface`."""
        return [web.post(_PATH, self._invoke)]

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        request_id = str(uuid.uuid4())
        head = read_head(request.match_info["function"], request.query.get("Qualifier"), request.headers)
        if isinstance(head, NotInvoked):
            return _response(error_answer(head), request_id)
        function = self._front_end.find(head)
        if isinstance(function, NotInvoked):
            return _response(error_answer(function), request_id, head)
        began_at = time.perf_counter()
        try:
            take = partial(self._taken, function, head, request_id)
            answer = await admitted(request, self._room, take, most=largest(head), limit_s=self._body_limit_s)
        except Exception:  # a supervision point: one request must not take the node down
            log.exception("invoke.failed", function=function.name, request_id=request_id)
            answer = error_answer(out_of_service("internal error; the node's log has it"))
        if answer.status != _NO_CONTENT:
            self._meters.count(function.name, answer, time.perf_counter() - began_at)
        return _response(answer, request_id, head)

    async def _taken(self, function: FunctionSettings, head: InvokeHead, request_id: str, body: bytes) -> Answer:
        """Invoke the function."""
        event = read_event(body)
        if isinstance(event, NotInvoked):
            return error_answer(event)
        if head.dry_run:
            return _DRY_RUN
        act = self._front_end.accept if head.later else self._front_end.invoke
        return await act(function, head, event, request_id)


def _response(answer: Answer, request_id: str, head: InvokeHead | None = None) -> web.Response:
    headers = {REQUEST_ID: request_id, **answer.headers}
    if answer.status != _NO_CONTENT:
        headers[hdrs.CONTENT_TYPE] = "application/json"
    if head is not None:
        headers[_TRACE] = head.trace
    return web.Response(body=answer.body, status=answer.status, headers=headers)
