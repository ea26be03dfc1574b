"""The Lambda API over HTTP on functions: their concurrency, their settings of asynchronous invocation.

Carries requests to `controlplane.lambda_functions` and its answers back. Who may ask is `node.guard`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from controlplane.lambda_documents import read_body
from node.lambda_api import answering, caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from controlplane.lambda_functions import LambdaFunctions

_CONCURRENCY = "/2017-10-31/functions/{function}/concurrency"
_GET_CONCURRENCY = "/2019-09-30/functions/{function}/concurrency"
_EVENT_INVOKE = "/2019-09-25/functions/{function}/event-invoke-config"
_ACCOUNT = "/2016-08-19/account-settings"


class LambdaFunctionsApi:
    """The handlers."""

    def __init__(self, functions: LambdaFunctions) -> None:
        self._functions = functions

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes, for `node.serve.Surface`."""
        return [
            web.put(_CONCURRENCY, answering(self._put_concurrency)),
            web.delete(_CONCURRENCY, answering(self._delete_concurrency)),
            web.get(_GET_CONCURRENCY, answering(self._get_concurrency)),
            web.get(_ACCOUNT, answering(self._account)),
            web.get(_ACCOUNT + "/", answering(self._account)),
            web.get(_EVENT_INVOKE + "/list", answering(self._list)),
            web.put(_EVENT_INVOKE, answering(self._put)),
            web.post(_EVENT_INVOKE, answering(self._update)),
            web.get(_EVENT_INVOKE, answering(self._get)),
            web.delete(_EVENT_INVOKE, answering(self._delete)),
        ]

    async def _put_concurrency(self, request: web.Request) -> tuple[int, Any]:
        wish = read_body(await request.read())
        return 200, await self._functions.put_concurrency(_function(request), wish, by=caller(request))

    async def _get_concurrency(self, request: web.Request) -> tuple[int, Any]:
        return 200, await self._functions.get_concurrency(_function(request))

    async def _delete_concurrency(self, request: web.Request) -> tuple[int, Any]:
        await self._functions.delete_concurrency(_function(request), by=caller(request))
        return 204, None

    async def _account(self, _request: web.Request) -> tuple[int, Any]:
        return 200, await self._functions.account_settings()

    async def _put(self, request: web.Request) -> tuple[int, Any]:
        wish = read_body(await request.read())
        return 200, await self._functions.put_event_invoke(*_version(request), wish, by=caller(request))

    async def _update(self, request: web.Request) -> tuple[int, Any]:
        wish = read_body(await request.read())
        return 200, await self._functions.update_event_invoke(*_version(request), wish, by=caller(request))

    async def _get(self, request: web.Request) -> tuple[int, Any]:
        return 200, await self._functions.get_event_invoke(*_version(request))

    async def _delete(self, request: web.Request) -> tuple[int, Any]:
        await self._functions.delete_event_invoke(*_version(request), by=caller(request))
        return 204, None

    async def _list(self, request: web.Request) -> tuple[int, Any]:
        return 200, await self._functions.list_event_invoke(_function(request), request.query.get("MaxItems"))


def _function(request: web.Request) -> str:
    return request.match_info["function"]


def _version(request: web.Request) -> tuple[str, str | None]:
    return _function(request), request.query.get("Qualifier") or None
