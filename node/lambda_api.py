"""The Lambda API over HTTP, as AWS's own clients speak it: event source mappings and their tags (spec section 7).

Carries requests to `controlplane.lambda_mappings` and its answers back. Who may ask is `node.guard`'s.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from aiohttp import hdrs, web

from controlplane.lambda_documents import read_body
from controlplane.lambda_errors import ApiError, not_found, refused, unavailable
from controlplane.lambda_listing import read_request
from model.errors import UnavailableError
from node.admission import body_of
from node.guard import CALLER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from controlplane.lambda_mappings import LambdaMappings

    Operation = Callable[[web.Request], Awaitable[tuple[int, Any]]]

log = structlog.get_logger(__name__)

_ROOT = "/2015-03-31/event-source-mappings"
_TAGS = "/2017-03-31/tags"
_LIMIT_S = 20.0
_ACCEPTED = 202
_ARN = re.compile(r"arn:aws[a-z0-9-]*:lambda:[a-z0-9-]+:\d{12}:event-source-mapping:(?P<id>[0-9a-fA-F-]{36})")


class LambdaApi:
    """The handlers."""

    def __init__(self, mappings: LambdaMappings) -> None:
        self._mappings = mappings

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes, for `node.serve.Surface`. SDKs differ in the slash behind a collection."""
        one = _ROOT + "/{uuid}"
        tags = _TAGS + "/{arn}"
        collection = [
            route
            for path in (_ROOT, _ROOT + "/")
            for route in (web.post(path, answering(self._create)), web.get(path, answering(self._list)))
        ]
        return [
            *collection,
            web.get(one, answering(self._get)),
            web.put(one, answering(self._update)),
            web.delete(one, answering(self._delete)),
            web.get(tags, answering(self._tags)),
            web.post(tags, answering(self._tag)),
            web.delete(tags, answering(self._untag)),
        ]

    async def _create(self, request: web.Request) -> tuple[int, Any]:
        return _ACCEPTED, await self._mappings.create(read_body(await request.read()), by=caller(request))

    async def _list(self, request: web.Request) -> tuple[int, Any]:
        page = await self._mappings.page(read_request(request.query))
        more = {} if page.next_marker is None else {"NextMarker": page.next_marker}
        return 200, {"EventSourceMappings": page.mappings, **more}

    async def _get(self, request: web.Request) -> tuple[int, Any]:
        return 200, await self._mappings.get(request.match_info["uuid"])

    async def _update(self, request: web.Request) -> tuple[int, Any]:
        wish = read_body(await request.read())
        return _ACCEPTED, await self._mappings.update(request.match_info["uuid"], wish, by=caller(request))

    async def _delete(self, request: web.Request) -> tuple[int, Any]:
        return _ACCEPTED, await self._mappings.delete(request.match_info["uuid"], by=caller(request))

    async def _tags(self, request: web.Request) -> tuple[int, Any]:
        return 200, {"Tags": await self._mappings.tags(_tagged(request))}

    async def _tag(self, request: web.Request) -> tuple[int, Any]:
        put = read_body(await request.read()).get("Tags")
        if not isinstance(put, dict):
            raise refused("InvalidParameterValueException", "Tags must be a mapping of names to values")
        await self._mappings.retag(_tagged(request), put, [], by=caller(request))
        return 204, None

    async def _untag(self, request: web.Request) -> tuple[int, Any]:
        keys = request.query.getall("tagKeys", [])
        if not keys:
            raise refused("InvalidParameterValueException", "tagKeys is required")
        await self._mappings.retag(_tagged(request), {}, keys, by=caller(request))
        return 204, None


def caller(request: web.Request) -> str:
    """Name the caller for the audit log, as far as anything is known of him."""
    proved = request.get(CALLER)
    who = f"{proved} from {request.remote}" if proved else request.remote or "unknown"
    return f"api {who} {request.headers.get(hdrs.USER_AGENT, '')[:80]}".rstrip()


def _tagged(request: web.Request) -> str:
    """Return the id of the mapping whose ARN the path names. Raises `ApiError`."""
    arn = request.match_info["arn"]
    form = _ARN.fullmatch(arn)
    if form is None:
        if ":event-source-mapping:" not in arn:
            raise not_found()
        raise refused("InvalidParameterValueException", "Resource must be the ARN of an event source mapping")
    return form["id"]


def answering(
    operation: Operation, *, limit_s: float = _LIMIT_S, reads: bool = False
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Turn an operation into a handler that answers as AWS's clients expect, also when it fails.

    `limit_s` is for what is done once the body is there; an operation that `reads` one by itself does so within it.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        if not reads:
            await body_of(request)
        try:
            async with asyncio.timeout(limit_s):
                status, document = await operation(request)
        except ApiError as error:
            return _error(error)
        except UnavailableError as error:
            return _error(unavailable(str(error)))
        except TimeoutError:
            return _error(unavailable(f"no answer within {limit_s:g} s"))
        except web.HTTPException:
            raise
        except Exception:  # a supervision point: one request must not take the node down
            log.exception("lambda_api.failed", path=request.path)
            return _error(refused("ServiceException", "internal error; the node's log has it"))
        return _response(status, document)

    return handle


def _error(error: ApiError) -> web.Response:
    response = _response(error.status, error.document)
    response.headers["x-amzn-ErrorType"] = error.type
    return response


def _response(status: int, document: Any) -> web.Response:
    body = b"" if document is None else msgspec.json.encode(document)
    headers = {"x-amzn-RequestId": str(uuid.uuid4())}
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)
