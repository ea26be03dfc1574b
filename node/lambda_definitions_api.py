"""The Lambda API over HTTP on functions themselves: reading, making, changing and deleting them; bringing code.

Carries requests to `controlplane.lambda_definitions` and its answers back. Who may ask is `node.guard`'s.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from aiohttp import web

from controlplane.lambda_documents import read_body
from controlplane.lambda_errors import refused
from model.definition_rules import MAX_REQUEST_BYTES
from model.record import MAX_EVENT_BYTES
from node.admission import body_of
from node.guard import MAY_CHANGE, refusal
from node.lambda_api import answering, caller

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp.typedefs import Handler, Middleware

    from controlplane.lambda_definitions import LambdaDefinitions

_ROOT = "/2015-03-31/functions"
_ONE = _ROOT + "/{function}"
_TAGS = "/2017-03-31/tags/{arn:[^/]*(?::|%3A)function(?::|%3A)[^/]+}"
_UPLOAD = re.compile(rf"{_ROOT}(/|/[^/]+/code)?")
_UPLOADS = 2
_UPLOAD_LIMIT_S = 120.0
_CREATED, _NO_CONTENT = 201, 204


class LambdaDefinitionsApi:
    """The handlers."""

    def __init__(self, definitions: LambdaDefinitions) -> None:
        self._definitions = definitions

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes, for `node.serve.Surface`: before those of mappings, for the sake of tags."""
        uploading = [(_ROOT, web.post, self._create), (_ROOT + "/", web.post, self._create)]
        return [
            *(
                route(path, answering(operation, limit_s=_UPLOAD_LIMIT_S, reads=True))
                for path, route, operation in uploading
            ),
            web.put(_ONE + "/code", answering(self._update_code, limit_s=_UPLOAD_LIMIT_S, reads=True)),
            web.get(_ROOT, answering(self._list)),
            web.get(_ROOT + "/", answering(self._list)),
            web.get(_ONE, answering(self._get)),
            web.delete(_ONE, answering(self._delete)),
            web.get(_ONE + "/configuration", answering(self._configuration)),
            web.put(_ONE + "/configuration", answering(self._update_configuration)),
            web.get(_ONE + "/versions", answering(self._versions)),
            web.post(_ONE + "/versions", answering(_publish)),
            web.get(_TAGS, answering(self._tags)),
            web.post(_TAGS, answering(_retag)),
            web.delete(_TAGS, answering(_retag)),
        ]

    async def _create(self, request: web.Request) -> tuple[int, Any]:
        wish = await _wish(request)
        return _CREATED, await self._definitions.create(wish, by=caller(request))

    async def _update_code(self, request: web.Request) -> tuple[int, Any]:
        wish = await _wish(request)
        return 200, await self._definitions.update_code(_function(request), wish, by=caller(request))

    async def _update_configuration(self, request: web.Request) -> tuple[int, Any]:
        wish = read_body(await request.read())
        return 200, await self._definitions.update_configuration(_function(request), wish, by=caller(request))

    async def _delete(self, request: web.Request) -> tuple[int, Any]:
        await self._definitions.delete(_function(request), _qualifier(request), by=caller(request))
        return _NO_CONTENT, None

    async def _get(self, request: web.Request) -> tuple[int, Any]:
        return 200, await self._definitions.get(_function(request), _qualifier(request), writer=_writer(request))

    async def _configuration(self, request: web.Request) -> tuple[int, Any]:
        function, qualifier = _function(request), _qualifier(request)
        return 200, await self._definitions.configuration(function, qualifier, writer=_writer(request))

    async def _list(self, request: web.Request) -> tuple[int, Any]:
        marker, most = request.query.get("Marker"), request.query.get("MaxItems")
        return 200, await self._definitions.page(marker, most, writer=_writer(request))

    async def _versions(self, request: web.Request) -> tuple[int, Any]:
        return 200, await self._definitions.versions(_function(request), writer=_writer(request))

    async def _tags(self, request: web.Request) -> tuple[int, Any]:
        return 200, {"Tags": await self._definitions.tags(unquote(request.match_info["arn"]))}


def upload_room(allowed: Callable[[], bool]) -> Middleware:
    """Return the middleware that lets large requests pass where they bring code, a few at a time.

    It comes before the one that finds out who is calling, since a signature covers the body. All other requests stay as
    small as they are.
    """
    under_way = 0

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal under_way
        upload = request.method in ("POST", "PUT") and _UPLOAD.fullmatch(request.path) is not None
        if not upload or not allowed() or (request.content_length or MAX_REQUEST_BYTES) <= MAX_EVENT_BYTES:
            return await handler(request)
        if under_way >= _UPLOADS:
            why = f"{_UPLOADS} uploads of code are under way; try again"
            return refusal(429, why, aws="TooManyRequestsException", wait_s=1)
        under_way += 1
        try:
            return await handler(request.clone(client_max_size=MAX_REQUEST_BYTES))
        finally:
            under_way -= 1

    return middleware


async def _wish(request: web.Request) -> dict[str, Any]:
    """Read a request that may bring code. Raises `ApiError`."""
    try:
        body = await body_of(request)
    except web.HTTPRequestEntityTooLarge as exc:
        operation = "UpdateFunctionCode" if request.method == "PUT" else "CreateFunction"
        why = f"Request must be smaller than {MAX_REQUEST_BYTES} bytes for the {operation} operation"
        raise refused("RequestEntityTooLargeException", why) from exc
    # In a thread, though it holds Python's lock: what comes between has a chance.
    return await asyncio.to_thread(read_body, body) if len(body) > MAX_EVENT_BYTES else read_body(body)


async def _publish(_request: web.Request) -> tuple[int, Any]:
    raise refused("InvalidParameterValueException", "There are no versions here; $LATEST is the only one.")


async def _retag(_request: web.Request) -> tuple[int, Any]:
    why = "Tags of functions are given at creation and cannot be changed here."
    raise refused("InvalidParameterValueException", why)


def _function(request: web.Request) -> str:
    return request.match_info["function"]


def _qualifier(request: web.Request) -> str | None:
    return request.query.get("Qualifier") or None


def _writer(request: web.Request) -> bool:
    return bool(request.get(MAY_CHANGE, True))
